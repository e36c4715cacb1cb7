"""Runs the signature kernels and their peers on the same inputs in one run, checks that the answers agree, prints one table.

Each library has a process of its own; they take turns with bench_kernels. Peers that are not installed are named and left out.
The last columns are the largest differences of values and of gradients from references in double, over the reference's largest
entry; a row beyond the case's tolerance is marked WRONG.
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
def mmd_inputs(rng, n, d, shift=0.1, bandwidths=1, offset=0.0, equal=False):
    widest = 2.0 * d * 2 ** (bandwidths // 2)
    x, y = rng.standard_normal((n, d)) + offset, rng.standard_normal((n, d)) + shift + offset
    return {"x": x, "y": x if equal else y,
            "bandwidths": np.array([widest / 2 ** l for l in range(bandwidths)]), "weights": np.full(bandwidths, 1 / bandwidths)}


def moments_inputs(rng, n, d, offset=0.0):
    return {"x": rng.standard_normal((n, d)) ** 2 + offset}


def mot_inputs(rng, k, d=4):
    """Points, and their squared distances as costs: OTT-JAX takes points."""
    points = 0.5 * rng.standard_normal((3, k, d)).astype(np.float32)
    cost = np.stack([((points[i][:, None] - points[j][None]) ** 2).sum(-1) for i, j in ((0, 1), (0, 2), (1, 2))])
    marginals = rng.random((3, k)) + 0.5
    return {"points": points, "cost": cost, "marginals": marginals / marginals.sum(1, keepdims=True)}


def covariances(rng, shape, d, condition):
    """Random rotations of a log-uniform spectrum, rounded so that they stay symmetric."""
    q, _ = np.linalg.qr(rng.standard_normal((*shape, d, d)))
    s = ((q * condition ** -rng.random((*shape, 1, d))) @ q.swapaxes(-1, -2)).astype(np.float32)
    return np.tril(s) + np.tril(s, -1).swapaxes(-1, -2)


def bures_inputs(rng, pairs, d, condition=1e2, apart=None):
    """Pairs that have nothing in common, or whose second is the first plus `apart` times another."""
    s = covariances(rng, (2, pairs), d, condition)
    if apart is not None:
        s[1] = s[0] + np.float32(apart) * covariances(rng, (pairs,), d, 10)
    return {"covariances": s}


def sqrtm_inputs(rng, count, d, condition=1e2):
    g = rng.standard_normal((count, d, d))
    return {"a": covariances(rng, (count,), d, condition), "droot": g + g.swapaxes(-1, -2)}


def gmm_inputs(rng, n, d, k, apart=2.0):
    centres = apart * rng.standard_normal((k, d))
    x = centres[rng.integers(0, k, n)] + rng.standard_normal((n, d))
    first = np.array([round_half_even(i * (n - 1) / (k - 1)) for i in range(k)])
    x[first] = centres + 0.5 * rng.standard_normal((k, d))          # the release's start takes these rows
    return {"x": x}


def round_half_even(v):
    return int(np.rint(v))


# name: kernel, inputs, options of bench_kernels, tolerance over the largest entry (or over `scale`). A bar's case comes first, then
# those that are there for their errors.
CASES = {
    "mmd 4096 x 64": dict(kernel="mmd", inputs=(mmd_inputs, 4096, 64), tolerance=1e-3, options={"products": True}),
    "mmd 4096 x 64, 5 bandwidths": dict(kernel="mmd", inputs=(mmd_inputs, 4096, 64, 0.1, 5), tolerance=1e-3, options={"products": True}),
    "mmd 16384 x 64": dict(kernel="mmd", inputs=(mmd_inputs, 16384, 64), tolerance=1e-3, options={"products": True}, slow=True),
    "mmd 1024 x 64, 1e3 from the origin": dict(kernel="mmd", inputs=(mmd_inputs, 1024, 64, 0.1, 1, 1e3), tolerance=1e-3),
    "mmd 1024 x 64, equal samples": dict(kernel="mmd", inputs=(mmd_inputs, 1024, 64, 0.1, 1, 0, True), tolerance=1e-3,
                                         scale={"value": 1.0, "dx": 1 / 1024, "dy": 1 / 1024}),
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
CASES["transport K = 64, epsilon .01, envelope"] = dict(kernel="mot", inputs=(mot_inputs, 64), tolerance=1e-3,
                                                        options={"epsilon": 0.01, "sweeps": 50})
for d in (16, 64):
    CASES[f"bures 1000 x {d}"] = dict(kernel="bures", inputs=(bures_inputs, 1000, d), tolerance=1e-2)
for condition in (1e2, 1e4, 1e6):
    for kind, apart in (("independent", None), ("near", 1e-4), ("equal", 0.0)):
        scale = {"cost": 1.0, "dcovariances": 1.0} if kind == "equal" else {}
        CASES[f"bures 16 x 40, condition {condition:.0e}, {kind}"] = dict(
            kernel="bures", inputs=(bures_inputs, 16, 40, condition, apart), tolerance=1e-3, scale=scale)
for d in (16, 64):
    CASES[f"sqrtm 1000 x {d}"] = dict(kernel="sqrtm", inputs=(sqrtm_inputs, 1000, d), tolerance=1e-2)
for condition in (1e2, 1e4, 1e6):
    CASES[f"sqrtm 16 x 40, condition {condition:.0e}, and inverse"] = dict(
        kernel="sqrtm", inputs=(sqrtm_inputs, 16, 40, condition), options={"inverse": True}, tolerance=1e-3)
for n, k, d, full in ((10 ** 5, 64, 64, False), (20000, 64, 16, True), (20000, 16, 64, True)):
    CASES[f"gmm {'full' if full else 'diagonal'} {n:g} x {d}, K = {k}"] = dict(
        kernel="gmm", inputs=(gmm_inputs, n, d, k), tolerance=1e-3, options={"components": k, "iterations": 1, "full": full})
CASES["gmm diagonal 20000 x 16, K = 16, 1000 apart"] = dict(kernel="gmm", inputs=(gmm_inputs, 20000, 16, 16, 1e3), tolerance=1e-3,
                                                            options={"components": 16, "iterations": 2, "direct": True})


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
    """The largest difference of any value, and of any gradient, over the largest entry of its reference; None without one."""
    worst = [None, None]
    for name, want in reference.items():
        if name in outputs:
            gradient = name.startswith("d")
            scale = scales.get(name) or np.abs(want).max() or 1.0
            difference = np.abs(outputs[name].reshape(want.shape).astype(np.float64) - want).max()
            worst[gradient] = max(worst[gradient] or 0.0, float(difference / scale) if np.isfinite(difference) else float("inf"))
    return worst


def measure(args, name, found, envs, scratch):
    import peers
    case, start, before = CASES[name], time.monotonic(), busy_seconds()
    labels = peers.LABELS[case["kernel"]]
    processes = {p: PeerProcess(args, p, envs["peers"]) for p in found if p in labels}
    make, *sizes = case["inputs"]
    inputs = {k: v.astype(np.float32) for k, v in make(np.random.default_rng(1), *sizes).items()}
    files = {side: str(scratch / f"{side}.safetensors") for side in ["inputs", "decalign", *processes]}
    save_tensors(files["inputs"], inputs)
    options, sides = case.get("options", {}), ["decalign", *processes]
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
    for process in processes.values():
        process.close()
    reference = peers.reference(case["kernel"], inputs, options)
    work, own = (b - a for a, b in zip(before, busy_seconds()))
    rows = []
    for side in sides:
        label = "decalign" if side == "decalign" else labels[side]
        if side in errors:
            rows.append((name, label, None, None, (None, None), errors[side]))
            continue
        outputs = load_tensors(files[side])
        error = off(outputs, reference, case.get("scale", {}))
        note = f"WRONG beyond {case['tolerance']:g}" if max(e or 0.0 for e in error) > case["tolerance"] else ""
        ratio = [t / o for t, o in zip(times[side], times["decalign"])] if times["decalign"] else []
        rows.append((name, label, times[side], ratio, error, note))
    return rows, max(0.0, 100 * (work - own) / (time.monotonic() - start) / len(PROCESSORS))


def spread(values, digits):
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} - {max(values):.{digits}f})" if values else "-"


def table(rows):
    lines = ["| case | library | ms: median (min - max) | times decalign's | values off | gradients off | |", "|---|---|---|---|---|---|---|"]
    for name, label, ms, ratio, error, note in rows:
        times = f"{spread(ms, 2) if ms else '-'} | {spread(ratio, 2) if ratio and label != 'decalign' else '-'}"
        lines.append(f"| {name} | {label} | {times} | {' | '.join('-' if e is None else format(e, '.1e') for e in error)} | {note} |")
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
    envs = {"peers": env, "decalign": environment({"OMP_NUM_THREADS": str(args.threads), "GOMP_SPINCOUNT": "20000"})}
    rows, others = [], []
    with tempfile.TemporaryDirectory() as scratch:
        for name in CASES:
            if any(word in name for word in args.case):
                more, busy = measure(args, name, [p for p in found if p in args.peer], envs, Path(scratch))
                rows += more
                others.append(busy)
                print(table(more), file=sys.stderr, flush=True)
    print(table(rows))
    print(f"\n{processor()}, {len(PROCESSORS)} processors, {args.threads} threads, {args.device}; medians of {args.repeats} turns, float32."
          f"\n{', '.join(versions)}{'; not installed: ' + ', '.join(missing) if missing else ''}; Python {sys.version.split()[0]}."
          f"\nOff: largest difference from a reference in double, over its largest entry; of equal pairs and samples, the difference itself."
          f"\nOther programs kept the processors busy for up to {max(others, default=0):.0f} % of the time"
          f"{': too much, times and ratios mean little' if max(others, default=0) > 5 else ''}.")


if __name__ == "__main__":
    main()
