"""Writes the golden cases: config.json, weights, batch and expected values of each, from reference.py in double."""
import argparse
import json
import platform
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

import reference
import reference_bert

NO_DROPOUT = {f"{k}_dropout": 0.0 for k in ("relu", "embed", "res", "output", "text")}
NO_DROPOUT |= {"attn_dropout": 0.0, "attn_dropout_a": 0.0, "attn_dropout_v": 0.0}
TINY = {"use_bert": False, "dst_feature_dim_nheads": [8, 2], "nlevels": 2, "num_prototypes": 3, "pde_dim": 6,
        "task_loss": "mse", "alpha": 0.3, "beta": 0.2, "ct_weight": 0.05, **NO_DROPOUT}
SHALLOW = {"nlevels": 1, "dst_feature_dim_nheads": [6, 2], "pde_dim": 4}
KERNEL5 = {f"conv1d_kernel_size_{m}": 5 for m in "lav"}
PAPER = {"variant": "paper", "gmm_covariance": "diagonal", "ot_gradient": "unrolled", "ot_tolerance": 0.0,
         "lambda_ot": 1.0, "alpha": 0.05, "beta": 0.05}
SIMS = {**KERNEL5, "use_sequence_mask": True, "binary_task_weight": 0.01, "alpha": 0.0175, "beta": 0.0525,
        "ct_weight": 0.01, "ct_temperature": 0.07, "weight_decay": 0.005, "clip": 0.5}
IEMOCAP = {"train_mode": "classification", "num_classes": 4, "alpha": 0.05, "beta": 0.05, "ct_weight": 0.0,
           "class_weights": [0.5, 1.0, 1.5, 0.75], "weight_decay": 0.005, "clip": 0.6}

# case: (config over TINY, widths by modality, steps by modality, extras)
THREE = dict(text=10, audio=5, vision=7)
LEVEL = dict(text=6, audio=6, vision=6)
UNEQUAL = dict(text=9, audio=12, vision=7)
# Token ids and a text encoder of its own; text's width is the encoder's. Options of the encoder: `sizes`; `kept`, in the weights file
# (otherwise only in the pretrained folder); `older` names and `dtype` of the folder's file; `row` of the attention; `holes` between attended tokens.
# `seed`: bert_paper's first draw is left out, rounding its inputs to float32 moves the gradients by more than PyTorch's own float32 error.
# So is bert_legacy_names' first one: PyTorch's float32 error of one bias was 3e-7 by luck, that of the bias of which it is a linear image 2e-6.
SPOKEN = {**SHALLOW, "dst_feature_dim_nheads": [4, 2], "pde_dim": 3, "use_bert": True, "use_finetune": True, "pretrained": "tiny"}
PAIR, TALK = dict(text=6, audio=5), dict(text=9, audio=6)
CASES = {
    "mosi": ({"dataset_name": "mosi", "weight_decay": 0.005, "clip": 0.6}, THREE, LEVEL, {}),
    "mosei": ({"dataset_name": "mosei", **KERNEL5, "beta": 0.0, "ct_weight": 0.001}, THREE, dict(text=9, audio=9, vision=9), {}),
    "sims": ({"dataset_name": "sims", **SIMS}, THREE, UNEQUAL, {"padding": True}),
    "iemocap": ({"dataset_name": "iemocap", **IEMOCAP}, dict(text=12, audio=6, vision=9), dict(text=1, audio=1, vision=1), {}),
    "self_attention": ({**SHALLOW, "use_cross_modal_attention": False, "attn_mask": True, "task_loss": "mae"}, THREE, UNEQUAL, {}),
    "self_attention_unmasked": ({**SHALLOW, "use_cross_modal_attention": False, "attn_mask": False}, THREE, LEVEL, {}),
    "hetero_sum": ({**SHALLOW, "hetero_cost_reduction": "sum", "task_loss": "smooth_l1", "smooth_l1_beta": 0.5,
                    "gmm_var_floor": 0.05}, THREE, LEVEL, {"double": True}),
    "mahalanobis": ({**SHALLOW, "local_proto_mahalanobis": True, "task_loss": "huber", "gmm_var_floor": 0.02}, THREE, LEVEL, {"column": True}),
    "width_is_d": ({**SHALLOW, **KERNEL5, "use_sequence_mask": True}, dict(text=10, audio=6, vision=7), UNEQUAL, {"padding": True}),
    "few_samples": ({**SHALLOW, "num_prototypes": 5}, THREE, LEVEL, {"batch": 3}),
    "even_start": ({**SHALLOW, "mmd_bandwidth": 0.5, "gmm_var_floor": 0.05}, THREE, LEVEL, {"batch": 8}),
    "two_active": ({**SHALLOW, "active_modalities": ["text", "vision"]}, THREE, LEVEL, {}),
    "one_active": ({**SHALLOW, "active_modalities": ["audio"], "attn_mask": True}, THREE, LEVEL, {}),
    "two_modalities": ({**SHALLOW}, dict(text=9, zither=5), dict(text=5, zither=7), {}),
    "five_modalities": ({**SHALLOW, "conv1d_kernel_size_depth": 3}, dict(text=9, audio=5, vision=7, depth=4, pose=3),
                        dict(text=5, audio=6, vision=7, depth=8, pose=4), {}),
    "log_sinkhorn": ({**SHALLOW, "sinkhorn": "log", "ot_tolerance": 0.0}, THREE, LEVEL, {}),
    "log_sinkhorn_converged": ({**SHALLOW, "sinkhorn": "log", "ot_entropy": "log", "ot_gradient": "envelope", "lambda_ot": 0.5,
                                "ot_num_iters": 300, "ot_tolerance": 1e-14}, THREE, LEVEL, {}),
    "paper_options": ({**SHALLOW, **PAPER}, THREE, UNEQUAL, {"lengths": True}),
    "lengths": ({**SHALLOW, "mask_source": "lengths", "conv1d_kernel_size_a": 3}, THREE, UNEQUAL, {"lengths": True}),
    "lengths_self_attention": ({**SHALLOW, "mask_source": "lengths", "use_cross_modal_attention": False, "attn_mask": True},
                               THREE, UNEQUAL, {"lengths": True}),
    "temporal_length": ({**SHALLOW, "temporal_length": 4, "conv1d_kernel_size_v": 3}, THREE, UNEQUAL, {}),
    "temporal_min": ({**SHALLOW, "temporal_length": "min"}, THREE, UNEQUAL, {}),
    "steps_mosi": ({"dataset_name": "mosi", "weight_decay": 0.005, "clip": 0.6}, THREE, LEVEL, {"steps": 12}),
    "steps_sims": ({"dataset_name": "sims", **SIMS}, THREE, UNEQUAL, {"padding": True, "steps": 12}),
    "steps_iemocap": ({"dataset_name": "iemocap", **IEMOCAP}, dict(text=12, audio=6, vision=9), dict(text=1, audio=1, vision=1), {"steps": 12}),
    "bert": ({**SPOKEN, "dataset_name": "mosi"}, {**PAIR, "text": 8}, TALK,
             {"bert": {"sizes": dict(hidden_size=8, num_hidden_layers=2, intermediate_size=12), "kept": True}}),
    "bert_packed": ({**SPOKEN, "mask_source": "lengths"}, PAIR, TALK, {"lengths": True, "bert": {}}),
    "bert_paper": ({**SPOKEN, **PAPER, "conv1d_kernel_size_l": 3}, PAIR, TALK, {"lengths": True, "seed": 1, "bert": {"row": 2}}),
    "bert_masked": ({**SPOKEN, "use_sequence_mask": True}, {**PAIR, "text": 4}, TALK,
                    {"padding": True, "bert": {"sizes": dict(hidden_size=4), "holes": True}}),
    "bert_masked_older": ({**SPOKEN, "use_sequence_mask": True, "conv1d_kernel_size_l": 3}, PAIR, TALK,
                          {"padding": True, "bert": {"row": 2, "dtype": torch.bfloat16}}),
    "bert_legacy_names": (SPOKEN, PAIR, TALK, {"seed": 2, "bert": {"older": True, "dtype": torch.float16}}),
    "bert_frozen": ({**SPOKEN, "use_finetune": False}, {**PAIR, "text": 4}, TALK, {"bert": {"sizes": dict(hidden_size=4, intermediate_size=5), "older": True}}),
    "steps_bert": ({**SPOKEN, "weight_decay": 0.005, "bert_learning_rate": 0.001}, PAIR, TALK, {"steps": 12, "bert": {"kept": True}}),
    "steps_bert_packed": ({**SPOKEN, "mask_source": "lengths", "conv1d_kernel_size_l": 3, "weight_decay": 0.005, "bert_learning_rate": None},
                          PAIR, TALK, {"lengths": True, "steps": 12, "bert": {}}),
    "steps_two_active": ({**SHALLOW, "active_modalities": ["text", "vision"], "weight_decay": 0.1}, THREE, LEVEL, {"steps": 12}),
}
LEARNING_RATE = 0.003

# The shapes of the four published set-ups, for the comparison with the authors' code.
FULL = {
    "mosi": dict(batch=32, widths=dict(text=768, audio=5, vision=20), steps=dict(text=50, audio=50, vision=50)),
    "mosei": dict(batch=128, widths=dict(text=768, audio=74, vision=35), steps=dict(text=50, audio=50, vision=50)),
    "sims": dict(batch=24, widths=dict(text=768, audio=33, vision=709), steps=dict(text=39, audio=400, vision=55)),
    "iemocap": dict(batch=32, widths=dict(text=1024, audio=512, vision=1024), steps=dict(text=1, audio=1, vision=1)),
}


def make_weights(shapes, rng):
    """Float32 parameters: uniform +-1/sqrt(fan in), gains near 1, and biases away from 0 so that each one counts."""
    weights = {}
    for name, shape in shapes.items():
        if len(shape) == 1:
            value = 0.1 * rng.standard_normal(shape) + (1.0 if name.endswith(("layer_norm.weight", "LayerNorm.weight")) else 0.0)
        else:
            value = rng.uniform(-1, 1, shape) / np.sqrt(np.prod(shape[1:]))
        weights[name] = torch.from_numpy(value.astype(np.float32))
    return weights


def make_tokens(vocabulary, ends, steps, rng, row=1, holes=False, types=2):
    """Token ids, and in `row` the attention (the first ends[b] of a clip), in the other one the segments: [B, 3, T] int64."""
    attended = np.arange(steps)[None] < ends[:, None]
    segment = (np.arange(steps)[None] >= ends[:, None] // 2) * attended % types
    if holes:                                                      # a left edge, and as many segment ones as attended tokens: row 1 wins
        attended[0, :2] = False
        attended[2, 1::3] = False
        segment = np.roll(attended, 1, axis=1)
    ids = np.where(attended, rng.integers(1, vocabulary, attended.shape), 0)
    rows = (ids, attended, segment) if row == 1 else (ids, segment, attended)
    return torch.from_numpy(np.stack(rows, 1).astype(np.int64))


def make_batch(config, widths, steps, size, rng, padding=False, lengths=False, column=False, double=False, tokens=None):
    """Features that move with the label; `padding` zeroes the ends of audio and vision, `lengths` tells the ends of all,
    `column` gives labels [B, 1], `double` stores the same values as float64, `tokens` makes text of token ids: options of make_tokens."""
    classes = config.get("train_mode") == "classification"
    labels = np.arange(size) % config["num_classes"] if classes else np.round(rng.uniform(-3, 3, size) * 5) / 5
    if not classes:
        labels[0] = 0.0
    batch = {}
    for name in reference.ordered(widths):
        tone = np.tanh(labels - labels.mean())[:, None, None] * rng.standard_normal(widths[name])
        x = (rng.standard_normal((size, steps[name], widths[name])) + 0.7 * tone).astype(np.float32)
        ends = rng.integers(max(1, steps[name] // 2), steps[name] + 1, size)
        ends[1] = steps[name]
        if padding and name != "text":
            x[np.arange(steps[name])[None] >= ends[:, None]] = 0
        if tokens is not None and name == "text":
            batch[name] = make_tokens(config["bert"]["vocab_size"], ends, steps[name], rng, **tokens)
            continue
        if lengths:
            batch[f"{name}_lengths"] = torch.from_numpy(ends.astype(np.int64))
        batch[name] = torch.from_numpy(x)
    batch["labels"] = torch.from_numpy(labels.astype(np.int64 if classes else np.float32))
    if column:
        batch["labels"] = batch["labels"][:, None].contiguous()
    return reference.cast(batch, torch.float64) if double else batch


def relative_error(value, expected):
    """max|difference| / max|expected|; the plain difference where everything expected is zero. NaN stays NaN."""
    gap, top = (value.double() - expected.double()).abs().max().item(), expected.double().abs().max().item()
    return gap / top if top > 0 else gap


def versions():
    return f"torch {torch.__version__}\nnumpy {np.__version__}\npython {platform.python_version()}\n"


def own_memory(tensors):
    """safetensors wants dense tensors that share nothing."""
    return {n: x.detach().clone(memory_format=torch.contiguous_format) for n, x in tensors.items()}


def exact_zeros(tensors):
    """The encoder's key biases move all scores of a query alike, so their gradient is zero; what rounding left there goes."""
    def settled(name, x):
        if not name.endswith("attention.self.key.bias"):
            return x
        noise, beside = x.abs().max(), tensors[name.replace("key", "query")].abs().max()
        if noise > 1e3 * torch.finfo(x.dtype).eps * beside:
            raise RuntimeError(f"{name}: gradient {noise:.1e} beside {beside:.1e}")
        return torch.zeros_like(x)
    return {n: settled(n, x) for n, x in tensors.items()}


def make_encoder(bert, rng, dtype=torch.float32, sharp=1):
    """Parameters of the text encoder that a file of this type holds exactly, as float32 under their own names; `sharp` scales the queries."""
    weights = make_weights(reference_bert.parameter_shapes(bert), rng)
    return {n: (w * sharp if "self.query" in n else w).to(dtype).float() for n, w in weights.items()}


def write_pretrained(folder, bert, encoder, rng, older=False, dtype=torch.float32):
    """A pretrained folder: config.json and model.safetensors, in the older style with tensors that nobody needs."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(bert, indent=1) + "\n")
    stored = {n: w.to(dtype) for n, w in encoder.items()}
    if older:
        stored = reference_bert.older_names(stored)
        stored |= {n: w if w.dtype == torch.int64 else w.to(dtype) for n, w in reference_bert.unused_tensors(bert, rng).items()}
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})


def write_case(folder, config, weights, batches, run, steps=0, rate=LEARNING_RATE, keep_f32=False):
    """One case folder; run(dtype) gives the expected tensors. steps.json, when there, holds N and the learning rate."""
    folder.mkdir(parents=True, exist_ok=True)
    written = {k: v for k, v in config.items() if k != "bert"}     # the encoder's sizes are in the pretrained folder
    (folder / "config.json").write_text(json.dumps(written, indent=1) + "\n")
    save_file(weights, folder / "weights.safetensors")
    batch = {f"batch{i}.{n}": x for i, b in enumerate(batches) for n, x in b.items()} if steps else batches[0]
    save_file(batch, folder / "batch.safetensors")
    if steps:
        (folder / "steps.json").write_text(json.dumps({"steps": steps, "learning_rate": rate}) + "\n")
    exact, single = exact_zeros(run(torch.float64)), run(torch.float32)
    save_file(own_memory(exact), folder / "expected.safetensors", metadata={"versions": versions()})
    if keep_f32:
        save_file(own_memory(single), folder / "expected_f32.safetensors", metadata={"versions": versions()})
    errors = {n: float(f"{relative_error(single[n], exact[n]):.3g}") for n in exact}
    (folder / "f32_error.json").write_text(json.dumps(errors, indent=0) + "\n")
    return exact, errors


def make_inputs(name, full=False):
    """Config, weights, batches, number of steps and pretrained folder of a case, the same on every machine."""
    over, widths, steps, extra = CASES[name]
    config, size = {**TINY, **over}, extra.get("batch", 6)
    if full:
        size, widths, steps = (FULL[name.removeprefix("steps_")][k] for k in ("batch", "widths", "steps"))
        sizes = {"mosi": ([64, 8], 5, 7, 64), "mosei": ([64, 8], 4, 7, 64), "sims": ([32, 8], 4, 7, 32), "iemocap": ([48, 4], 4, 6, 48)}
        keys = ("dst_feature_dim_nheads", "nlevels", "num_prototypes", "pde_dim")
        config |= dict(zip(keys, sizes[name.removeprefix("steps_")]))
    rng = np.random.Generator(np.random.PCG64(sum(map(ord, name)) + extra.get("seed", 0)))
    weights = make_weights(reference.parameter_shapes(config, widths), rng)
    flags = {k: extra[k] for k in ("padding", "lengths", "column", "double") if k in extra}
    pretrained = None
    if "bert" in extra:
        option = extra["bert"]
        bert = reference_bert.CONFIG | option.get("sizes", {})
        pretrained = {"bert": bert, "dtype": option.get("dtype", torch.float32), "older": option.get("older", False)}
        pretrained |= {"encoder": make_encoder(bert, rng, pretrained["dtype"]), "kept": option.get("kept", False)}
        encoder = make_encoder(bert, rng) if pretrained["kept"] else pretrained["encoder"]
        weights = {reference.BERT + n: w for n, w in encoder.items()} | weights
        config = config | {"bert": bert}
        flags["tokens"] = {k: option[k] for k in ("row", "holes") if k in option}
    count = 3 if extra.get("steps") else 1
    batches = [make_batch(config, widths, steps, size, rng, **flags) for _ in range(count)]
    return config, weights, batches, extra.get("steps", 0), pretrained


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("case", nargs="*", help="names of cases; without any: all")
    parser.add_argument("--full", action="store_true", help="the published sizes of mosi, mosei, sims and iemocap")
    args = parser.parse_args()
    names = args.case or [n for n in CASES if not args.full or n.removeprefix("steps_") in FULL]
    torch.set_num_threads(2)
    for name in names:
        config, weights, batches, steps, pretrained = make_inputs(name, args.full)
        def run(dtype):
            if steps:
                return reference.replay_steps(weights, batches, config, steps, LEARNING_RATE, dtype)
            return reference.replay(weights, batches[0], config, dtype)
        stored = weights
        if pretrained:
            write_pretrained(args.out / name / config["pretrained"], pretrained["bert"], pretrained["encoder"],
                             np.random.Generator(np.random.PCG64(len(name))), pretrained["older"], pretrained["dtype"])
            stored = weights if pretrained["kept"] else {n: w for n, w in weights.items() if not n.startswith(reference.BERT)}
        exact, errors = write_case(args.out / name, config, stored, batches, run, steps, keep_f32=args.full)
        losses = " ".join(f"{k.removesuffix('_loss')} {exact[k].item():.4g}" for k in reference.LOSSES if k in exact)
        print(f"{name:24s} {losses or 'curve ' + ' '.join(f'{v:.4f}' for v in exact['curve.total_loss'].tolist())}"
              f"  float32 error up to {max(errors.values()):.1e}")
    (args.out / "VERSIONS.txt").write_text(versions())


if __name__ == "__main__":
    main()
