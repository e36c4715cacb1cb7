"""Times a whole training step of the authors' PyTorch code and of decalign, side by side in one run, and prints one table.

Each side runs in processes of its own with an environment of its own, and they take turns. Peak memory is measured with it.
"""
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

# Nothing here may load PyTorch but the authors' side: its threads, their binding and its memory would be inherited.
GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden"
MINILM = dict(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
MODALITIES = ("text", "audio", "vision")
CASES = {
    "mosi": dict(batch=32, seq=(50, 50, 50), dims=(768, 5, 20)),
    "mosei": dict(batch=128, seq=(50, 50, 50), dims=(768, 74, 35)),
    "iemocap": dict(batch=32, seq=(1, 1, 1), dims=(1024, 512, 1024)),
    # Fine-tuned encoders with random weights; clips of 8 to 24 tokens out of 50, as CMU-MOSI's transcripts have about 16.
    "mosi_bert_minilm": dict(batch=32, seq=(50, 50, 50), dims=(384, 5, 20), tokens=(8, 24), bert=MINILM),
    "mosi_bert_base": dict(batch=32, seq=(50, 50, 50), dims=(768, 5, 20), tokens=(8, 24), bert={}),
}


# ---- the authors' side, a process that answers one line of JSON to each line it reads ----------------------------------
def own_memory_kb(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith(field + ":")), 0)


def forget_peak():
    """Lets VmHWM start again from what is resident now; false where the system does not allow it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return True
    except OSError:
        return False


class AuthorsStep:
    """Forward, losses, backward, clipping and Adam as the authors' trainer does them."""

    def __init__(self, authors, config, case, device):
        import compare_authors
        import make
        import numpy as np
        torch = compare_authors.torch
        torch.manual_seed(1111)
        rng = np.random.Generator(np.random.PCG64(1))
        self.config, self.authors, self.clip = config, authors, torch.nn.utils.clip_grad_norm_
        self.batch = make.make_batch(config, dict(zip(MODALITIES, case["dims"])), dict(zip(MODALITIES, case["seq"])), case["batch"], rng)
        if "tokens" in case:
            low, high = case["tokens"]
            vocabulary = json.loads((Path(config["pretrained"]) / "config.json").read_text())["vocab_size"]
            self.batch["text"] = make.make_tokens(vocabulary, rng.integers(low, high + 1, case["batch"]), case["seq"][0], rng)
        self.batch = {name: tensor.to(device) for name, tensor in self.batch.items()}
        self.synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None
        self.model = authors.network(config, None, torch.float32).to(device)
        self.optimizer = authors.optimizer(self.model, {"weight_decay": 0.0} | config, config["learning_rate"])
        self.trainer = authors.trainer(types.SimpleNamespace(**config))

    def __call__(self):
        start, b = time.perf_counter(), self.batch
        self.model.zero_grad()
        out = self.model(b["text"], b["audio"], b["vision"])
        loss = self.trainer._combined_loss(self.trainer._main_loss(out["output_logit"], b["labels"]), out)
        if self.config.get("ct_weight", 0.0) > 0:
            loss = loss + self.config["ct_weight"] * self.trainer._contrastive_loss(out["final_rep"], b["labels"])
        loss.backward()
        self.clip(self.model.parameters(), self.config["clip"])
        self.optimizer.step()
        loss.item()
        self.synchronize()
        return 1e3 * (time.perf_counter() - start)


def matmul_peak(torch, n=2048, repeats=8):
    """GFLOP/s of the best large float32 matrix product."""
    a, b = torch.randn(n, n), torch.randn(n, n)
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    return 2 * n ** 3 / min(times[1:]) / 1e9


def authors_side(args):
    reply, sys.stdout = os.fdopen(os.dup(1), "w"), sys.stderr       # what libraries print must not mix with the answers
    sys.path.insert(0, str(GOLDEN))
    import compare_authors
    torch = compare_authors.torch
    torch.set_num_threads(args.threads)
    case = CASES[args.side]
    authors = compare_authors.Authors(args.authors.resolve(), encoder="bert" in case)
    over = {"use_bert": True, "pretrained": str(args.pretrained)} if "bert" in case else {}
    config = authors.released_config(args.side.split("_")[0], **over)
    config["feature_dims"] = list(case["dims"])
    versions = f"PyTorch {torch.__version__}"
    if "bert" in case:
        import transformers
        versions += f", transformers {transformers.__version__}"
    memory = {"imports": own_memory_kb("VmRSS")}
    step = AuthorsStep(authors, config, case, args.device)
    memory |= {"built": own_memory_kb("VmRSS"), "restarted": forget_peak(), "peak": 0}
    def answer(request):
        if request in ("product", "memory"):
            memory["peak"] = max(memory["peak"], own_memory_kb("VmHWM"))
        if request == "about":
            return {"config": config, "versions": versions, "threads": torch.get_num_threads()}
        if request == "product":
            gflops = matmul_peak(torch)
            forget_peak()                                          # the product is no part of a step
            return gflops
        if request == "memory":
            return memory
        return [step() for _ in range(int(request))]
    for line in sys.stdin:
        print(json.dumps(answer(line.strip())), file=reply, flush=True)


class Authors:
    """The process of the authors' side."""

    def __init__(self, args, name, environment, pretrained):
        command = [sys.executable, __file__, "--authors", args.authors, "--threads", args.threads, "--device", args.device, "--side", name]
        command += ["--pretrained", pretrained] if pretrained else []
        self.process = subprocess.Popen(list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
                                        preexec_fn=free_to_run)

    def ask(self, request):
        try:
            self.process.stdin.write(f"{request}\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise SystemExit(f"the authors' side ended with exit status {self.process.wait()}")
        return json.loads(line)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def write_pretrained(folder, sizes, environment):
    """A random encoder as the library writes it; in a process of its own, that its memory does not count."""
    code = ("import sys, json, torch, transformers; torch.manual_seed(1); "
            "transformers.BertModel(transformers.BertConfig(**json.loads(sys.argv[2]))).save_pretrained(sys.argv[1])")
    done = subprocess.run([sys.executable, "-c", code, str(folder), json.dumps(sizes)], env=environment, stdout=subprocess.DEVNULL)
    if done.returncode:
        raise SystemExit(f"no pretrained folder could be written: exit status {done.returncode}")


# ---- our side ----------------------------------------------------------------------------------------------------------
def our_steps(args, config_file, case, steps, environment, pretrained):
    """What bench_step prints, {"ms": [...]} and perhaps its peak_kb from the built network on; and its process's peak.

    An encoder: --bert FOLDER, a pretrained folder, and --tokens LOW,HIGH, attended tokens by clip, uniform; the masks are the config's.
    """
    def comma(values):
        return ",".join(map(str, values))
    command = [args.bench_step, "--config", config_file, "--batch", case["batch"], "--seq", comma(case["seq"]),
               "--dims", comma(case["dims"]), "--threads", args.threads, "--steps", steps, "--device", args.device]
    if "bert" in case:
        command += ["--bert", pretrained, "--tokens", comma(case["tokens"])]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(list(map(str, command)), stdout=out, stderr=err, env=environment, preexec_fn=free_to_run)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0), err.seek(0)
        if process.returncode:
            raise SystemExit(f"{args.bench_step}: exit status {process.returncode}: {err.read().strip()}")
        return json.loads(out.read().strip().splitlines()[-1]) | {"process_kb": usage.ru_maxrss}


# ---- both --------------------------------------------------------------------------------------------------------------
PROCESSORS = os.sched_getaffinity(0)                                # before any library could bind this process


def free_to_run():
    os.sched_setaffinity(0, PROCESSORS)


def environment(settings):
    """This environment without anything that steers threads, and with these settings."""
    steering = ("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "GOTO_", "BLIS_", "VECLIB_")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(steering)}
    return kept | {"HF_HUB_OFFLINE": "1"} | settings


def settings_of(items):
    return dict(item.split("=", 1) for item in items)


def spread(values, digits=1):
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} - {max(values):.{digits}f})" if values else "-"


def megabytes(kilobytes):
    return f"{kilobytes / 1024:.0f}"


def processor():
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def busy_seconds():
    """What all processors have worked, and what this program's ended processes have."""
    ticks = list(map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]))
    own = os.times()
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK"), own.user + own.system + own.children_user + own.children_system


def measure(args, name, theirs_env, ours_env, scratch):
    """Both sides of one case in turns. Our columns: the release's masks and, with an encoder, packed by the lengths."""
    case, pretrained, start, before = CASES[name], scratch / f"{name}_pretrained", time.monotonic(), busy_seconds()
    if "bert" in case:
        write_pretrained(pretrained, case["bert"], theirs_env)
    else:
        pretrained = None
    authors = Authors(args, name, theirs_env, pretrained)
    about = authors.ask("about")
    columns = {"release": {}} | ({"packed": {"mask_source": "lengths"}} if "bert" in case else {})
    files = {}
    for column, over in columns.items():
        files[column] = scratch / f"{name}_{column}.json"
        files[column].write_text(json.dumps(about["config"] | over))
    # A turn of about a second or two steps each; the first steps of a turn warm it up and do not count.
    count = max(2, min(50, int(1000 / min(authors.ask(3)))))
    found = {"name": name, "about": about, "theirs": [], "products": [authors.ask("product")], "theirs_kb": None,
             "ours": {c: [] for c in columns}, "ratios": {c: [] for c in columns}, "ours_kb": {}}
    for _ in range(args.repeats):
        found["theirs"].append(statistics.median(authors.ask(count + 1)[1:]))
        for column in columns if args.bench_step else ():
            said = our_steps(args, files[column], case, 2 * count, ours_env, pretrained)
            found["ours"][column].append(statistics.median(said["ms"]))
            found["ratios"][column].append(found["theirs"][-1] / found["ours"][column][-1])
            found["ours_kb"][column] = max(said.get("peak_kb", said["process_kb"]), found["ours_kb"].get(column, 0))
    found["theirs_kb"] = authors.ask("memory")
    found["products"].append(authors.ask("product"))
    authors.close()
    work, own = (b - a for a, b in zip(before, busy_seconds()))
    found["others"] = 100 * (work - own) / (time.monotonic() - start) / len(PROCESSORS)
    return found


def tables(found):
    times = ["| step | authors, ms: median (min - max) | decalign, ms | ratio | packed tokens, ms | ratio |", "|---|---|---|---|---|---|"]
    memory = ["| peak memory, MB | authors: after import | built | peak of the steps | peak over import | decalign: peak | packed tokens: peak |",
              "|---|---|---|---|---|---|---|"]
    for f in found:
        case, kb = CASES[f["name"]], f["theirs_kb"]
        shape = f"{f['name']} (B {case['batch']}, T {case['seq'][0]}, widths {'/'.join(map(str, case['dims']))})"
        cells = [c for k in ("release", "packed") for c in (spread(f["ours"].get(k), 1), spread(f["ratios"].get(k), 2))]
        times.append(f"| {shape} | {spread(f['theirs'])} | {' | '.join(cells)} |")
        ours = [megabytes(f["ours_kb"][k]) if k in f["ours_kb"] else "-" for k in ("release", "packed")]
        peaks = [megabytes(kb[k]) for k in ("imports", "built", "peak")] + [megabytes(kb["peak"] - kb["imports"])]
        memory.append(f"| {f['name']} | {' | '.join(peaks + ours)} |")
    return "\n".join(times) + "\n\n" + "\n".join(memory)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--authors", type=Path, required=True, help="a checkout of github taco-group/DecAlign")
    parser.add_argument("--binary", type=Path, help="the decalign executable, for its version line")
    parser.add_argument("--bench-step", type=Path, help="the bench_step executable; without it only the authors' side is timed")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of both sides")
    parser.add_argument("--repeats", type=int, default=7, help="how often the two sides take turns")
    parser.add_argument("--case", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--authors-env", nargs="*", default=[], metavar="NAME=VALUE", help="more of the authors' side's environment")
    parser.add_argument("--our-env", nargs="*", default=["GOMP_SPINCOUNT=20000"], metavar="NAME=VALUE", help="more of ours; default: as tools/train")
    parser.add_argument("--scratch", type=Path, help="a folder for configs and random encoders; default: a temporary one")
    parser.add_argument("--side", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--pretrained", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        return authors_side(args)
    both = {"OMP_NUM_THREADS": str(args.threads)}
    theirs, ours = both | settings_of(args.authors_env), both | settings_of(args.our_env)
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        found = [measure(args, name, environment(theirs), environment(ours), Path(scratch)) for name in args.case]
    print(tables(found))
    revision = subprocess.run(["git", "-C", args.authors, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    version, products = "", [p for f in found for p in f["products"]]
    if args.binary:
        said = subprocess.run([args.binary, "--version"], capture_output=True, text=True).stdout.strip().splitlines()
        version = f"; {said[0]}" if said else ""
    def shown(settings):
        return " ".join(f"{k}={v}" for k, v in settings.items())
    restarted = all(f["theirs_kb"]["restarted"] for f in found)
    print(f"\n{processor()}, {len(PROCESSORS)} processors, {args.threads} threads, medians of {args.repeats} alternating turns; float32, dropout on."
          f"\nEach side in its own process: {shown(theirs)} (authors), {shown(ours)} (decalign); no other thread settings, no binding."
          f"\n{max((f['about']['versions'] for f in found), key=len)}, Python {platform.python_version()}, authors' code at "
          f"{revision or 'an unknown revision'}{version}."
          f"\nLargest float32 matrix product (2048^3, PyTorch): {min(products):.0f} - {max(products):.0f} GFLOP/s before and after the cases."
          f"\nOther programs kept the processors busy for {max(f['others'] for f in found):.0f} % of the time"
          f"{': too much, times and ratios mean little' if max(f['others'] for f in found) > 5 else ''}."
          f"\nAuthors' peak: VmHWM {'from the built network on' if restarted else 'of the whole process'}; decalign's: of the whole process, "
          f"or what bench_step says.")


if __name__ == "__main__":
    main()
