"""The alignment losses of reference.py: decoupling, prototypes with their transport and calibration, moments and MMD."""
import math
from itertools import combinations, permutations

import torch


# ---- alignment of the unique parts ----------------------------------------------------------------------------------
def decoupling(s, c, cfg):
    s, c = s.flatten(1), c.flatten(1)
    cosine = (s * c).sum(1) / (s.norm(dim=1).clamp(min=1e-8) * c.norm(dim=1).clamp(min=1e-8))
    return cosine.mean() if cfg["dec_loss"] == "cos_sum" else cosine.square().mean()


def start_rows(batch, k):
    """Rows of the batch that the mixture's means start from."""
    if batch < k:
        return [i % batch for i in range(k)]
    return torch.linspace(0, batch - 1, k).round().long().tolist()


def responsibilities(x, share, mean, var):
    log_density = -0.5 * (((x[:, None] - mean).square() / var) + var.log() + math.log(2 * math.pi)).sum(2)
    return (share.clamp(min=1e-8).log() + log_density).softmax(1)


def fit_mixture(x, cfg):
    """Diagonal Gaussian mixture by EM; returns means [K, d], variances [K, d], posteriors [B, K]."""
    k, floor = cfg["num_prototypes"], cfg["gmm_var_floor"]
    mean = x[start_rows(len(x), k)]
    var = x.var(0, correction=0).clamp(min=floor).expand(k, -1)
    share = x.new_full((k,), 1 / k)
    for _ in range(cfg["gmm_em_iters"]):
        post = responsibilities(x, share, mean, var)
        mass = post.sum(0).clamp(min=1e-6)
        share = mass / len(x)
        mean = post.T @ x / mass[:, None]
        var = (post.T @ x.square() / mass[:, None] - mean.square()).clamp(min=floor)
    return mean, var, responsibilities(x, share, mean, var)


def over_width(x, cfg):
    return x.sum(-1) if cfg["hetero_cost_reduction"] == "sum" else x.mean(-1)


def prototype_cost(p, q, cfg):
    (mean_p, var_p, _), (mean_q, var_q, _) = p, q
    vp, vq = var_p[:, None], var_q[None]
    shift = (mean_p[:, None] - mean_q[None]).square()
    return over_width(shift, cfg) + over_width(vp + vq - 2 * (vp * vq + 1e-8).sqrt(), cfg)


def along(vector, axis, rank):
    """The vector as a tensor of this rank that varies along one axis."""
    return vector.reshape([-1 if i == axis else 1 for i in range(rank)])


def others_than(axis, rank):
    return [i for i in range(rank) if i != axis]


def transport_clamped(cost, marginals, cfg):
    """Plan of the release: kernel, scalings and divisions with the release's clamps."""
    rank = cost.dim()
    kernel = (-cost / max(cfg["lambda_ot"], 1e-6)).exp().clamp(min=1e-30)
    scale = [torch.ones_like(nu) for nu in marginals]
    def product(skip=None):
        out = kernel
        for i in range(rank):
            if i != skip:
                out = out * along(scale[i], i, rank)
        return out
    for _ in range(cfg["ot_num_iters"]):
        for i in range(rank):
            scale[i] = marginals[i] / (product(i).sum(others_than(i, rank)) + 1e-8)
    return product()


def transport_log(cost, marginals, cfg):
    """Potentials and log plan of log-domain sweeps that start at zero."""
    rank, eps = cost.dim(), max(cfg["lambda_ot"], 1e-6)
    potential = [torch.zeros_like(nu) for nu in marginals]
    def log_plan(skip=None):
        out = -cost
        for i in range(rank):
            if i != skip:
                out = out + along(potential[i], i, rank)
        return out / eps
    for _ in range(cfg["ot_num_iters"]):
        for i in range(rank):
            potential[i] = eps * (marginals[i].log() - log_plan(i).logsumexp(others_than(i, rank)))
        plan = log_plan().detach().exp()
        if sum((plan.sum(others_than(i, rank)) - nu).abs().sum() for i, nu in enumerate(marginals)) <= cfg["ot_tolerance"]:
            break
    return potential, log_plan()


def transport_loss(cost, marginals, cfg):
    eps, minus = cfg["lambda_ot"], float(cfg["ot_entropy"] == "log_minus_one")
    if cfg["sinkhorn"] == "release":
        plan = transport_clamped(cost, marginals, cfg)
        return (plan * cost).sum() + eps * (plan * (plan.clamp(min=1e-8).log() - minus)).sum()
    if cfg["ot_gradient"] == "unrolled":
        _, log_plan = transport_log(cost, marginals, cfg)
        plan = log_plan.exp()
        return (plan * cost).sum() + eps * (plan * (log_plan - minus)).sum()
    with torch.no_grad():
        potential, log_plan = transport_log(cost, marginals, cfg)
        plan = log_plan.exp()
        value = (plan * cost).sum() + eps * (plan * (log_plan - minus)).sum()
    slope = (plan * cost).sum() + sum((f * nu).sum() for f, nu in zip(potential, marginals))
    return value + slope - slope.detach()


def hetero_loss(points, cfg):
    """points: pooled unique features per modality, each [B, d]."""
    rank = len(points)
    fits = [fit_mixture(x, cfg) for x in points]
    marginals = [post.mean(0) for _, _, post in fits]
    marginals = [nu / nu.sum().clamp(min=1e-8) for nu in marginals]
    joint = 0
    for i, j in combinations(range(rank), 2):
        pair = prototype_cost(fits[i], fits[j], cfg)
        joint = joint + pair.reshape([pair.shape[0] if a == i else pair.shape[1] if a == j else 1 for a in range(rank)])
    local = []
    for i, j in permutations(range(rank), 2):
        gap = (points[i][:, None] - fits[j][0]).square()
        if cfg["local_proto_mahalanobis"]:
            gap = gap / fits[j][1].clamp(min=cfg["gmm_var_floor"])
        local.append((fits[i][2] * over_width(gap, cfg)).sum(1).mean())
    calibration = sum(local) if cfg["proto_reduction"] == "sum" else sum(local) / len(local)
    return transport_loss(joint, marginals, cfg) + calibration


# ---- alignment of the common parts ----------------------------------------------------------------------------------
def moments(z):
    mean = z.mean(0)
    c = z - mean
    cov = c.T @ c / max(len(z) - 1, 1)
    skew = (c ** 3).mean(0) / c.square().mean(0).clamp(min=1e-6) ** 1.5
    return mean, cov, skew


def mean_kernel(x, y, cfg):
    return (-(x[:, None] - y[None]).square().sum(2) / (2 * cfg["mmd_bandwidth"])).exp().mean()


def homo_loss(points, cfg):
    """points: distribution codes per modality, each [B, pde_dim]."""
    total = 0
    pairs = list(combinations(points, 2))
    for x, y in pairs:
        gaps = [(a - b).square() for a, b in zip(moments(x), moments(y))]
        moment = sum(g.sum() for g in gaps) / 2 if cfg["moment_loss"] == "sum" else sum(g.mean() for g in gaps)
        total = total + moment + mean_kernel(x, x, cfg) + mean_kernel(y, y, cfg) - 2 * mean_kernel(x, y, cfg)
    return total / len(pairs)
