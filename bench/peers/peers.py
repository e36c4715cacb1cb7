"""What bench/peers/kernels.py times: the peers' way to the same outputs, and the references in double."""
import time

import numpy as np

# kernel: library: how a row calls it. A library that is not named here has no such operation.
LABELS = {
    "mmd": {"torch": "PyTorch, cdist", "geomloss": "GeomLoss", "keops": "GeomLoss on KeOps"},
    "moments": {"torch": "PyTorch"},
    "mot": {"torch": "PyTorch, dense", "ott": "OTT-JAX, forward"},
    "bures": {"torch": "PyTorch, eigh", "ott": "OTT-JAX, forward", "pot": "POT, on PyTorch"},
    "sqrtm": {"torch": "PyTorch, eigh"},
    "gmm": {"torch": "PyTorch, products", "sklearn": "scikit-learn"},
}


class Peer:
    """One library in this process."""

    def __init__(self, name, device, threads):
        self.name, self.device, self.wait = name, device, lambda: None
        if name != "ott" and name != "sklearn":
            import torch
            torch.set_num_threads(threads)
            if device == "cuda":
                self.wait = torch.cuda.synchronize

    def run(self, kernel, inputs, options, repeats):
        """Milliseconds of `repeats` runs after a first one, and the outputs by name."""
        run, outputs = globals()[f"{self.name}_{kernel}"](inputs, options, self.device)
        ms = []
        for _ in range(repeats + 1):
            start = time.perf_counter()
            result = run()
            self.wait()
            ms.append(1e3 * (time.perf_counter() - start))
        return ms[1:], {k: np.asarray(v.detach().cpu() if hasattr(v, "detach") else v) for k, v in outputs(result).items()}


def tensors(inputs, device, *grads):
    import torch
    return {k: torch.tensor(v, device=device, requires_grad=k in grads) for k, v in inputs.items()}


# ---- maximum mean discrepancy -------------------------------------------------------------------------------------------------
def torch_mmd_value(t):
    import torch

    def mean_kernel(a, b):
        distance = torch.cdist(a, b).square()
        return sum(w * torch.exp(distance / (-2 * width)).mean() for width, w in zip(t["bandwidths"], t["weights"]))
    return mean_kernel(t["x"], t["x"]) + mean_kernel(t["y"], t["y"]) - 2 * mean_kernel(t["x"], t["y"])


def torch_mmd(inputs, options, device):
    import torch
    t = tensors(inputs, device, "x", "y")

    def run():
        value = torch_mmd_value(t)
        return (value, *torch.autograd.grad(value, (t["x"], t["y"])))
    return run, lambda r: {"value": r[0].reshape(1), "dx": r[1], "dy": r[2]}


def geomloss_mmd(inputs, options, device, backend="tensorized"):
    import geomloss
    import torch
    t = tensors(inputs, device, "x", "y")
    losses = [(2 * float(w), geomloss.SamplesLoss("gaussian", blur=float(b) ** 0.5, backend=backend)) for b, w in zip(inputs["bandwidths"], inputs["weights"])]

    def run():
        value = sum(w * loss(t["x"], t["y"]) for w, loss in losses)    # GeomLoss halves the square
        return (value, *torch.autograd.grad(value, (t["x"], t["y"])))
    return run, lambda r: {"value": r[0].reshape(1), "dx": r[1], "dy": r[2]}


def keops_mmd(inputs, options, device):
    return geomloss_mmd(inputs, options, device, "online")


def reference_mmd(inputs, options, rows=256):
    x, y = (inputs[k].astype(np.float64) for k in "xy")
    widths, weights = (inputs[k].astype(np.float64) for k in ("bandwidths", "weights"))
    value, gradients = 0.0, []
    for own, other in ((x, y), (y, x)):
        gradient = np.zeros_like(own)
        for i in range(0, len(own), rows):
            for z, c in ((own, 1 / len(own) ** 2), (other, -1 / (len(own) * len(other)))):
                a = own[i:i + rows]
                distance = np.maximum((a ** 2).sum(1)[:, None] + (z ** 2).sum(1) - 2 * a @ z.T, 0)
                for width, w in zip(widths, weights):
                    k = c * w * np.exp(distance / (-2 * width))
                    value += k.sum()                              # between the samples: once from each
                    gradient[i:i + rows] += 2 / width * (k @ z - k.sum(1)[:, None] * a)
        gradients.append(gradient)
    return {"value": np.array([value]), "dx": gradients[0], "dy": gradients[1]}


# ---- moments --------------------------------------------------------------------------------------------------------------------
def torch_moments(inputs, options, device):
    import torch
    what, t = options.get("what", "forward"), tensors(inputs, device)
    x = t["x"]

    def statistics():
        mean = x.mean(0)
        y = x - mean
        square = y * y
        m2 = square.mean(0)
        return mean, square.sum(0) / (len(x) - 1), (square * y).mean(0) / m2 ** 1.5
    if what == "covariance":
        return (lambda: torch.cov(x.T)), lambda r: {"covariance": r}
    if what == "forward":
        return statistics, lambda r: dict(zip(("mean", "variance", "skewness"), r))
    x.requires_grad_()
    total = sum(s.sum() for s in statistics())                     # the way back alone is timed
    return (lambda: torch.autograd.grad(total, x, retain_graph=True)[0]), lambda r: {"dx": r}


def reference_moments(inputs, options):
    x, what = inputs["x"].astype(np.float64), options.get("what", "forward")
    n = len(x)
    mean = x.mean(0)
    x -= mean
    if what == "covariance":
        return {"covariance": x.T @ x / (n - 1)}
    m2 = (x * x).mean(0)
    skewness = (x * x * x).mean(0) / m2 ** 1.5
    if what == "forward":
        return {"mean": mean, "variance": m2 * n / (n - 1), "skewness": skewness}
    sigma = np.sqrt(m2)
    x /= sigma
    return {"dx": 1 / n + 2 * x * sigma / (n - 1) + 3 / (n * sigma) * (x * x - 1 - skewness * x)}


# ---- transport between three marginals --------------------------------------------------------------------------------------------
def dense_mot(cost, marginals, options, unrolled):
    """Value and transport by log-domain sweeps over the array of K^3, as one would write it down."""
    import torch
    epsilon = options["epsilon"]
    c = cost[0][:, :, None] + cost[1][:, None, :] + cost[2][None, :, :]
    f = [torch.zeros_like(marginals[m]) for m in range(3)]
    shapes, axes = ((-1, 1, 1), (1, -1, 1), (1, 1, -1)), ((1, 2), (0, 2), (0, 1))

    def logs():
        return (sum(f[m].reshape(shapes[m]) for m in range(3)) - c) / epsilon
    with torch.set_grad_enabled(unrolled):
        for _ in range(options["sweeps"]):
            for m in range(3):
                f[m] = f[m] + epsilon * (marginals[m].log() - torch.logsumexp(logs(), axes[m]))
    t = logs().exp()
    if options.get("primal"):
        return (t * c).sum() + epsilon * (t * (logs() - 1)).sum()
    return sum((f[m] * marginals[m]).sum() for m in range(3)) - epsilon * t.sum()


def torch_mot(inputs, options, device):
    import torch
    t = tensors(inputs, device, "cost")

    def run():
        value = dense_mot(t["cost"], t["marginals"], options, options.get("unrolled", False))
        return value, torch.autograd.grad(value, t["cost"])[0]
    return run, lambda r: {"value": r[0].reshape(1), "dcost": r[1]}


def ott_mot(inputs, options, device):
    import jax
    from ott.experimental import mmsinkhorn
    sweeps = options["sweeps"]
    points, marginals = tuple(map(jax.numpy.asarray, inputs["points"])), tuple(map(jax.numpy.asarray, inputs["marginals"]))
    solver = mmsinkhorn.MMSinkhorn(threshold=-1.0, min_iterations=sweeps, max_iterations=sweeps, inner_iterations=sweeps)

    @jax.jit
    def potentials(x, a):
        return solver(x, a, epsilon=options["epsilon"]).potentials

    def outputs(f):
        f = [np.asarray(p, np.float64) for p in f]
        c = inputs["cost"].astype(np.float64)
        t = np.exp((f[0][:, None, None] + f[1][:, None] + f[2] - c[0][:, :, None] - c[1][:, None] - c[2][None]) / options["epsilon"])
        if options.get("unrolled"):
            return {}                                              # no gradient through its sweeps is timed or compared
        dual = sum(p @ a.astype(np.float64) for p, a in zip(f, inputs["marginals"])) - options["epsilon"] * t.sum()
        return {"value": np.array([dual]), "dcost": np.stack([t.sum(2), t.sum(1), t.sum(0)])}
    return (lambda: jax.block_until_ready(potentials(points, marginals))), outputs


def reference_mot(inputs, options):
    import torch
    cost = torch.tensor(inputs["cost"].astype(np.float64), requires_grad=True)
    value = dense_mot(cost, torch.tensor(inputs["marginals"].astype(np.float64)), options, options.get("unrolled", False))
    return {"value": value.detach().numpy().reshape(1), "dcost": torch.autograd.grad(value, cost)[0].numpy()}


# ---- Bures-Wasserstein, square roots --------------------------------------------------------------------------------------------------
def eigh_powers(s, *powers):
    import torch
    values, vectors = torch.linalg.eigh(s)
    return [(vectors * values.clamp(min=0)[..., None, :] ** p) @ vectors.transpose(-1, -2) for p in powers]


def torch_bures(inputs, options, device):
    import torch
    s = tensors(inputs, device, "covariances")["covariances"]

    def run():
        a, b = s[0], s[1]
        root, = eigh_powers(a, 0.5)
        inner = torch.linalg.eigvalsh(root @ b @ root).clamp(min=0).sqrt().sum(-1)
        cost = a.diagonal(dim1=-2, dim2=-1).sum(-1) + b.diagonal(dim1=-2, dim2=-1).sum(-1) - 2 * inner
        return cost, torch.autograd.grad(cost.sum(), s)[0]
    return run, lambda r: {"cost": r[0], "dcovariances": r[1]}


def pot_bures(inputs, options, device):
    import ot
    import torch
    s = tensors(inputs, device, "covariances")["covariances"]
    zero = torch.zeros(s.shape[1], s.shape[-1], device=device)

    def run():
        cost = torch.stack([ot.gaussian.bures_wasserstein_distance(zero[0], zero[0], a, b) ** 2 for a, b in zip(s[0], s[1])])
        return cost, torch.autograd.grad(cost.sum(), s)[0]
    return run, lambda r: {"cost": r[0], "dcovariances": r[1]}


def ott_bures(inputs, options, device):
    import jax
    from ott.geometry import costs
    s = jax.numpy.asarray(inputs["covariances"])
    d = s.shape[-1]
    cost = costs.Bures(dimension=d)

    def value(a, b):
        zero = jax.numpy.zeros(d)
        return cost(jax.numpy.concatenate([zero, a.ravel()]), jax.numpy.concatenate([zero, b.ravel()]))

    def outputs(r):
        if s.shape[1] > 16:                                        # gradients are not timed: they compile for minutes
            return {"cost": r}
        slopes = np.stack([jax.grad(value, (0, 1))(a, b) for a, b in zip(s[0], s[1])], 1)
        return {"cost": r, "dcovariances": (slopes + slopes.swapaxes(-1, -2)) / 2}
    run = jax.jit(jax.vmap(value))
    return (lambda: jax.block_until_ready(run(s[0], s[1]))), outputs


def reference_bures(inputs, options):
    """With S = L L^T and the polar factor Q of L1^T L2: |L2 - L1 Q|^2, d/dS1 = (L1 - L2 Q^T) L1^-1, d/dS2 = (L2 - L1 Q) L2^-1, which
    lose no digits where the two are close."""
    l1, l2 = np.linalg.cholesky(inputs["covariances"].astype(np.float64))
    u, _, v = np.linalg.svd(l1.swapaxes(-1, -2) @ l2)
    q = u @ v
    apart = l2 - l1 @ q
    slopes = np.stack([(l1 - l2 @ q.swapaxes(-1, -2)) @ np.linalg.inv(l1), apart @ np.linalg.inv(l2)])
    return {"cost": (apart ** 2).sum((-1, -2)), "dcovariances": (slopes + slopes.swapaxes(-1, -2)) / 2}


def torch_sqrtm(inputs, options, device):
    import torch
    t = tensors(inputs, device, "a")
    powers, names = ((0.5, -0.5), ("root", "inverse")) if options.get("inverse") else ((0.5,), ("root",))

    def run():
        roots = eigh_powers(t["a"], *powers)
        return (*roots, torch.autograd.grad(roots[0], t["a"], t["droot"])[0])
    return run, lambda r: dict(zip((*names, "da"), r))


def reference_sqrtm(inputs, options):
    """The root's gradient X solves r X + X r = G."""
    values, vectors = np.linalg.eigh(inputs["a"].astype(np.float64))
    roots = np.sqrt(values)[..., None, :]
    turned = vectors.swapaxes(-1, -2)
    slope = turned @ inputs["droot"].astype(np.float64) @ vectors / (roots + roots.swapaxes(-1, -2))
    found = {"root": (vectors * roots) @ turned, "da": vectors @ slope @ turned}
    return found | ({"inverse": (vectors / roots) @ turned} if options.get("inverse") else {})


# ---- Gaussian mixtures: one step from the release's start -----------------------------------------------------------------------------
def gmm_start(x, options):
    """Rows round(linspace(0, N - 1, K)), equal weights, the sample's own spread."""
    n, k = len(x), options["components"]
    means = x[np.rint(np.linspace(0, n - 1, k)).astype(int)]
    if not options.get("full"):
        return means, np.repeat(np.maximum(x.var(0), 1e-4)[None], k, 0), 0.0
    ridge = 1e-3 * x.var(0).mean() + 1e-4
    covariance = np.cov(x.T, bias=True) + ridge * np.eye(x.shape[1])
    return means, np.repeat(covariance[None], k, 0), ridge


def torch_gmm(inputs, options, device):
    """Diagonal: one product of [x^2, x]. Full: a triangular solve and two products a component."""
    import torch
    x = tensors(inputs, device)["x"]
    means, spread, ridge = (torch.as_tensor(v, dtype=x.dtype, device=device) for v in gmm_start(inputs["x"], options))
    k, eye, both = options["components"], torch.eye(x.shape[1], device=device), torch.cat([x * x, x], 1)
    full = bool(options.get("full"))

    def logits(weights, mean, s):
        if not full:
            slopes = torch.cat([-0.5 / s, mean / s], 1)
            return torch.addmm(weights.log() - 0.5 * (mean ** 2 / s + s.log()).sum(1), both, slopes.T)
        factors = torch.linalg.cholesky(s)
        inverses = torch.linalg.solve_triangular(factors, eye.expand_as(factors), upper=False)
        columns = [-0.5 * ((x - m) @ w.T).square().sum(1) for m, w in zip(mean, inverses)]
        return torch.stack(columns, 1) + weights.log() - factors.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def run():
        weights, mean, s = torch.full((k,), 1 / k, device=device), means, spread
        for _ in range(options["iterations"]):
            gamma = torch.softmax(logits(weights, mean, s), 1)
            count = gamma.sum(0)
            weights = count / len(x)
            if full:
                mean = gamma.T @ x / count[:, None]
                centred = [x - m for m in mean]
                s = torch.stack([(gamma[:, c, None] * y).T @ y / count[c] for c, y in enumerate(centred)]) + ridge * eye
            else:
                square, mean = (gamma.T @ both / count[:, None]).split(x.shape[1], 1)
                s = (square - mean ** 2).clamp(min=1e-4)
        return weights, mean, s
    return run, lambda r: dict(zip(("weights", "means", "covariances"), r))


def sklearn_gmm(inputs, options, device):
    from sklearn.mixture import GaussianMixture
    from sklearn.mixture._gaussian_mixture import _compute_precision_cholesky
    x, k = inputs["x"], options["components"]
    full = bool(options.get("full"))
    means, spread, ridge = gmm_start(x.astype(np.float64), options)
    kind = "full" if full else "diag"
    mixture = GaussianMixture(k, covariance_type=kind, reg_covar=ridge)
    factors = _compute_precision_cholesky(spread, kind)

    def run():
        mixture.weights_, mixture.means_, mixture.covariances_, mixture.precisions_cholesky_ = np.full(k, 1 / k), means, spread, factors
        for _ in range(options["iterations"]):
            _, log_gamma = mixture._e_step(x)
            mixture._m_step(x, log_gamma)
        return mixture.weights_, mixture.means_, mixture.covariances_
    return run, lambda r: {"weights": r[0], "means": r[1], "covariances": r[2]}


def reference_gmm(inputs, options):
    x = inputs["x"].astype(np.float64)
    means, spread, ridge = gmm_start(x, options)
    k, full = options["components"], bool(options.get("full"))
    weights = np.full(k, 1 / k)
    for _ in range(options["iterations"]):
        logits = np.empty((len(x), k))
        for c in range(k):
            y = x - means[c]
            distance = np.einsum("ni,ni->n", y @ np.linalg.inv(spread[c]), y) if full else (y * y / spread[c]).sum(1)
            scale = np.linalg.slogdet(spread[c])[1] if full else np.log(spread[c]).sum()
            logits[:, c] = np.log(weights[c]) - 0.5 * (distance + scale)
        gamma = np.exp(logits - logits.max(1, keepdims=True))
        gamma /= gamma.sum(1, keepdims=True)
        count = np.maximum(gamma.sum(0), 1e-6)
        weights, means = count / len(x), gamma.T @ x / count[:, None]
        if full:
            spread = np.stack([(gamma[:, c:c + 1] * (x - means[c])).T @ (x - means[c]) / count[c] + ridge * np.eye(x.shape[1]) for c in range(k)])
        else:
            spread = np.stack([np.maximum(gamma[:, c] @ (x - means[c]) ** 2 / count[c], 1e-4) for c in range(k)])
    return {"weights": weights, "means": means, "covariances": spread.reshape(k, -1)}


def reference(kernel, inputs, options):
    return globals()[f"reference_{kernel}"](inputs, options)
