"""Writes hidden states and gradients of transformers.BertModel in double, and measures reference_bert.py against it.

Without --real: the committed cases, tiny random encoders. With it: a pretrained folder's hidden states of the first transcripts of a data
set, for a folder outside the repository.
"""
import argparse
import json
import pickle
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import save_file

import make
import reference_bert

CASES = {
    "plain": (dict(num_hidden_layers=2, hidden_size=8, intermediate_size=12), {}),
    "older": (dict(num_attention_heads=3, layer_norm_eps=1e-5, pad_token_id=3, type_vocab_size=3), {"older": True, "dtype": torch.bfloat16}),
}
CLIPS, STEPS = 5, 7


def model_of(folder, dtype, attention="sdpa"):
    """The library's model with this folder's weights; sdpa is its own choice."""
    model = transformers.BertModel.from_pretrained(folder, attn_implementation=attention, dtype=torch.float32)
    return model.to(dtype).train()


def tiny_inputs(bert, rng):
    """Clips of several lengths: one whole, one with holes, one without any attended token, and padding tokens that are attended."""
    ids = rng.integers(0, bert["vocab_size"], (CLIPS, STEPS))
    ends = rng.integers(2, STEPS, CLIPS)
    attended = np.arange(STEPS)[None] < ends[:, None]
    attended[0], attended[1], attended[2] = True, np.arange(STEPS) % 3 != 0, False
    ids[3, 1] = bert["pad_token_id"]
    ids[np.arange(STEPS)[None] >= np.where(attended.any(1), ends, STEPS)[:, None]] = bert["pad_token_id"]
    types = rng.integers(0, bert["type_vocab_size"], ids.shape)
    inputs = dict(input_ids=ids, attention_mask=attended, token_type_ids=types)
    return {n: torch.from_numpy(x.astype(np.int64)) for n, x in inputs.items()}


def results(model, inputs, cotangent):
    """hidden, and the gradient of sum(hidden * cotangent) by parameter: zeros for the pooler."""
    hidden = model(**inputs).last_hidden_state
    (hidden * cotangent).sum().backward()
    grads = {f"grad.{n}": torch.zeros_like(p) if p.grad is None else p.grad for n, p in model.named_parameters()}
    return {"hidden": hidden.detach()} | grads


def our_results(encoder, bert, inputs, cotangent):
    leaves = {n: w.double().requires_grad_() for n, w in encoder.items()}
    hidden = reference_bert.hidden_states(leaves, bert, inputs["input_ids"], inputs["attention_mask"], inputs["token_type_ids"])[-1]
    grads = torch.autograd.grad((hidden * cotangent).sum(), list(leaves.values()), allow_unused=True)
    grads = {f"grad.{n}": torch.zeros_like(w) if g is None else g for (n, w), g in zip(leaves.items(), grads)}
    return {"hidden": hidden.detach()} | grads


def worst(got, want):
    errors = {n: make.relative_error(got[n], x) for n, x in want.items() if n.startswith("grad.")}
    name = max(errors, key=errors.get)
    return f"{make.relative_error(got['hidden'], want['hidden']):.1e} | {errors[name]:.1e} {name}"


def write_tiny(out):
    print("| case | hidden states | gradients (worst tensor) |\n|---|---|---|")
    for name, (sizes, style) in CASES.items():
        bert, folder = reference_bert.CONFIG | sizes, out / name
        rng = np.random.Generator(np.random.PCG64(sum(map(ord, name))))
        encoder = make.make_encoder(bert, rng, style.get("dtype", torch.float32), sharp=3)
        make.write_pretrained(folder, bert, encoder, rng, **style)
        inputs = tiny_inputs(bert, rng)
        cotangent = torch.from_numpy(rng.standard_normal((CLIPS, STEPS, bert["hidden_size"])))
        theirs = make.exact_zeros(results(model_of(folder, torch.float64), inputs, cotangent))
        ours = make.exact_zeros(our_results(encoder, bert, inputs, cotangent))
        if set(ours) != set(theirs):
            raise SystemExit(f"{name}: tensors differ: {sorted(set(ours) ^ set(theirs))}")
        save_file(inputs | {"cotangent": cotangent}, folder / "inputs.safetensors")
        save_file(make.own_memory(theirs), folder / "expected.safetensors",
                  metadata={"versions": f"transformers {transformers.__version__}\n{make.versions()}"})
        print(f"| {name} | {worst(ours, theirs)} |")
        single = results(model_of(folder, torch.float32), inputs, cotangent.float())
        print(f"| {name}, the library in float32 | {worst(make.exact_zeros(single), theirs)} |")
        errors = {n: float(f"{make.relative_error(single[n], x):.3g}") for n, x in theirs.items()}
        (folder / "f32_error.json").write_text(json.dumps(errors, indent=0) + "\n")
        eager = results(model_of(folder, torch.float64, "eager"), inputs, cotangent)
        gap = (eager["hidden"] - theirs["hidden"]).abs().amax((1, 2)).tolist()
        print(f"| {name}, the library's eager attention, difference by clip | {' '.join(f'{g:.1e}' for g in gap)} | |")


def write_real(pretrained, data, out, clips=8, steps=50):
    """transcripts.txt, inputs.safetensors, expected.safetensors (hidden only) of the first test clips, and a link to the encoder."""
    with open(data, "rb") as f:
        texts = pickle.load(f)["test"]["raw_text"][:clips]
    tokenizer = transformers.AutoTokenizer.from_pretrained(pretrained)
    inputs = dict(tokenizer(texts, padding="max_length", max_length=steps, truncation=True, return_tensors="pt"))
    inputs.setdefault("token_type_ids", torch.zeros_like(inputs["input_ids"]))
    bert = json.loads((pretrained / "config.json").read_text())
    out.mkdir(parents=True, exist_ok=True)
    (out / "transcripts.txt").write_text("".join(t.replace("\n", " ") + "\n" for t in texts))
    with torch.no_grad():
        model = model_of(pretrained, torch.float64).eval()
        hidden = model(**inputs).last_hidden_state
        single = model_of(pretrained, torch.float32).eval()(**inputs).last_hidden_state.double()
        ours = reference_bert.hidden_states(model.state_dict(), bert, inputs["input_ids"], inputs["attention_mask"], inputs["token_type_ids"])[-1]
    save_file({n: x.contiguous() for n, x in inputs.items()}, out / "inputs.safetensors")
    save_file({"hidden": hidden.contiguous()}, out / "expected.safetensors")
    (out / "pretrained").unlink(missing_ok=True)
    (out / "pretrained").symlink_to(pretrained.resolve())
    attended = inputs["attention_mask"] != 0
    print(f"{list(hidden.shape)}, {int(attended.sum())} attended tokens; values up to {hidden.abs().max():.2f}, attended ones {hidden[attended].abs().max():.2f}\n"
          f"largest difference of the library in float32 {(single - hidden).abs().max():.1e}, at attended tokens {(single - hidden)[attended].abs().max():.1e}; "
          f"of reference_bert.py in double {(ours - hidden).abs().max():.1e}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--real", type=Path, metavar="FOLDER", help="a pretrained folder: config.json, vocab.txt, model.safetensors")
    parser.add_argument("--data", type=Path, metavar="PICKLE", help="with --real: a data set with raw_text, as mosi_aligned_50.pkl")
    args = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if args.real:
        write_real(args.real, args.data, args.out)
    else:
        write_tiny(args.out)


if __name__ == "__main__":
    main()
