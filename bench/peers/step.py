"""Times a whole training step of the authors' PyTorch code and of decalign, side by side in one run, and prints one table."""
import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import types
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "golden"))
import compare_authors
import make

import numpy as np
import torch

CASES = {
    "mosi": dict(batch=32, seq=(50, 50, 50), dims=(768, 5, 20)),
    "mosei": dict(batch=128, seq=(50, 50, 50), dims=(768, 74, 35)),
    "iemocap": dict(batch=32, seq=(1, 1, 1), dims=(1024, 512, 1024)),
}
MODALITIES = ("text", "audio", "vision")


class AuthorsStep:
    """Forward, losses, backward, clipping and Adam as the authors' trainer does them."""

    def __init__(self, authors, config, case):
        torch.manual_seed(1111)
        rng = np.random.Generator(np.random.PCG64(1))
        self.config, self.authors = config, authors
        self.batch = make.make_batch(config, dict(zip(MODALITIES, case["dims"])), dict(zip(MODALITIES, case["seq"])), case["batch"], rng)
        self.model = authors.network(config, None, torch.float32)
        self.optimizer = torch.optim.Adam([{"params": self.model.parameters(), "weight_decay": config.get("weight_decay", 0.0)}],
                                          lr=config["learning_rate"])
        self.trainer = authors.trainer(types.SimpleNamespace(**config))

    def __call__(self):
        start, b = time.perf_counter(), self.batch
        self.model.zero_grad()
        out = self.model(b["text"], b["audio"], b["vision"])
        loss = self.trainer._combined_loss(self.trainer._main_loss(out["output_logit"], b["labels"]), out)
        if self.config.get("ct_weight", 0.0) > 0:
            loss = loss + self.config["ct_weight"] * self.trainer._contrastive_loss(out["final_rep"], b["labels"])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config["clip"])
        self.optimizer.step()
        loss.item()
        return 1e3 * (time.perf_counter() - start)


def our_steps(program, config_file, case, threads, steps):
    """Milliseconds per step printed by bench_step."""
    def comma(values):
        return ",".join(map(str, values))
    command = [program, "--config", config_file, "--batch", case["batch"], "--seq", comma(case["seq"]),
               "--dims", comma(case["dims"]), "--threads", threads, "--steps", steps]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{program}: exit status {done.returncode}: {done.stderr.strip()}")
    return json.loads(done.stdout.strip().splitlines()[-1])["ms"]


def matmul_peak(n=2048, repeats=8):
    """GFLOP/s of the best large float32 matrix product."""
    a, b = torch.randn(n, n), torch.randn(n, n)
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    return 2 * n ** 3 / min(times[1:]) / 1e9


def spread(values, digits=1):
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} - {max(values):.{digits}f})"


def processor():
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--authors", type=Path, required=True, help="a checkout of github taco-group/DecAlign")
    parser.add_argument("--binary", type=Path, help="the decalign executable, for its version line")
    parser.add_argument("--bench-step", type=Path, help="the bench_step executable; without it only the authors' side is timed")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7, help="how often the two sides take turns")
    parser.add_argument("--case", nargs="*", choices=CASES, default=list(CASES))
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    torch.set_num_threads(args.threads)
    authors = compare_authors.Authors(args.authors.resolve())
    revision = subprocess.run(["git", "-C", args.authors, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    peaks, rows = [matmul_peak()], []
    for name in args.case:
        case, config = CASES[name], authors.released_config(name)
        # A turn of about a second each; the first steps of a turn warm it up and do not count.
        theirs = AuthorsStep(authors, config, case)
        count = max(3, min(50, int(1000 / min(theirs() for _ in range(3)))))
        a, b, ratios = [], [], []
        with tempfile.TemporaryDirectory() as scratch:
            config_file = Path(scratch) / "config.json"
            config_file.write_text(json.dumps(config))
            for _ in range(args.repeats):
                theirs()
                a.append(statistics.median(theirs() for _ in range(count)))
                if args.bench_step:
                    ms = our_steps(args.bench_step, config_file, case, args.threads, 3 * count + 3)
                    b.append(statistics.median(ms[3:]))
                    ratios.append(a[-1] / b[-1])
        shape = f"{name} (B {case['batch']}, T {case['seq'][0]}, widths {'/'.join(map(str, case['dims']))})"
        rows.append(f"| {shape} | {spread(a)} | {spread(b, 2) if b else '-'} | {spread(ratios, 2) if b else '-'} |")
        peaks.append(matmul_peak())
    print("| step | authors, ms: median (min - max) | decalign, ms: median (min - max) | ratio: median (min - max) |\n|---|---|---|---|")
    print(*rows, sep="\n")
    version = ""
    if args.binary:
        said = subprocess.run([args.binary, "--version"], capture_output=True, text=True).stdout.strip().splitlines()
        version = f"; {said[0]}" if said else ""
    print(f"\n{processor()}, {args.threads} threads, medians of {args.repeats} alternating turns; float32, the configs' dropout on, float text."
          f"\nPyTorch {torch.__version__}, Python {platform.python_version()}, authors' code at {revision or 'an unknown revision'}{version}."
          f"\nLargest float32 matrix product (2048^3, PyTorch): {min(peaks):.0f} - {max(peaks):.0f} GFLOP/s before, between and after the cases.")


if __name__ == "__main__":
    main()
