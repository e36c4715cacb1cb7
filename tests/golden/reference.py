"""DecAlign written from its definition in PyTorch: network, losses, gradients and Adam steps that the C++ code is measured against.

Everything is a plain function on dictionaries of tensors. Sequences are [B, T, d], modalities are a list of names, and
the number of modalities appears nowhere.
"""
import math

import torch

import reference_bert
from reference_alignment import decoupling, hetero_loss, homo_loss

LETTERS = {"text": "l", "audio": "a", "vision": "v"}
LOSSES = ("task_loss", "dec_loss", "hete_loss", "homo_loss", "ct_loss", "total_loss")

BERT = "text_model.model."              # names of the text encoder's parameters start with it

RELEASE = dict(dec_loss="cos2_mean", gmm_covariance="diagonal", gmm_init="linspace", hetero_cost_reduction="mean",
               ot_entropy="log_minus_one", sinkhorn="release", ot_gradient="unrolled", proto_reduction="mean",
               moment_loss="mean", mask_source="zeros", temporal_length=0)
PAPER = dict(dec_loss="cos_sum", gmm_covariance="full", gmm_init="linspace", hetero_cost_reduction="sum",
             ot_entropy="log", sinkhorn="log", ot_gradient="envelope", proto_reduction="sum",
             moment_loss="sum", mask_source="lengths", temporal_length="min")
DEFAULTS = dict(variant="release", train_mode="regression", num_classes=1, dst_feature_dim_nheads=[40, 10], nlevels=5,
                num_prototypes=8, gmm_em_iters=5, gmm_var_floor=1e-4, lambda_ot=0.1, ot_num_iters=50, ot_tolerance=1e-6,
                local_proto_mahalanobis=False, use_sequence_mask=False, use_cross_modal_attention=True,
                active_modalities=None, attn_mask=True, mmd_bandwidth=1.0, task_loss="mae", smooth_l1_beta=1.0,
                binary_task_weight=0.0, class_weights=None, dec_loss_weight=1.0, alpha=0.1, beta=0.1, ct_weight=0.0,
                ct_temperature=0.1, weight_decay=0.0, clip=0.8, use_bert=False, use_finetune=True, bert_learning_rate=None)


def settings(config):
    """The configuration with the variant's and the default values filled in."""
    variant = PAPER if config.get("variant", "release") == "paper" else RELEASE
    cfg = {**DEFAULTS, **variant, **config}
    if cfg["gmm_covariance"] != "diagonal" or cfg["gmm_init"] != "linspace":
        raise NotImplementedError("this reference has diagonal covariances and the linspace start only")
    return cfg


def ordered(names):
    """Text, audio, vision first, then the others by name."""
    return [n for n in LETTERS if n in names] + sorted(n for n in names if n not in LETTERS)


def letter(name):
    return LETTERS.get(name, name)


def modalities_of(batch):
    return ordered({n for n in batch if n != "labels" and not n.endswith("_lengths")})


def has_tokens(batch):
    """Whether text is token ids [B, 3, T] instead of features."""
    text = batch.get("text")
    return text is not None and text.dim() == 3 and text.shape[1] == 3 and not text.is_floating_point()


def active_of(names, cfg):
    return [n for n in names if cfg["active_modalities"] is None or n in cfg["active_modalities"]]


# ---- shapes of the parameters ---------------------------------------------------------------------------------------
def parameter_shapes(config, widths):
    """Name -> shape of every parameter; widths: modality -> input width. With `bert`, the encoder's config.json, text is its output."""
    cfg, names = settings(config), ordered(widths)
    d = cfg["dst_feature_dim_nheads"][0]
    pde = cfg.get("pde_dim", d)
    outputs = cfg["num_classes"] if cfg["train_mode"] == "classification" else 1
    shapes = {BERT + n: s for n, s in reference_bert.parameter_shapes(cfg["bert"]).items()} if "bert" in cfg else {}
    shapes |= {f"proj_{letter(n)}.weight": (d, widths[n], cfg.get(f"conv1d_kernel_size_{letter(n)}", 1)) for n in names}
    shapes |= {f"encoder_uni_{letter(n)}.weight": (d, d, 1) for n in names}
    shapes["encoder_com.weight"] = (d, d, 1)
    for n in names:
        for i in range(cfg["nlevels"]):
            p = f"trans_{letter(n)}.layers.{i}."
            shapes |= {p + "self_attn.in_proj_weight": (3 * d, d), p + "self_attn.in_proj_bias": (3 * d,),
                       p + "self_attn.out_proj.weight": (d, d), p + "self_attn.out_proj.bias": (d,),
                       p + "attn_layer_norm.weight": (d,), p + "attn_layer_norm.bias": (d,),
                       p + "fc1.weight": (4 * d, d), p + "fc1.bias": (4 * d,),
                       p + "fc2.weight": (d, 4 * d), p + "fc2.bias": (d,),
                       p + "final_layer_norm.weight": (d,), p + "final_layer_norm.bias": (d,)}
    for n in names:
        p = f"pde_{letter(n)}.net."
        shapes |= {p + "0.weight": (d, d), p + "0.bias": (d,), p + "3.weight": (pde, d), p + "3.bias": (pde,)}
    shapes |= {"out_layer.weight": (outputs, 2 * len(names) * d), "out_layer.bias": (outputs,)}
    return shapes


# ---- sequences ------------------------------------------------------------------------------------------------------
def temporal_projection(x, weight):
    """Valid convolution over time without bias: [B, T, p] and [d, p, k] give [B, T - k + 1, d]."""
    windows = x.unfold(1, weight.shape[2], 1)
    return torch.einsum("btpk,dpk->btd", windows, weight)


def steps_before(count, steps):
    """[B, steps]: true at the first count[b] steps of sample b."""
    return torch.arange(steps, device=count.device)[None, :] < count[:, None]


def average_windows(x, steps, counts):
    """Adaptive average pooling over the first counts[b] steps of every sample: [B, T, d] -> [B, steps, d]."""
    rows = []
    for sample, n in zip(x, counts):
        spans = [(i * n // steps, -((-(i + 1) * n) // steps)) for i in range(steps)]
        rows.append(torch.stack([sample[lo:hi].mean(0) if n else torch.zeros_like(sample[0]) for lo, hi in spans]))
    return torch.stack(rows)


def pooled(x, valid):
    """Mean over the valid steps, [B, T, d] -> [B, d]; a sample without any gives zeros."""
    if valid is None:
        return x.mean(1)
    keep = valid.to(x.dtype)
    return torch.einsum("btd,bt->bd", x, keep) / keep.sum(1, keepdim=True).clamp(min=1)


def encode_text(weights, batch, cfg):
    """The batch with the encoder's last hidden states as its text, and what each token's row says: [B, T], or None for float text.

    With the lengths' masks only attended tokens exist: the others' hidden states are zero, and the text is as long as they are many.
    """
    if not (cfg["use_bert"] and has_tokens(batch)):
        return batch, None
    attention, types = reference_bert.attention_and_types(batch["text"])
    encoder = {n.removeprefix(BERT): w for n, w in weights.items() if n.startswith(BERT)}
    if not cfg["use_finetune"]:
        encoder = {n: w.detach() for n, w in encoder.items()}
    hidden, attended = reference_bert.hidden_states(encoder, cfg["bert"], batch["text"][:, 0], attention, types)[-1], attention != 0
    if cfg["mask_source"] != "lengths":
        return {**batch, "text": hidden}, attended
    count = attended.sum(1)
    if not torch.equal(attended, steps_before(count, hidden.shape[1])):
        raise NotImplementedError("lengths of tokens that do not come first")
    return {**batch, "text": torch.where(attended[..., None], hidden, 0.0), "text_lengths": count}, attended


def read_sequences(weights, batch, names, cfg):
    """Projected sequences and their masks: modality -> ([B, T', d], [B, T'] or None)."""
    batch, attended = encode_text(weights, batch, cfg)
    d = cfg["dst_feature_dim_nheads"][0]
    out = {}
    for n in names:
        raw = batch[n]
        x = raw if raw.shape[2] == d else temporal_projection(raw, weights[f"proj_{letter(n)}.weight"])
        steps, valid = x.shape[1], None
        if cfg["mask_source"] == "lengths":
            valid = steps_before(batch[f"{n}_lengths"], steps)
        elif cfg["use_sequence_mask"] and n == "text":
            valid = None if attended is None else attended[:, :steps]
        elif cfg["use_sequence_mask"]:
            valid = (raw != 0).any(2)[:, :steps]
        out[n] = (x if valid is None else torch.where(valid[..., None], x, torch.zeros_like(x)), valid)
    target = cfg["temporal_length"]
    if target == "min":
        target = min(x.shape[1] for x, _ in out.values())
    if target:
        for n, (x, valid) in out.items():
            if valid is not None and cfg["mask_source"] == "zeros":
                raise NotImplementedError("temporal_length with masks from zeros")
            counts = [x.shape[1]] * x.shape[0] if valid is None else valid.sum(1).tolist()
            out[n] = (average_windows(x, target, counts), None)
    return out


# ---- transformer ----------------------------------------------------------------------------------------------------
def attention(query, context, allowed, w_in, b_in, w_out, b_out, heads):
    """Multi-head attention; allowed [B or 1, Tq, Tk] or None says which keys a query may see."""
    d = query.shape[2]
    (wq, wk, wv), (bq, bk, bv) = w_in.split(d), b_in.split(d)
    def split(x):
        return x.unflatten(2, (heads, d // heads))
    q, k, v = split(query @ wq.T + bq), split(context @ wk.T + bk), split(context @ wv.T + bv)
    score = torch.einsum("bqhe,bkhe->bhqk", q, k) / math.sqrt(d // heads)
    if allowed is not None:
        score = score.masked_fill(~allowed[:, None], -math.inf)
    mixed = torch.einsum("bhqk,bkhe->bqhe", score.softmax(3), v).flatten(2)
    return mixed @ w_out.T + b_out


def layer_norm(x, gain, shift):
    centered = x - x.mean(2, keepdim=True)
    return centered / torch.sqrt(centered.square().mean(2, keepdim=True) + 1e-5) * gain + shift


def transformer(weights, prefix, x, context, allowed, cfg):
    """Post-norm layers on x; context None means that every layer attends to its own current x."""
    scale = math.sqrt(x.shape[2])
    x, context = x * scale, None if context is None else context * scale
    for i in range(cfg["nlevels"]):
        w = {k.removeprefix(f"{prefix}.layers.{i}."): v for k, v in weights.items() if k.startswith(f"{prefix}.layers.{i}.")}
        a = attention(x, x if context is None else context, allowed, w["self_attn.in_proj_weight"],
                      w["self_attn.in_proj_bias"], w["self_attn.out_proj.weight"], w["self_attn.out_proj.bias"],
                      cfg["dst_feature_dim_nheads"][1])
        x = layer_norm(x + a, w["attn_layer_norm.weight"], w["attn_layer_norm.bias"])
        f = torch.relu(x @ w["fc1.weight"].T + w["fc1.bias"]) @ w["fc2.weight"].T + w["fc2.bias"]
        x = layer_norm(x + f, w["final_layer_norm.weight"], w["final_layer_norm.bias"])
    return x


def fused(weights, name, unique, masks, active, cfg):
    """One modality's sequence after its transformer."""
    x, others = unique[name], [n for n in active if n != name]
    batch, steps = x.shape[:2]
    mask_keys = cfg["mask_source"] == "lengths"
    if cfg["use_cross_modal_attention"] and others:
        context = torch.cat([unique[n] for n in others], 1)
        keys = [torch.ones(unique[n].shape[:2], dtype=torch.bool) if masks[n] is None else masks[n] for n in others]
        allowed = torch.cat(keys, 1)[:, None, :].expand(-1, steps, -1) if mask_keys else None
    else:
        context, allowed = None, None
        if cfg["attn_mask"]:
            allowed = torch.ones(steps, steps, dtype=torch.bool).tril()[None]
        if mask_keys and masks[name] is not None:
            own = masks[name][:, None, :].expand(-1, steps, -1)
            allowed = own if allowed is None else own & allowed
    return transformer(weights, f"trans_{letter(name)}", x, context, allowed, cfg)


# ---- losses on the labels -------------------------------------------------------------------------------------------
def task_loss(logits, labels, cfg):
    if cfg["train_mode"] == "classification":
        rows, target = torch.arange(len(logits)), labels.flatten().long()
        weight = torch.ones(logits.shape[1], dtype=logits.dtype)
        if cfg["class_weights"] is not None:
            weight = torch.tensor(cfg["class_weights"], dtype=torch.float32).to(logits.dtype)
        weight = weight[target]
        return -(weight * logits.log_softmax(1)[rows, target]).sum() / weight.sum()
    y, target = logits.flatten(), labels.flatten()
    error, kind, knee = (y - target).abs(), cfg["task_loss"].lower(), cfg["smooth_l1_beta"]
    if kind == "mse":
        loss = error.square().mean()
    elif kind in ("smooth_l1", "huber"):
        loss = torch.where(error < knee, error.square() / (2 * knee), error - knee / 2).mean()
    else:
        loss = error.mean()
    signed = target != 0
    if cfg["binary_task_weight"] > 0 and signed.any():
        side = torch.where(target[signed] > 0, 1.0, -1.0).to(y.dtype)
        loss = loss + cfg["binary_task_weight"] * torch.nn.functional.softplus(-side * y[signed]).mean()
    return loss


def contrastive_loss(features, labels, cfg):
    labels = labels.flatten()
    group = labels.long() if cfg["train_mode"] == "classification" else labels.clamp(-3, 3).round().long()
    unit = features / features.norm(dim=1, keepdim=True).clamp(min=1e-12)
    logit = unit @ unit.T / cfg["ct_temperature"]
    logit = logit - logit.max(1, keepdim=True).values.detach()
    other = ~torch.eye(len(group), dtype=torch.bool)
    positive = other & (group[:, None] == group[None])
    rows = positive.any(1)
    if not rows.any():
        return features.new_zeros(())
    log_sum = torch.where(other, logit.exp(), torch.zeros_like(logit)).sum(1, keepdim=True).clamp(min=1e-8).log()
    score = torch.where(positive, logit - log_sum, torch.zeros_like(logit)).sum(1) / positive.sum(1).clamp(min=1)
    return -score[rows].mean()


# ---- the whole step -------------------------------------------------------------------------------------------------
def forward(weights, batch, config):
    """Every loss, output_logit [B, 1 or classes] and final_rep [B, 2 M d] of one batch."""
    cfg, names = settings(config), modalities_of(batch)
    active, d = active_of(names, cfg), cfg["dst_feature_dim_nheads"][0]
    sequences = read_sequences(weights, batch, active, cfg)
    masks = {n: valid for n, (_, valid) in sequences.items()}
    unique = {n: x @ weights[f"encoder_uni_{letter(n)}.weight"][:, :, 0].T for n, (x, _) in sequences.items()}
    common = {n: x @ weights["encoder_com.weight"][:, :, 0].T for n, (x, _) in sequences.items()}
    common_mean = {n: pooled(common[n], masks[n]) for n in active}
    zero = weights["out_layer.bias"].new_zeros(())

    dec = sum(decoupling(unique[n], common[n], cfg) for n in active)
    dec = dec if cfg["dec_loss"] == "cos_sum" else dec / len(active)
    hete = homo = zero
    if len(active) == len(names) > 1:
        hete = hetero_loss([pooled(unique[n], masks[n]) for n in active], cfg)
        codes = []
        for n in active:
            p = f"pde_{letter(n)}.net."
            hidden = torch.relu(common_mean[n] @ weights[p + "0.weight"].T + weights[p + "0.bias"])
            codes.append(hidden @ weights[p + "3.weight"].T + weights[p + "3.bias"])
        homo = homo_loss(codes, cfg)

    absent = zero.expand(len(batch["labels"]), d)
    fusion = [pooled(fused(weights, n, unique, masks, active, cfg), masks[n]) if n in active else absent for n in names]
    final = torch.cat(fusion + [common_mean.get(n, absent) for n in names], 1)
    logits = final @ weights["out_layer.weight"].T + weights["out_layer.bias"]
    task, ct = task_loss(logits, batch["labels"], cfg), contrastive_loss(final, batch["labels"], cfg)
    total = task + cfg["dec_loss_weight"] * dec + cfg["alpha"] * hete + cfg["beta"] * homo + cfg["ct_weight"] * ct
    return dict(output_logit=logits, final_rep=final, task_loss=task, dec_loss=dec, hete_loss=hete, homo_loss=homo,
                ct_loss=ct, total_loss=total)


def cast(batch, dtype):
    """Features and labels in this precision; lengths and token ids stay integers, and class labels survive the rounding."""
    return {n: x if n.endswith("_lengths") or n == "text" and has_tokens(batch) else x.to(dtype) for n, x in batch.items()}


def gradients(weights, batch, config):
    """Outputs and the gradient of total_loss by parameter; None where no path leads to the loss."""
    leaves = {n: w.detach().clone().requires_grad_() for n, w in weights.items()}
    out = forward(leaves, batch, config)
    grads = torch.autograd.grad(out["total_loss"], list(leaves.values()), allow_unused=True)
    return {n: x.detach() for n, x in out.items()}, dict(zip(leaves, grads))


def replay(weights, batch, config, dtype=torch.float64):
    """What `decalign replay` writes for one batch."""
    weights, batch = {n: w.to(dtype) for n, w in weights.items()}, cast(batch, dtype)
    out, grads = gradients(weights, batch, config)
    result = {n: x.reshape(1) if n in LOSSES else x for n, x in out.items()}
    return result | {f"grad.{n}": torch.zeros_like(weights[n]) if g is None else g for n, g in grads.items()}


def replay_steps(weights, batches, config, steps, learning_rate, dtype=torch.float64):
    """The losses before each of `steps` updates by clipping and Adam, cycling over the batches: curve.total_loss."""
    cfg = settings(config)
    weights = {n: w.to(dtype) for n, w in weights.items()}
    first = {n: torch.zeros_like(w) for n, w in weights.items()}
    second = {n: torch.zeros_like(w) for n, w in weights.items()}
    curve = []
    for t in range(1, steps + 1):
        out, grads = gradients(weights, cast(batches[(t - 1) % len(batches)], dtype), cfg)
        curve.append(out["total_loss"])
        grads = {n: g for n, g in grads.items() if g is not None}
        norm = torch.sqrt(sum(g.square().sum() for g in grads.values()))
        shrink = (cfg["clip"] / (norm + 1e-6)).clamp(max=1)
        for n, g in grads.items():
            g = g * shrink + cfg["weight_decay"] * weights[n]
            first[n] = 0.9 * first[n] + 0.1 * g
            second[n] = 0.999 * second[n] + 0.001 * g.square()
            rate = second[n].sqrt() / math.sqrt(1 - 0.999 ** t) + 1e-8
            pace = learning_rate if cfg["bert_learning_rate"] is None or not n.startswith(BERT) else cfg["bert_learning_rate"]
            weights[n] = weights[n] - pace / (1 - 0.9 ** t) * first[n] / rate
    return {"curve.total_loss": torch.stack(curve)}
