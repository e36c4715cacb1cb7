#!/usr/bin/env python3
"""EM steps of large Gaussian mixtures beside PyTorch and scikit-learn: gmm.py BENCH_GMM [--threads N] [--repeats N].

The same rows (the generator of bench/support.h), the same start, float32, the three sides taking turns. Every side's
log-likelihood after one step is compared before anything is timed; times are the median of the repeats. On a machine
that others use, --processor compares processor time instead of the clock's; it is meant for --threads 1.
"""
import argparse
import json
import os
import statistics
import subprocess
import time
import warnings

import numpy as np
import sklearn
import threadpoolctl
import torch
from sklearn.mixture import GaussianMixture

CASES = [("diagonal", 100000, 64, 64), ("full", 20000, 16, 64)]
FLOOR, RIDGE = 1e-4, 1e-3


def uniform(n, seed):
    raw = np.random.RandomState(seed)._bit_generator.random_raw(n)
    return (raw / 2147483648.0 - 1).astype(np.float32)


def rows(n, k, d):
    centres = uniform(k * d, 3).reshape(k, d)
    return uniform(n * d, 4).reshape(n, d) + np.float32(1.5) * centres[np.arange(n) % k]


def start(x, k, full):
    choice = np.rint(np.linspace(0, len(x) - 1, k)).astype(int)
    s = np.cov(x.T.astype(np.float64), bias=True)
    if full:
        s = s + (RIDGE * np.trace(s) / len(s) + FLOOR) * np.eye(len(s))
    else:
        s = np.maximum(np.diag(s), FLOOR)
    return x[choice].astype(np.float64), np.repeat(s[None], k, 0)


class Torch:
    """Diagonal: the GEMM form. Full: triangular solves in one batch, weighted products."""

    def __init__(self, x, k, full):
        self.x, self.k, self.full = torch.tensor(x), k, full
        mu, s = start(x, k, full)
        self.mu, self.s = torch.tensor(mu, dtype=torch.float32), torch.tensor(s, dtype=torch.float32)
        self.pi = torch.full((k,), 1 / k)
        self.x2 = torch.cat([self.x**2, self.x], 1)
        self.rho = RIDGE * float(self.x.var(0, unbiased=False).mean()) + FLOOR

    def logits(self):
        if not self.full:
            w = torch.cat([-0.5 / self.s, self.mu / self.s], 1)
            b = self.pi.log() - 0.5 * (self.s.log().sum(1) + (self.mu**2 / self.s).sum(1))
            return torch.addmm(b, self.x2, w.T)
        factor = torch.linalg.cholesky(self.s)
        inverse = torch.linalg.solve_triangular(factor, torch.eye(self.x.shape[1]), upper=False)
        out = torch.empty(len(self.x), self.k)
        for k in range(self.k):
            y = self.x @ inverse[k].T - self.mu[k] @ inverse[k].T
            out[:, k] = self.pi[k].log() - 0.5 * (y**2).sum(1) - factor[k].diagonal().log().sum()
        return out

    def step(self):
        r = torch.softmax(self.logits(), 1)
        count = r.sum(0)
        d = self.x.shape[1]
        self.pi = count / len(self.x)
        if not self.full:
            moments = (r.T @ self.x2) / count[:, None]
            self.mu = moments[:, d:]
            self.s = (moments[:, :d] - self.mu**2).clamp_min(FLOOR)
            return
        self.mu = (r.T @ self.x) / count[:, None]
        for k in range(self.k):
            e = self.x - self.mu[k]
            self.s[k] = (r[:, k, None] * e).T @ e / count[k] + self.rho * torch.eye(d)

    def likelihood(self):
        return float(torch.logsumexp(self.logits().double(), 1).mean()) - 0.5 * self.x.shape[1] * np.log(2 * np.pi)


class Sklearn:
    def __init__(self, x, k, full):
        self.x = x
        mu, s = start(x, k, full)
        reg = RIDGE * float(x.var(0).mean()) + FLOOR if full else 0
        kind = "full" if full else "diag"
        precision = np.linalg.inv(s) if full else 1 / s
        self.m = GaussianMixture(k, covariance_type=kind, reg_covar=reg, max_iter=1, tol=0, means_init=mu,
                                 weights_init=np.full(k, 1 / k), precisions_init=precision)
        # Runs a step from the start; what is timed then are further steps.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.m.fit(x)

    def step(self):
        _, r = self.m._e_step(self.x)
        self.m._m_step(self.x, r)

    def likelihood(self):
        return float(self.m.score(self.x))


def ours(binary, name, args):
    out = subprocess.run([binary, "--benchmark_format=json", "--benchmark_min_time=0.05",
                          f"--benchmark_filter=forward {name}, . steps?/{args.threads}"],
                         capture_output=True, text=True, check=True)
    runs = {}
    for b in json.loads(out.stdout)["benchmarks"]:
        if b.get("error_occurred"):
            raise SystemExit(f"{b['name']}: {b['error_message']}")
        runs["1 step" in b["name"]] = b
    column = "busy_us" if args.processor else "best_us"
    per_step = (runs[False][column] - runs[True][column]) / 5e3
    return per_step, runs[True][column] / 1e3, runs[True]["log_likelihood"]


def timed(f, clock):
    begin = clock()
    f()
    return 1e3 * (clock() - begin)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bench")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2, choices=[1, 2])
    parser.add_argument("--processor", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    threadpoolctl.threadpool_limits(args.threads)
    clock = time.process_time if args.processor else time.perf_counter
    print(f"PyTorch {torch.__version__}, scikit-learn {sklearn.__version__}, numpy {np.__version__}, "
          f"{args.threads} thread(s), {'processor' if args.processor else 'wall'} time, load {os.getloadavg()[0]:.1f}")
    print("| EM step | decalign, ms (a step of six; one with its start) | PyTorch, ms | scikit-learn, ms | ratios |")
    print("|---|---|---|---|---|")
    for kind, n, k, d in CASES:
        x = rows(n, k, d)
        name = f"{kind} {'1e5' if n == 100000 else n} x {k} x {d}"
        peers = [Torch(x, k, kind == "full"), Sklearn(x, k, kind == "full")]
        peers[0].step()
        _, _, want = ours(args.bench, name, args)
        for peer in peers:
            if not abs(peer.likelihood() - want) < 1e-3 * max(1, abs(want)):
                raise SystemExit(f"{name}: log-likelihoods {want}, {peer.likelihood()} of {type(peer).__name__}")
        mine, first, theirs = [], [], [[], []]
        for _ in range(args.repeats):
            step, one, _ = ours(args.bench, name, args)
            mine.append(step)
            first.append(one)
            for times, peer in zip(theirs, peers):
                times.append(timed(peer.step, clock))
        own, t, s = statistics.median(mine), *(statistics.median(v) for v in theirs)
        one = statistics.median(first)
        print(f"| {name} | {own:.1f}; {one:.1f} | {t:.1f} | {s:.1f} | {t / own:.1f}, {s / own:.1f} |", flush=True)


if __name__ == "__main__":
    main()
