"""Runs `decalign replay` on case folders and compares every tensor with the expected one."""
import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file

import make

EXACT, CURVE = 1e-9, 1e-8


def tensor_class(name):
    """Gradients are grouped by the part of the network they belong to."""
    if not name.startswith("grad."):
        return name
    part = name.removeprefix("grad.").split(".")[0]
    for prefix in ("proj", "encoder", "trans", "pde", "out_layer", "text_model"):
        if part.startswith(prefix):
            return f"grad {prefix}"
    return "grad others"


def run_replay(binary, folder, out, f64):
    command = [str(binary), "replay", "--config", folder / "config.json", "--weights", folder / "weights.safetensors",
               "--batch", folder / "batch.safetensors", "--out", out]
    if (folder / "steps.json").exists():
        steps = json.loads((folder / "steps.json").read_text())
        command += ["--steps", str(steps["steps"]), "--learning-rate", repr(steps["learning_rate"])]
    done = subprocess.run([*map(str, command), *(["--f64"] if f64 else [])], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"exit status {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
    return load_file(out)


def limit(name, f64, f32_error):
    if f64:
        return CURVE if name.startswith("curve.") else EXACT
    return 2 * f32_error[name] + 1e-6


def check(binary, folder, f64, verbose):
    """Returns the lines to print and whether the case passed."""
    expected = load_file(folder / "expected.safetensors")
    f32_error = json.loads((folder / "f32_error.json").read_text())
    with tempfile.TemporaryDirectory() as scratch:
        try:
            got = run_replay(binary, folder, Path(scratch) / "out.safetensors", f64)
        except (RuntimeError, OSError) as error:
            return [f"  {error}"], False
    lines, passed, worst = [], True, {}
    for name, want in expected.items():
        if name not in got or got[name].numel() != want.numel():
            lines.append(f"  {name}: {'missing' if name not in got else f'shape {list(got[name].shape)}'}, expected {list(want.shape)}")
            passed = False
            continue
        value = got[name].reshape(want.shape)
        error, bound = make.relative_error(value, want), limit(name, f64, f32_error)
        fine = error <= bound                                     # false for NaN
        passed &= fine
        ratio = error / bound if error == error else float("inf")
        group = tensor_class(name)
        if group not in worst or ratio > worst[group][0]:
            worst[group] = ratio, error, bound, name
        if not fine or verbose:
            lines.append(f"  {name}: error {error:.1e}, limit {bound:.1e}{'' if fine else '  FAILS'}")
    summary = ", ".join(f"{group} {error:.1e}" for group, (_, error, _, _) in worst.items())
    extra = sorted(set(got) - set(expected))
    if extra:
        lines.append(f"  also written: {', '.join(extra[:5])}{' ...' if len(extra) > 5 else ''}")
    top = max((r for r, *_ in worst.values()), default=float("inf"))
    return [f"  max error: {summary}", f"  closest to its limit: {top:.2f} of it", *lines], passed


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", type=Path, required=True, help="the decalign executable")
    parser.add_argument("--f64", action="store_true", help=f"double: {EXACT} per tensor, {CURVE} for curves; without: PyTorch's float32 error, doubled")
    parser.add_argument("--verbose", action="store_true", help="every tensor")
    parser.add_argument("folder", type=Path, help="a folder of case folders")
    parser.add_argument("case", nargs="*", help="names of cases; without any: all")
    args = parser.parse_args()
    torch.set_num_threads(1)
    folders = sorted(p.parent for p in args.folder.glob("*/config.json"))
    folders = [f for f in folders if not args.case or f.name in args.case]
    if not folders:
        sys.exit(f"{args.folder}: no case folder with a config.json")
    failed = []
    for folder in folders:
        lines, passed = check(args.binary.resolve(), folder, args.f64, args.verbose)
        print(f"{folder.name}: {'pass' if passed else 'FAIL'}", *lines, sep="\n", flush=True)
        if not passed:
            failed.append(folder.name)
    print(f"{len(folders) - len(failed)} of {len(folders)} cases pass" + (f"; failed: {', '.join(failed)}" if failed else ""))
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
