// Entropic multi-marginal optimal transport over a complete graph of pair costs, as a dense array:
// the release's form, and sizes like the network's. kernels/mot.h has every graph and size.
#pragma once

#include "kernels/backend.h"

namespace decalign::inline DECALIGN_REAL {

enum class OtEntropy {
  log,           ///< sum T log T (paper)
  log_minus_one  ///< sum T (log T - 1) (release)
};
enum class OtGradient {
  unrolled,  ///< through every sweep
  envelope   ///< of the converged problem: dC_ij = pair marginal of T, dmarginals = potentials
};

struct SinkhornOptions {
  bool log_domain = false;
  OtEntropy entropy = OtEntropy::log_minus_one;
  OtGradient gradient = OtGradient::unrolled;
  double epsilon = 0.1;     ///< entropic regularisation, floored at 1e-6
  int64_t max_sweeps = 50;  ///< >= 0
  double tolerance = 0;     ///< log domain: stop at this L1 marginal error; 0: always max_sweeps
};

struct SinkhornShape {
  int64_t modalities = 0, components = 0;  ///< M >= 2, K >= 1, K^M <= 2^24
  SinkhornOptions options;
};

/// value = <T, C> + epsilon * entropy(T),  C(k_1 .. k_M) = sum over i < j of C_ij(k_i, k_j),
/// T = G u_1 x ... x u_M,  G = exp(-C / epsilon). u starts at 1; a sweep updates modalities 0, 1,
/// .., M - 1, each with the newest others.
///
///   Release form (log_domain false): G = max(exp(-C / epsilon), 1e-30), u_m = marginal_m * q_m
///   with q_m = 1 / (contraction of G with the others + 1e-8); the entropy takes log(max(T, 1e-8))
///   and the factor epsilon before its floor. A clamped element passes no gradient. Transported
///   mass is lost when C / epsilon exceeds about 60: read report[0].
///
///   Log domain: q_m = 1 / contraction, stored as its logarithm, with no clamps and no limit on
///   C / epsilon. The first sweep is a log-sum-exp about the maximum; later ones run on the kernel
///   with the potentials absorbed (Schmitzer 2019, sec. 3). A marginal entry of 0 carries no mass
///   (0 log 0 = 0) and gets gradient 0.
///
///   cost [M (M - 1) / 2, K, K], pairs in lexicographic order;  marginals [M, K], >= 0
///   scalings [max_sweeps, M, K], double: q (log domain: log q) after every sweep, kept for the
///   backward pass; only the sweeps done are written
///   value [1];  report [3]: transported mass, L1 marginal error (sum over m of |marginal of T -
///   marginals|_1), sweeps done
///
/// Cuda: one block solves the problem, in shared memory up to K^M of about 6000, beyond in scratch
/// (some tens of thousands of elements are still fine, millions are slow).
///
/// max_sweeps = 0: u = 1. Throws std::invalid_argument for sizes out of range, epsilon not finite,
/// or a span that does not fit.
void sinkhorn_forward(const Cpu&, const SinkhornShape&, In cost, In marginals,
                      std::span<double> scalings, Out value, Out report, Scratch);
void sinkhorn_forward(const Cuda&, const SinkhornShape&, In cost, In marginals,
                      std::span<double> scalings, Out value, Out report, Scratch);

/// dcost, dmarginals accumulate. Unrolled: the exact derivative of the forward pass as it ran (with
/// a tolerance: of the sweeps done). Envelope: T of the last sweep is taken for converged; dcost_ij
/// = pair marginal of T, dmarginals_m = epsilon log u_m, shifted to mean 0 under the marginal (a
/// constant acts on no normalised marginal); entries with u = 0 get 0.   dvalue [1]
/// The unrolled log domain's relative error grows like 1e-16 (C / epsilon)^2 on the CPU.
void sinkhorn_backward(const Cpu&, const SinkhornShape&, In cost, In marginals,
                       std::span<const double> scalings, In report, In dvalue, InOut dcost,
                       InOut dmarginals, Scratch);
void sinkhorn_backward(const Cuda&, const SinkhornShape&, In cost, In marginals,
                       std::span<const double> scalings, In report, In dvalue, InOut dcost,
                       InOut dmarginals, Scratch);

/// Work space that either direction needs, in bytes.
size_t sinkhorn_scratch_bytes(const Cpu&, const SinkhornShape&);
size_t sinkhorn_scratch_bytes(const Cuda&, const SinkhornShape&);

}  // namespace decalign::inline DECALIGN_REAL
