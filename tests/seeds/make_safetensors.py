# Writes the safetensors seeds of the tests: python make_safetensors.py OUT_DIR.
import json
import struct
import sys

OUT = sys.argv[1]
SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4,
         "U16": 2, "U8": 1, "BOOL": 1}
CODES = {"F64": "d", "F32": "f", "F16": "e", "I64": "q", "I32": "i", "I16": "h", "I8": "b", "U64": "Q", "U32": "I",
         "U16": "H", "U8": "B", "BOOL": "?"}


def pack(dtype, values):
    if dtype == "BF16":  # the upper half of a float
        return b"".join(struct.pack("<f", v)[2:] for v in values)
    return struct.pack(f"<{len(values)}{CODES[dtype]}", *values)


def write(name, tensors, metadata):
    header, data = ({"__metadata__": metadata} if metadata else {}), b""
    for key, (dtype, shape, values) in tensors.items():
        part = pack(dtype, values)
        header[key] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(part)]}
        data += part
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(f"{OUT}/{name}.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


# Entry i of "DTYPE" is i - 2, or i + 1 for unsigned ones, or i odd for bool; shape [2, 3].
every = {}
for dtype in SIZES:
    count = [i % 2 == 1 if dtype == "BOOL" else i + 1 if dtype[0] == "U" else i - 2 for i in range(6)]
    every[dtype] = (dtype, [2, 3], count)
every["scalar"] = ("F64", [], [2.5])
every["empty"] = ("F32", [0, 3], [])
write("dtypes", every, {"format": "pt", "note": "z\u00e4hlen"})

tensors, metadata = {}, {"labels": "regression_labels", "noise_floor_mae": "0.25"}
for split, n in (("train", 3), ("valid", 1), ("test", 2)):
    tensors[f"{split}.text"] = ("F32", [n, 2, 2], [i / 4 for i in range(4 * n)])
    tensors[f"{split}.audio"] = ("F64", [n, 3, 1], [float("nan")] + [i / 2 for i in range(1, 3 * n)])
    tensors[f"{split}.audio_lengths"] = ("I64", [n], [3] * n)
    tensors[f"{split}.thermal"] = ("F16", [n, 1, 2], [1.0] * (2 * n))
    tensors[f"{split}.labels"] = ("F32", [n, 1], [i - 1.0 for i in range(n)])
    metadata[f"{split}.ids"] = json.dumps([f"{split}-{i}" for i in range(n)])
write("dataset", tensors, metadata)

tensors, metadata = {}, {}
for split in ("train", "valid", "test"):
    tensors[f"{split}.text_bert"] = ("I32", [2, 3, 4], [2, 4, 3, 0, 1, 1, 1, 0, 0, 0, 0, 0, 2, 3, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0])
    tensors[f"{split}.audio"] = ("F32", [2, 1, 3], [i / 2 for i in range(6)])
    tensors[f"{split}.labels"] = ("F32", [2], [1.0, 2.0])
    metadata[f"{split}.raw_text"] = json.dumps(["Good", ""])
write("tokens", tensors, metadata)
