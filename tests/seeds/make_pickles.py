# Writes the pickle seeds of the tests: python make_pickles.py OUT_DIR, once with numpy 1 and once with numpy 2.
import pickle
import sys

import numpy as np

OUT = sys.argv[1]
MAJOR = np.__version__.split(".")[0]


def counted(shape, dtype):
    """Entry i (row-major) is i - 2, or i + 1 for unsigned, or i odd for bool."""
    i = np.arange(int(np.prod(shape)))
    kind = np.dtype(dtype).kind
    values = i + 1 if kind == "u" else i % 2 if kind == "b" else i - 2
    return values.reshape(shape).astype(dtype)


def dtypes():
    arrays = {}
    for name in "f2 f4 f8 i1 i2 i4 i8 u1 u2 u4 u8 b1 >f2 >f4 >f8 >i2 >i4 >u8".split():
        arrays[name] = counted((2, 3, 2), name)
        arrays[name + "_F"] = np.asfortranarray(counted((2, 3, 2), name))
    arrays["U"] = np.array(["one", "zwölf", "\u4e09"])
    arrays[">U"] = np.array(["one", "zwölf", "\u4e09"]).astype(">U5")
    arrays["S"] = np.array([b"one", b"t\xe9o", b""])
    arrays["O"] = np.array(["a", "bc", "\xe9"], dtype=object)
    arrays["scalar"] = np.float64(2.5)
    arrays["int_scalar"] = np.int32(-7)
    arrays["text_scalar"] = np.str_("word")
    arrays["strided"] = counted((4, 3), "f4")[::2]
    arrays["empty"] = np.zeros((0, 3), "f4") if PROTOCOL > 2 else None
    arrays["complex"] = np.array([1j])
    arrays["record"] = np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")])
    arrays["date"] = np.array(["2020-01-01"], dtype="M8[D]")
    arrays[7] = {"not": ("text", True, None, 2**80, -(2**40), 1e300)}
    if PROTOCOL >= 4:  # older ones write sets as a call
        arrays["sets"] = ({1, 2}, frozenset([3]))
    arrays["bytes"] = b"\x00\xff"
    return arrays


def split(name, n):
    text = counted((n, 4, 3), "f4") / 8
    audio = np.asfortranarray(counted((n, 5, 2), "f8") / 4)
    audio[0, 0, 0], audio[0, 0, 1], audio[0, 1, 0], audio[0, 1, 1] = np.nan, np.inf, -np.inf, 1e300
    vision = (counted((n, 3, 2), "f4") / 2).astype("f2")
    return {
        "raw_text": [f"sentence {i} \u4e2d" for i in range(n)],
        "text": text,
        "text_bert": np.ones((n, 3, 4), "i8"),
        "audio": audio,
        "vision": vision,
        "id": [f"{name}$_${i}" for i in range(n)],
        "audio_lengths": [5 - i % 3 for i in range(n)],
        "vision_lengths": np.array([3 - i % 2 for i in range(n)]),
        "annotations": ["Neutral"] * n,
        "regression_labels": [float(i) - 1.5 for i in range(n)] if name == "train"
        else (np.arange(n) - 1.5).astype("f4").reshape(n, 1),
        "classification_labels": np.arange(n) % 3,
        "regression_labels_T": np.zeros(n),
    }


for PROTOCOL in (2, 3, 4, 5):
    with open(f"{OUT}/dtypes_numpy{MAJOR}_protocol{PROTOCOL}.pkl", "wb") as f:
        pickle.dump(dtypes(), f, PROTOCOL)
    data = {name: split(name, n) for name, n in (("train", 4), ("valid", 2), ("test", 3))}
    with open(f"{OUT}/mmsa_numpy{MAJOR}_protocol{PROTOCOL}.pkl", "wb") as f:
        pickle.dump(data, f, PROTOCOL)

# Labels and ids in the other forms they come in.
few = {name: {"text": counted((2, 2), "f4"), "audio": counted((2, 1, 3), "i2")} for name in ("train", "valid", "test")}
few["train"].update(regression_labels=np.array(["1.5", "-2"]), id=np.array([b"a", b"b"]))
few["valid"].update(regression_labels=["1.5", np.float32(-2)], id=[1, b"b"])
few["test"].update(regression_labels=[[1.5], [-2]], id=np.arange(2), audio_lengths=[1, 0])
with open(f"{OUT}/labels_numpy{MAJOR}_protocol4.pkl", "wb") as f:
    pickle.dump(few, f, 4)

# Token ids and raw text: in every split the rows come in another type and order.
ids = np.array([[2, 4, 3, 0], [2, 3, 0, 0]])
mask, segment = (ids != 0).astype(int), np.zeros_like(ids)
few = {name: {"audio": counted((2, 1, 3), "f4"), "regression_labels": [1.0, 2.0]} for name in ("train", "valid", "test")}
few["train"].update(text_bert=np.stack([ids, mask, segment], 1), raw_text=["Good", ""])
few["valid"].update(text_bert=np.stack([ids, segment, mask], 1).astype("i4"), raw_text=np.array(["caf\u00e9", "\u4f60"]))
few["test"].update(text_bert=np.asfortranarray(np.stack([ids, mask, segment], 1)).astype("f8"), raw_text=np.array(["a", "b"], object))
with open(f"{OUT}/tokens_numpy{MAJOR}_protocol4.pkl", "wb") as f:
    pickle.dump(few, f, 4)
