"""A BERT encoder written from its definition in PyTorch: embeddings, post-norm layers, exact GELU, masked keys.

Weights are a dictionary under the names of a current checkpoint (`embeddings.word_embeddings.weight`, ...); sizes come from its
config.json. Dropout is left out: these are the values at dropout 0.
"""
import math

import torch

CONFIG = dict(model_type="bert", architectures=["BertModel"], vocab_size=16, hidden_size=6, num_hidden_layers=1, num_attention_heads=2,
              intermediate_size=8, max_position_embeddings=10, type_vocab_size=2, hidden_act="gelu", layer_norm_eps=1e-12,
              pad_token_id=0, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
POOLER = ("pooler.dense.weight", "pooler.dense.bias")             # in every checkpoint, in no result


def parameter_shapes(bert):
    """Name -> shape of every parameter, the unused pooler included; bert: the dictionary of config.json."""
    d, inner = bert["hidden_size"], bert["intermediate_size"]
    shapes = {f"embeddings.{k}_embeddings.weight": (bert[size], d) for k, size in
              (("word", "vocab_size"), ("position", "max_position_embeddings"), ("token_type", "type_vocab_size"))}
    shapes |= {"embeddings.LayerNorm.weight": (d,), "embeddings.LayerNorm.bias": (d,)}
    for i in range(bert["num_hidden_layers"]):
        p = f"encoder.layer.{i}."
        dense = {"attention.self.query": (d, d), "attention.self.key": (d, d), "attention.self.value": (d, d),
                 "attention.output.dense": (d, d), "intermediate.dense": (inner, d), "output.dense": (d, inner)}
        for name, shape in dense.items():
            shapes |= {p + name + ".weight": shape, p + name + ".bias": shape[:1]}
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes |= {p + name + ".weight": (d,), p + name + ".bias": (d,)}
    return shapes | {POOLER[0]: (d, d), POOLER[1]: (d,)}


def attention_and_types(text):
    """The rows of [B, 3, T] that say which tokens are attended and their segments: row 1 and row 2, unless row 2 sums to more."""
    first, second = text[:, 1], text[:, 2]
    return (first, second) if second.sum() == 0 or first.sum() >= second.sum() else (second, first)


def layer_norm(x, gain, shift, eps):
    centered = x - x.mean(-1, keepdim=True)
    return centered / torch.sqrt(centered.square().mean(-1, keepdim=True) + eps) * gain + shift


def gelu(x):
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def self_attention(x, attended, dense, heads):
    """Softmax over the attended keys only; a clip without any attended token mixes nothing: zeros."""
    query, key, value = (dense(x, f"attention.self.{n}").unflatten(2, (heads, -1)) for n in ("query", "key", "value"))
    score = torch.einsum("bqhe,bkhe->bhqk", query, key) / math.sqrt(query.shape[3])
    keys = attended[:, None, None]
    some = keys.any(3, keepdim=True)
    share = score.masked_fill(some & ~keys, -math.inf).softmax(3) * some
    return torch.einsum("bhqk,bkhe->bqhe", share, value).flatten(2)


def hidden_states(weights, bert, ids, attention, types):
    """The embeddings' and every layer's output, each [B, T, d]; the last one is what a network reads."""
    eps, attended = bert.get("layer_norm_eps", 1e-12), attention != 0
    word = weights["embeddings.word_embeddings.weight"]
    pad = bert.get("pad_token_id", 0)
    rows = word[ids]
    if pad is not None:                                            # the padding token's row learns nothing
        rows = torch.where((ids == pad)[..., None], rows.detach(), rows)
    x = rows + weights["embeddings.token_type_embeddings.weight"][types]
    x = x + weights["embeddings.position_embeddings.weight"][:ids.shape[1]]
    x = layer_norm(x, weights["embeddings.LayerNorm.weight"], weights["embeddings.LayerNorm.bias"], eps)
    states = [x]
    for i in range(bert["num_hidden_layers"]):
        w = {k.removeprefix(f"encoder.layer.{i}."): v for k, v in weights.items() if k.startswith(f"encoder.layer.{i}.")}
        def dense(y, name):
            return y @ w[name + ".weight"].T + w[name + ".bias"]
        def norm(y, name):
            return layer_norm(y, w[name + ".LayerNorm.weight"], w[name + ".LayerNorm.bias"], eps)
        mixed = self_attention(x, attended, dense, bert["num_attention_heads"])
        x = norm(x + dense(mixed, "attention.output.dense"), "attention.output")
        x = norm(x + dense(gelu(dense(x, "intermediate.dense")), "output.dense"), "output")
        states.append(x)
    return states


# ---- files ----------------------------------------------------------------------------------------------------------
def older_names(weights):
    """The other style of a checkpoint: `bert.` in front, LayerNorm gamma and beta."""
    def rename(name):
        return "bert." + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
    return {rename(n): w for n, w in weights.items()}


def unused_tensors(bert, rng):
    """What checkpoints carry beside the encoder: heads of the pre-training and the numbers of the positions."""
    d, vocab = bert["hidden_size"], bert["vocab_size"]
    shapes = {"cls.predictions.bias": (vocab,), "cls.predictions.transform.dense.weight": (d, d), "cls.seq_relationship.weight": (2, d)}
    extra = {n: torch.from_numpy(rng.standard_normal(s).astype("float32")) for n, s in shapes.items()}
    return extra | {"bert.embeddings.position_ids": torch.arange(bert["max_position_embeddings"])[None].contiguous()}
