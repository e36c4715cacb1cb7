"""Writes a large MMSA pickle of random numbers. Then, for the memory of a training:

    /usr/bin/time -v decalign train --dataset FILE --out RUN num_epochs=1 need_feature_standardized=true

Peak resident memory stays under 1.2 x the float32 arrays (printed here) + the arena (printed in the log) + 64 MB."""
import argparse
import pickle

import numpy as np

SHAPES = {"text": (50, 768), "audio": (50, 5), "vision": (50, 20)}
SHARES = {"train": 0.7, "valid": 0.1, "test": 0.2}


def split(name, n, rng):
    arrays = {m: rng.standard_normal((n, *shape), dtype=np.float32) for m, shape in SHAPES.items()}
    labels = np.clip(arrays["text"][:, :, 0].mean(1) * 10 + arrays["vision"][:, 0, 0], -3, 3)
    return arrays | {
        "audio": arrays["audio"].astype(np.float64),  # as the field's files have it
        "raw_text": [f"sentence {i}" for i in range(n)],
        "text_bert": np.zeros((n, 3, 50)),  # asked for by nobody
        "id": [f"{name}$_${i}" for i in range(n)],
        "regression_labels": labels,
    }


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("file")
parser.add_argument("gigabytes", nargs="?", type=float, default=2.0)
args = parser.parse_args()
per_sample = sum(4 * t * d for t, d in SHAPES.values())
on_disk = per_sample + 4 * np.prod(SHAPES["audio"]) + 8 * 3 * 50
samples = int(args.gigabytes * 1e9 / on_disk)
rng = np.random.default_rng(1)
data = {name: split(name, int(samples * share), rng) for name, share in SHARES.items()}
with open(args.file, "wb") as f:
    pickle.dump(data, f, 4)
kept = sum(len(s["id"]) for s in data.values()) * per_sample
print(f"{kept / 1e6:.1f} MB of float32 arrays are kept; bound without the arena: {(1.2 * kept) / 1e6 + 64:.1f} MB")
