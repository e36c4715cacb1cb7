"""Bures-Wasserstein costs and matrix square roots beside PyTorch's eigh, POT and OTT-JAX: errors on the same inputs and times of
1000 pairs, forward and backward, in one run: processor time of one thread, so that a machine that is shared does not tell.

    bench/peers/bures.py BUILD    # a build with DECALIGN_BENCH=ON; peers that are not installed are left out
"""
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

D = 40
BUILD = Path(sys.argv[1])
torch.set_num_threads(1)


def root(a):
    values, vectors = torch.linalg.eigh(a)
    return vectors @ torch.diag_embed(values.clamp(min=0).sqrt()) @ vectors.mT


def by_eigh(a, b):
    s = root(a)
    middle = torch.linalg.eigvalsh(s @ b @ s).clamp(min=0).sqrt()
    return a.diagonal(dim1=-2, dim2=-1).sum(-1) + b.diagonal(dim1=-2, dim2=-1).sum(-1) - 2 * middle.sum(-1)


def torch_peer(f, dtype):
    def run(a, b):
        a = torch.tensor(a, dtype=dtype, requires_grad=True)
        cost = f(a, torch.tensor(b, dtype=dtype))
        cost.backward()
        return float(cost.detach()), a.grad.double().numpy()
    return run


peers = {"PyTorch eigh, float": torch_peer(by_eigh, torch.float32), "PyTorch eigh, double": torch_peer(by_eigh, torch.float64)}
versions = [f"PyTorch {torch.__version__}"]
try:
    import ot

    for name, dtype in (("float", torch.float32), ("double", torch.float64)):
        peers[f"POT, {name}"] = torch_peer(lambda a, b: ot.gaussian.bures_distance(a, b) ** 2, dtype)
    versions.append(f"POT {ot.__version__}")
except ImportError:
    pass
try:
    import jax
    import ott
    from ott.geometry import costs

    def ott_peer(dtype):
        cost = costs.Bures(D)

        def value(a, b):
            zero = jax.numpy.zeros(D, dtype)
            return cost(jax.numpy.concatenate([zero, a.ravel()]), jax.numpy.concatenate([zero, b.ravel()]))

        def run(a, b):
            with jax.enable_x64(dtype == jax.numpy.float64):
                v, g = jax.value_and_grad(value)(jax.numpy.asarray(a, dtype), jax.numpy.asarray(b, dtype))
                g = np.asarray(g).astype(np.float64)
                return float(v), (g + g.T) / 2
        return run

    peers["OTT Bures, float"] = ott_peer(jax.numpy.float32)
    peers["OTT Bures, double"] = ott_peer(jax.numpy.float64)
    versions.append(f"OTT {ott.__version__}, JAX {jax.__version__}")
except ImportError:
    pass


def errors():
    with tempfile.NamedTemporaryFile() as file:
        print(subprocess.run([BUILD / "bench_bures", "--accuracy", file.name], check=True, text=True, capture_output=True).stdout)
        data = np.fromfile(file.name).reshape(-1, 3 * D * D + 1)
    cases = [f"{condition:.0e} {kind}" for condition in (1e2, 1e4, 1e6) for kind in ("independent", "near", "equal")]
    print(f"{'cost error / gradient error':28}" + "".join(f"{name:>26}" for name in peers))
    for case, row in zip(cases, data):
        a, b, want, slope = row[:D * D].reshape(D, D), row[D * D:2 * D * D].reshape(D, D), row[2 * D * D], row[2 * D * D + 1:]
        cells = []
        for run in peers.values():
            cost, gradient = run(a, b)
            off = np.linalg.norm(gradient.ravel() - slope)
            cells.append(f"{abs(cost - want) / (want or 1):.1e} / {off / (np.linalg.norm(slope) or 1):.1e}")
        print(f"condition {case:18}" + "".join(f"{cell:>26}" for cell in cells))


def root_errors():
    with tempfile.NamedTemporaryFile() as file:
        print(subprocess.run([BUILD / "bench_sqrtm", "--accuracy", file.name], check=True, text=True, capture_output=True).stdout)
        data = np.fromfile(file.name).reshape(-1, 5, D, D)
    for condition, (a, g, want, want_inverse, slope) in zip((1e2, 1e4, 1e6), data):
        for dtype in (torch.float32, torch.float64):
            x = torch.tensor(a, dtype=dtype, requires_grad=True)
            y = root(x)
            y.backward(torch.tensor(g, dtype=dtype))
            inverse = torch.linalg.inv(y.detach()).double().numpy()
            cells = [np.linalg.norm(got - w) / np.linalg.norm(w) for got, w in
                     ((y.detach().double().numpy(), want), (inverse, want_inverse), (x.grad.double().numpy(), slope))]
            print(f"PyTorch eigh, {str(dtype)[6:]}, condition {condition:.0e}: root, inverse, gradient " + " ".join(f"{c:.1e}" for c in cells))


def best(f, repeats=5):
    times = []
    for _ in range(repeats):
        start = time.process_time()
        f()
        times.append(time.process_time() - start)
    return min(times)


def ours(program, name):
    """Forward and backward, the iteration of a run that took least, in seconds."""
    out = subprocess.run([BUILD / program, f"--benchmark_filter=(forward|backward) {name}/1/", "--benchmark_format=csv"], check=True, text=True,
                         capture_output=True, env={**os.environ, "OMP_WAIT_POLICY": "passive"}).stdout
    lines = out.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("name,"))
    column = [h.strip('"') for h in lines[at].split(",")].index("busy_us")
    # Names hold commas: counted from the end.
    offset = column - len(lines[at].split(","))
    return sum(float(line.split(",")[offset]) for line in lines[at + 1:]) * 1e-6


def times():
    for d in (16, 64):
        x = torch.randn(2, 1000, d, d)
        s = x @ x.mT / d + 0.01 * torch.eye(d)
        s.requires_grad_(True)
        g = torch.randn(1000, d, d)

        def run_bures():
            by_eigh(s[0], s[1]).sum().backward()

        def run_root():
            a = s[0].detach().requires_grad_(True)
            (root(a) * g).sum().backward()

        for name, peer, program, case in (("bures", run_bures, "bench_bures", f"1000 pairs, d {d}"), ("sqrtm", run_root, "bench_sqrtm", f"1000 x {d}")):
            # In turns: the machine may be shared.
            theirs = mine = 1e9
            for _ in range(3):
                theirs, mine = min(theirs, best(peer, 2)), min(mine, ours(program, case))
            print(f"{name}, 1000 of d = {d}, forward + backward: PyTorch eigh {1e3 * theirs:.1f} ms, decalign {1e3 * mine:.2f} ms, {theirs / mine:.1f} x")


print(", ".join(versions))
errors()
root_errors()
times()
