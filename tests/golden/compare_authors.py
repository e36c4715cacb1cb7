"""Compares reference.py with the authors' published code in double, and writes that code's own results as replay cases."""
import argparse
import copy
import json
import sys
import tempfile
import types
from pathlib import Path

import numpy as np
import torch

import make
import reference
import reference_bert

# The switches of the release at the MOSI sizes, each over the published configuration.
SWITCHES = {
    "self_attention": dict(use_cross_modal_attention=False, attn_mask=True),
    "self_attention_unmasked": dict(use_cross_modal_attention=False, attn_mask=False),
    "hetero_sum": dict(hetero_cost_reduction="sum"),
    "mahalanobis": dict(local_proto_mahalanobis=True),
    "width_is_d": dict(dst_feature_dim_nheads=[20, 4], pde_dim=20),
    "few_samples": dict(num_prototypes=40),
    "two_active": dict(active_modalities=["text", "vision"]),
    "one_active": dict(active_modalities=["audio"]),
    "smooth_l1": dict(task_loss="smooth_l1", smooth_l1_beta=0.5, mmd_bandwidth=0.5),
    "mae": dict(task_loss="mae", binary_task_weight=0.5),
}
# The whole network with its text encoder, a tiny one, at the published sizes: data set, changes, options of the tokens.
ENCODER = reference_bert.CONFIG | dict(vocab_size=200, hidden_size=24, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96,
                                       max_position_embeddings=64)
SPOKEN = {
    "bert_mosi": ("mosi", {}, {}),
    "bert_mosei": ("mosei", {}, {}),
    "bert_sims": ("sims", {}, {}),
    "bert_sims_masked": ("sims", dict(use_sequence_mask=True, bert_learning_rate=2e-4), dict(row=2)),
    "bert_holes": ("mosi", dict(use_sequence_mask=True), dict(holes=True)),
    "bert_self_attention": ("mosi", dict(use_cross_modal_attention=False), {}),
    "bert_frozen": ("mosi", dict(use_finetune=False), {}),
    "bert_inactive": ("mosi", dict(active_modalities=["audio", "vision"]), {}),
}
STEPS, RATE = 12, 1e-3


def authors_modules(checkout, encoder):
    """The authors' model, trainer and configuration modules; without an encoder transformers, slow to import, is a stub."""
    sys.path.insert(0, str(checkout))
    if encoder:
        import transformers
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
    else:
        stub = types.ModuleType("transformers")
        stub.BertModel = object
        sys.modules.setdefault("transformers", stub)
    import config
    import torch.nn.functional as F
    bce = F.binary_cross_entropy_with_logits
    # With a float32 target PyTorch rounds the result to float32 even for double logits; give it the logits' precision.
    F.binary_cross_entropy_with_logits = lambda logits, target: bce(logits, target.to(logits.dtype))
    from models import build_model
    from trains.ATIO import DecAlignTrainer
    return config, build_model, DecAlignTrainer


class Authors:
    """The authors' network and losses behind the same calls as reference.py."""

    def __init__(self, checkout, encoder=False):
        self.config, self.build_model, self.trainer = authors_modules(checkout, encoder)
        self.checkout, self.scratch = checkout, tempfile.TemporaryDirectory()

    def released_config(self, dataset, **over):
        """The configuration a user of the release trains with, as plain JSON; float text unless `over` says use_bert."""
        file = {"iemocap": "iemocap_decalign_config.json"}.get(dataset, f"dec_{dataset}_config.json")
        args = self.config.get_config_regression("decalign", dataset, self.checkout / "config" / file, data_dir="data")
        return json.loads(json.dumps(vars(args))) | {"use_bert": False} | over

    def pretrained(self, bert):
        """A folder with a random encoder of this configuration."""
        folder = Path(self.scratch.name) / "pretrained"
        rng = np.random.Generator(np.random.PCG64(7))
        make.write_pretrained(folder, bert, make.make_encoder(bert, rng), rng)
        return str(folder)

    def network(self, config, weights, dtype):
        if "bert" in config:
            config = config | {"pretrained": self.pretrained(config["bert"])}
        model = self.build_model(types.SimpleNamespace(**config))
        if weights is not None:
            model.load_state_dict(weights, strict=True)
        return model.to(dtype).train()

    def losses(self, model, batch, config):
        """Outputs and losses of one batch, as the authors' trainer adds them up."""
        trainer = self.trainer(types.SimpleNamespace(**config))
        if getattr(trainer, "class_weights", None) is not None:
            trainer.class_weights = trainer.class_weights.to(batch["text"].dtype)
        out = model(batch["text"], batch["audio"], batch["vision"])
        task = trainer._main_loss(out["output_logit"], batch["labels"])
        ct = trainer._contrastive_loss(out["final_rep"], batch["labels"])
        total = trainer._combined_loss(task, out)
        if config.get("ct_weight", 0.0) > 0:
            total = total + config["ct_weight"] * ct
        keep = ("output_logit", "final_rep", "dec_loss", "hete_loss", "homo_loss")
        return {k: out[k] for k in keep} | dict(task_loss=task, ct_loss=ct, total_loss=total)

    def optimizer(self, model, config, rate):
        """Adam as the authors' trainer sets it up: with a learning rate of its own the encoder is a group."""
        decay, own = config["weight_decay"], config.get("bert_learning_rate")
        if own is None or not hasattr(model, "text_model"):
            return torch.optim.Adam([{"params": model.parameters(), "weight_decay": decay}], lr=rate)
        encoder = {id(p): p for p in model.text_model.parameters()}
        others = [p for p in model.parameters() if id(p) not in encoder]
        return torch.optim.Adam([{"params": list(encoder.values()), "weight_decay": decay, "lr": own},
                                 {"params": others, "weight_decay": decay, "lr": rate}])

    def replay(self, weights, batch, config, dtype=torch.float64):
        model, batch = self.network(config, weights, dtype), reference.cast(batch, dtype)
        out = self.losses(model, batch, config)
        out["total_loss"].backward()
        result = {n: x.detach().reshape(1) if n in reference.LOSSES else x.detach() for n, x in out.items()}
        return result | {f"grad.{n}": torch.zeros_like(p) if p.grad is None else p.grad for n, p in model.named_parameters()}

    def replay_steps(self, weights, batches, config, steps, learning_rate, dtype=torch.float64):
        model = self.network(config, weights, dtype)
        optimizer = self.optimizer(model, config, learning_rate)
        curve = []
        for t in range(steps):
            model.zero_grad()
            total = self.losses(model, reference.cast(batches[t % len(batches)], dtype), config)["total_loss"]
            total.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), config["clip"])
            optimizer.step()
            curve.append(total.detach())
        return {"curve.total_loss": torch.stack(curve)}


def cases(authors, chosen):
    """name -> (config, batches); one batch means replay, three mean Adam steps."""
    def inputs(dataset, config, count, tokens=None):
        rng = np.random.Generator(np.random.PCG64(sum(map(ord, dataset)) + count))
        shape = make.FULL[dataset]
        padding = config.get("use_sequence_mask", False)
        return [make.make_batch(config, shape["widths"], shape["steps"], shape["batch"], rng, padding, tokens=tokens) for _ in range(count)]
    special = {"sims_masked": ("sims", dict(use_sequence_mask=True)),
               "iemocap_weighted": ("iemocap", dict(class_weights=[0.5, 1.0, 1.5, 2.0, 0.75, 1.25]))}
    single = {d: (d, {}) for d in make.FULL} | special | {n: ("mosi", over) for n, over in SWITCHES.items()}
    several = {f"steps_{d}": (d, {}) for d in make.FULL} | {f"steps_{n}": v for n, v in special.items()}
    several["steps_two_active"] = ("mosi", SWITCHES["two_active"])
    single |= SPOKEN
    several |= {f"steps_{n}": SPOKEN[n] for n in ("bert_mosi", "bert_sims", "bert_sims_masked", "bert_frozen")}
    for group, count in ((single, 1), (several, 3)):
        for name, (dataset, over, *tokens) in group.items():
            if chosen and name not in chosen:
                continue
            config = authors.released_config(dataset, **make.NO_DROPOUT, **over)
            config["feature_dims"] = list(make.FULL[dataset]["widths"].values())
            if tokens:
                config |= {"use_bert": True, "pretrained": "tiny", "bert": ENCODER}
                config["feature_dims"][0] = ENCODER["hidden_size"]
            yield name, config, inputs(dataset, config, count, *tokens)


def initial_weights(authors, config):
    """The authors' own initialisation, with the biases moved away from zero so that each one counts."""
    torch.manual_seed(1111)
    weights = authors.network(config, None, torch.float32).state_dict()
    return {n: w + 0.02 * torch.randn_like(w) if w.dim() == 1 else w for n, w in weights.items()}


def worst(ours, theirs, prefix=""):
    found = {n: make.relative_error(ours[n], x) for n, x in theirs.items() if n.startswith(prefix)}
    name = max(found, key=lambda n: found[n] if found[n] == found[n] else np.inf)
    return found[name], name


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--authors", type=Path, required=True, help="a checkout of github taco-group/DecAlign")
    parser.add_argument("--write", type=Path, help="also write the authors' results as replay cases into this folder")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("case", nargs="*", help="names of cases; without any: all")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    authors = Authors(args.authors.resolve(), encoder=not args.case or any("bert" in n for n in args.case))
    print("| case | losses and outputs | gradients (worst tensor) | the authors' own float32 error |\n|---|---|---|---|")
    failed = False
    for name, config, batches in cases(authors, args.case):
        weights = initial_weights(authors, config)
        steps = STEPS if len(batches) > 1 else 0
        def run(side, dtype):
            if steps:
                return side.replay_steps(weights, batches, copy.deepcopy(config), steps, RATE, dtype)
            return side.replay(weights, batches[0], copy.deepcopy(config), dtype)
        theirs, ours = make.exact_zeros(run(authors, torch.float64)), run(reference, torch.float64)
        if set(ours) != set(theirs):
            raise SystemExit(f"{name}: tensors differ: {sorted(set(ours) ^ set(theirs))}")
        kept = {n: x for n, x in theirs.items() if not n.startswith("grad.")}
        plain, plain_name = worst(ours, kept)
        grad, grad_name = worst(ours, theirs, "grad.") if not steps else (0.0, "")
        failed |= not (plain < 1e-9 and grad < 1e-9)
        single = run(authors, torch.float32)
        rounding, rounding_name = worst(single, theirs)
        print(f"| {name} | {plain:.1e} {plain_name} | {f'{grad:.1e} {grad_name}' if not steps else '-'} | {rounding:.1e} {rounding_name} |", flush=True)
        if args.write:
            if "bert" in config:
                rng = np.random.Generator(np.random.PCG64(8))
                make.write_pretrained(args.write / name / config["pretrained"], config["bert"], make.make_encoder(config["bert"], rng), rng)
            make.write_case(args.write / name, config, weights, batches, lambda t: theirs if t == torch.float64 else single,
                            steps, RATE, keep_f32=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
