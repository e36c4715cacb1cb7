"""Runs the signature kernels and their peers on the same inputs in one run, checks that the answers agree, prints one table.

Each library has a process of its own; they take turns with bench_kernels. Peers that are not installed are named and left out.
The column "off" is the largest difference from a reference in double, over its largest entry; beyond the case's tolerance a row is
marked WRONG.
"""
import argparse
import importlib
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from step import PROCESSORS, busy_seconds, environment, free_to_run, processor

MODULES = {"torch": "torch", "geomloss": "geomloss", "keops": "pykeops", "ott": "ott", "pot": "ot", "sklearn": "sklearn"}
PACKAGES = {"torch": "torch", "geomloss": "geomloss", "keops": "pykeops", "ott": "ott-jax", "pot": "POT", "sklearn": "scikit-learn"}


# ---- inputs --------------------------------------------------------------------------------------------------------------
def mmd_inputs(rng, n, d, shift=0.1, bandwidths=1):
    widest = 2.0 * d * 2 ** (bandwidths // 2)
    return {"x": rng.standard_normal((n, d)), "y": rng.standard_normal((n, d)) + shift,
            "bandwidths": np.array([widest / 2 ** l for l in range(bandwidths)]), "weights": np.full(bandwidths, 1 / bandwidths)}


def moments_inputs(rng, n, d, offset=0.0):
    return {"x": rng.standard_normal((n, d)) ** 2 + offset}


def mot_inputs(rng, k, d=4):
    """Points, and their squared distances as costs: OTT-JAX takes points."""
    points = 0.5 * rng.standard_normal((3, k, d)).astype(np.float32)
    cost = np.stack([((points[i][:, None] - points[j][None]) ** 2).sum(-1) for i, j in ((0, 1), (0, 2), (1, 2))])
    marginals = rng.random((3, k)) + 0.5
    return {"points": points, "cost": cost, "marginals": marginals / marginals.sum(1, keepdims=True)}


def bures_inputs(rng, pairs, d, condition=1e2, coincident=False):
    """Random rotations of a log-uniform spectrum."""
    q, _ = np.linalg.qr(rng.standard_normal((2, pairs, d, d)))
    spectrum = condition ** -rng.random((2, pairs, 1, d))
    s = (q * spectrum) @ q.swapaxes(-1, -2)
    if coincident:
        s[1] = s[0]
    return {"covariances": s}


def gmm_inputs(rng, n, d, k):
    centres = 2 * rng.standard_normal((k, d))
    x = centres[rng.integers(0, k, n)] + rng.standard_normal((n, d))
    first = np.array([round_half_even(i * (n - 1) / (k - 1)) for i in range(k)])
    x[first] = centres + 0.5 * rng.standard_normal((k, d))          # the release's start takes these rows
    return {"x": x}


def round_half_even(v):
    return int(np.rint(v))


# name: kernel, inputs, options of bench_kernels, tolerance over the largest entry, what is compared
CASES = {
    "mmd 4096 x 64": dict(kernel="mmd", inputs=(mmd_inputs, 4096, 64), tolerance=1e-3),
    "mmd 4096 x 64, 5 bandwidths": dict(kernel="mmd", inputs=(mmd_inputs, 4096, 64, 0.1, 5), tolerance=1e-3),
    "mmd 16384 x 64": dict(kernel="mmd", inputs=(mmd_inputs, 16384, 64), tolerance=1e-3, slow=True),
    "moments 1e6 x 128": dict(kernel="moments", inputs=(moments_inputs, 10 ** 6, 128), tolerance=1e-3),
    "moments 1e6 x 128, way back": dict(kernel="moments", inputs=(moments_inputs, 10 ** 6, 128), options={"what": "backward"}, tolerance=1e-3),
    "moments 1e5 x 128 at 1e6": dict(kernel="moments", inputs=(moments_inputs, 10 ** 5, 128, 1e6), tolerance=1e-3),
    "covariance 1e6 x 128": dict(kernel="moments", inputs=(moments_inputs, 10 ** 6, 128), options={"what": "covariance"}, tolerance=1e-3),
}
for k, s in ((7, False), (64, False), (192, True)):
    options = {"epsilon": 0.1, "sweeps": 50}
    CASES[f"transport K = {k}, unrolled"] = dict(kernel="mot", inputs=(mot_inputs, k), slow=s, tolerance=1e-3,
                                                 options=options | {"unrolled": True, "primal": True})
    CASES[f"transport K = {k}, envelope"] = dict(kernel="mot", inputs=(mot_inputs, k), slow=s, tolerance=1e-3, options=options)
for d in (16, 64):
    CASES[f"bures 1000 x {d}"] = dict(kernel="bures", inputs=(bures_inputs, 1000, d), tolerance=1e-2)
CASES["bures 1000 x 16, condition 1e4"] = dict(kernel="bures", inputs=(bures_inputs, 1000, 16, 1e4), tolerance=1e-1)
CASES["bures 1000 x 16, coincident"] = dict(kernel="bures", inputs=(bures_inputs, 1000, 16, 1e2, True), tolerance=1e-3, scale={"cost": 1.0, "dcovariances": 1.0})
CASES["gmm diagonal 1e5 x 64, K = 64"] = dict(kernel="gmm", inputs=(gmm_inputs, 10 ** 5, 64, 64), tolerance=1e-3,
                                              options={"components": 64, "iterations": 1})
CASES["gmm full 20000 x 16, K = 64"] = dict(kernel="gmm", inputs=(gmm_inputs, 20000, 16, 64), tolerance=1e-3,
                                            options={"components": 64, "iterations": 1, "full": True})


# ---- files: a safetensors header and the arrays behind it ------------------------------------------------------------------
def save_tensors(path, tensors):
    header, data = {}, b""
    tensors = {name: np.ascontiguousarray(t, np.float32) for name, t in tensors.items()}
    at = 0
    for name, t in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(t.shape), "data_offsets": [at, at + t.nbytes]}
        at += t.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text)
        for t in tensors.values():
            f.write(t.tobytes())


def load_tensors(path):
    with open(path, "rb") as f:
        header = json.loads(f.read(int.from_bytes(f.read(8), "little")))
        start, found = f.tell(), {}
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            f.seek(start + entry["data_offsets"][0])
            dtype = {"F32": np.float32, "F64": np.float64}[entry["dtype"]]
            found[name] = np.frombuffer(f.read(entry["data_offsets"][1] - entry["data_offsets"][0]), dtype).reshape(entry["shape"])
    return found


# ---- a peer's process: a line of JSON in, a line out -----------------------------------------------------------------------
def peer_side(args):
    import peers
    reply, sys.stdout = os.fdopen(os.dup(1), "w"), sys.stderr
    peer = peers.Peer(args.side, args.device, args.threads)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            ms, outputs = peer.run(request["kernel"], load_tensors(request["inputs"]), request["options"], request["repeats"])
            save_tensors(request["outputs"], outputs)
            answer = {"ms": ms}
        except Exception as e:                                     # a peer that cannot do a case is a row that says so
            answer = {"error": f"{type(e).__name__}: {e}".splitlines()[0][:120]}
        print(json.dumps(answer), file=reply, flush=True)


class PeerProcess:
    def __init__(self, args, name, env):
        command = [sys.executable, __file__, "--side", name, "--threads", args.threads, "--device", args.device]
        self.process = subprocess.Popen(list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env,
                                        preexec_fn=free_to_run)

    def run(self, request):
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:                                    # it ended in a case before: out of memory, say
            line = ""
        return json.loads(line) if line else {"error": f"ended with exit status {self.process.wait()}"}

    def close(self):
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        self.process.wait()


def ours(args, request, env):
    command = [args.bench_kernels, request["kernel"], request["inputs"], request["outputs"], "--options", json.dumps(request["options"]),
               "--repeats", request["repeats"], "--threads", args.threads, "--device", args.device]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=env, preexec_fn=free_to_run)
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1][:120]}
    return json.loads(done.stdout.strip().splitlines()[-1])


# ---- both ------------------------------------------------------------------------------------------------------------------
def installed(device):
    """Peers that can be imported, their versions, and those that cannot."""
    found, versions, missing = [], [], []
    for name, module in MODULES.items():
        if name == "keops" and device != "cuda":
            continue
        try:
            present = importlib.util.find_spec(module) is not None
        except (ImportError, ValueError):
            present = False
        if present:
            found.append(name)
            versions.append(f"{PACKAGES[name]} {importlib.metadata.version(PACKAGES[name])}")
            if name == "ott":
                versions.append(f"jax {importlib.metadata.version('jax')}")
        else:
            missing.append(PACKAGES[name])
    return found, versions, missing


def off(outputs, reference, scales):
    """The largest difference of any output, over the largest entry of its reference."""
    worst = 0.0
    for name, want in reference.items():
        if name in outputs:
            scale = scales.get(name) or np.abs(want).max() or 1.0
            difference = np.abs(outputs[name].reshape(want.shape).astype(np.float64) - want).max()
            worst = max(worst, float(difference / scale) if np.isfinite(difference) else float("inf"))
    return worst


def measure(args, name, processes, envs, scratch):
    import peers
    case, start, before = CASES[name], time.monotonic(), busy_seconds()
    make, *sizes = case["inputs"]
    inputs = {k: v.astype(np.float32) for k, v in make(np.random.default_rng(1), *sizes).items()}
    files = {side: str(scratch / f"{side}.safetensors") for side in ["inputs", "decalign", *processes]}
    save_tensors(files["inputs"], inputs)
    options, labels = case.get("options", {}), peers.LABELS[case["kernel"]]
    sides = ["decalign"] + [p for p in processes if p in labels]
    times, errors = {s: [] for s in sides}, {}
    for turn in range(args.repeats):
        for side in sides:
            if side in errors:
                continue
            request = {"kernel": case["kernel"], "inputs": files["inputs"], "outputs": files[side], "options": options,
                       "repeats": 1 if case.get("slow") and side != "decalign" else 5}
            said = ours(args, request, envs["decalign"]) if side == "decalign" else processes[side].run(request)
            if "error" in said:
                errors[side] = said["error"]
            else:
                times[side].append(statistics.median(said["ms"]))
    reference = peers.reference(case["kernel"], inputs, options)
    work, own = (b - a for a, b in zip(before, busy_seconds()))
    rows = []
    for side in sides:
        label = "decalign" if side == "decalign" else labels[side]
        if side in errors:
            rows.append((name, label, None, None, None, errors[side]))
            continue
        outputs = load_tensors(files[side])
        error = off(outputs, reference, case.get("scale", {}))
        note = "" if error <= case["tolerance"] else f"WRONG beyond {case['tolerance']:g}"
        ratio = [t / o for t, o in zip(times[side], times["decalign"])] if times["decalign"] else []
        rows.append((name, label, times[side], ratio, error, note))
    return rows, max(0.0, 100 * (work - own) / (time.monotonic() - start) / len(PROCESSORS))


def spread(values, digits):
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} - {max(values):.{digits}f})" if values else "-"


def table(rows):
    lines = ["| case | library | ms: median (min - max) | times decalign's | off | |", "|---|---|---|---|---|---|"]
    for name, label, ms, ratio, error, note in rows:
        lines.append(f"| {name} | {label} | {spread(ms, 2) if ms else '-'} | {spread(ratio, 2) if ratio and label != 'decalign' else '-'} | "
                     f"{'-' if error is None else format(error, '.1e')} | {note} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench-kernels", type=Path, help="the bench_kernels executable")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of all sides; cuda adds KeOps")
    parser.add_argument("--repeats", type=int, default=5, help="how often the sides take turns")
    parser.add_argument("--case", nargs="*", metavar="WORD", default=[""], help="cases whose name contains one of these")
    parser.add_argument("--peer", nargs="*", choices=MODULES, default=list(MODULES))
    parser.add_argument("--side", choices=MODULES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        return peer_side(args)
    if not args.bench_kernels:
        parser.error("--bench-kernels is needed")
    found, versions, missing = installed(args.device)
    env = environment({"OMP_NUM_THREADS": str(args.threads)})
    env["XLA_FLAGS"] = f"--xla_cpu_multi_thread_eigen=true intra_op_parallelism_threads={args.threads}"
    envs = {"decalign": environment({"OMP_NUM_THREADS": str(args.threads), "GOMP_SPINCOUNT": "20000"})}
    processes = {name: PeerProcess(args, name, env) for name in found if name in args.peer}
    rows, others = [], []
    with tempfile.TemporaryDirectory() as scratch:
        for name in CASES:
            if any(word in name for word in args.case):
                more, busy = measure(args, name, processes, envs, Path(scratch))
                rows += more
                others.append(busy)
                print(table(more), file=sys.stderr, flush=True)
    for process in processes.values():
        process.close()
    print(table(rows))
    print(f"\n{processor()}, {len(PROCESSORS)} processors, {args.threads} threads, {args.device}; medians of {args.repeats} turns, float32."
          f"\n{', '.join(versions)}{'; not installed: ' + ', '.join(missing) if missing else ''}; Python {sys.version.split()[0]}."
          f"\noff: largest difference from a reference in double, over its largest entry."
          f"\nOther programs kept the processors busy for up to {max(others, default=0):.0f} % of the time"
          f"{': too much, times and ratios mean little' if max(others, default=0) > 5 else ''}.")


if __name__ == "__main__":
    main()
