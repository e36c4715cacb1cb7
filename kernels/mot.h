// Entropic multi-marginal optimal transport (MOT) over a graph of pair costs, at any size.
#pragma once

#include "kernels/backend.h"

namespace decalign::inline DECALIGN_REAL {

/// Which pairs of modalities have a cost. The order of the pairs is that of the cost array.
enum class CostGraph {
  complete,  ///< all i < j, lexicographic
  star,      ///< (0, 1), (0, 2), ..
  chain,     ///< (0, 1), (1, 2), ..
  tree       ///< MotShape::edges
};
struct MotEdge {
  int64_t first = 0, second = 0;  ///< cost [k_first, k_second]
};

enum class MotValue {
  dual,   ///< sum_m <f_m, a_m> - epsilon sum T: wrong by the square of the distance to the optimum
  primal  ///< <T, C> + epsilon sum T (log T - 1): wrong by the distance
};
enum class MotGradient {
  converged,  ///< of the optimum: envelope theorem (value), implicit function theorem (pairs)
  unrolled    ///< exact, through every sweep that was done
};

/// At most so many: the walks over a tree go as deep as it is.
constexpr int64_t kMotModalities = 4096;

struct MotOptions {
  double epsilon = 0.1;      ///< entropic regularisation, > 0, in units of the cost
  int64_t max_sweeps = 50;   ///< >= 0; those at larger epsilon count
  double tolerance = 0;      ///< stop at this L1 marginal error; 0: always max_sweeps
  int64_t halvings = 0;      ///< start at epsilon 2^halvings, halved after every three sweeps
  int64_t newton_steps = 0;  ///< at most so many damped Newton steps follow the sweeps
  MotValue value = MotValue::dual;
  MotGradient gradient = MotGradient::converged;
};

struct MotShape {
  int64_t batch = 1, modalities = 0, components = 0;  ///< B >= 0 problems, 2 <= M <= 4096, K >= 1
  CostGraph graph = CostGraph::complete;
  std::span<const MotEdge> edges = {};  ///< tree: M - 1, connected, in any order; else empty
  MotOptions options = {};

  int64_t pairs() const {
    return graph == CostGraph::complete ? modalities * (modalities - 1) / 2 : modalities - 1;
  }
};

/// min over T >= 0 with marginals a_m of <T, C> + epsilon sum T (log T - 1), where
/// C(k_1 .. k_M) = sum over the graph's pairs of C_ij(k_i, k_j).   (Benamou et al. 2015, sec. 4)
///
/// T = exp((f_1 + .. + f_M - C) / epsilon). f starts at 0; a sweep updates modality 0, 1, ..
/// (star, chain, tree: depth first from 0), each with the newest others:
///   f_m = epsilon log a_m - epsilon log sum over the others of exp((sum of other f - C) / epsilon)
/// in the log domain (absorption, Schmitzer 2019, sec. 3), finite for every epsilon; one below
/// 1e-13 of a problem's largest |cost| is raised to that, where the cost's rounding would swamp it.
/// No array of K^M: complete M = 3 takes 1.5 matrix products of K^3 multiply-adds a sweep, trees 2
/// (M - 1) messages of K^2 exponentials, complete M >= 4 M K^{M-3} products. In the float build
/// products of complete M = 3 with K >= 48 are in float unless the tolerance is below 1e-5 or
/// Newton steps are wanted; everything else is in double.
///
///   cost [B, pairs, K, K];  marginals [B, M, K] >= 0, of equal sums. An entry 0 carries no mass
///   (0 log 0 = 0) and gets gradient 0.
///   state [mot_state_size]: (f - epsilon log a) / epsilon, for the way back
///   value [B];  pairs [B, pairs, K, K]: T summed over all but two modalities, or empty: skipped
///   report [B, 4]: mass of T, L1 marginal error (sum over m), sweeps done, Newton steps done
///
/// With a tolerance, complete M = 3 looks at the error after every second sweep, where it is free.
/// Newton: conjugate gradients on the Hessian of the dual, backtracking line search.
///
/// On a GPU everything is in double and nothing waits for the host. A problem is a block's, but for
/// large complete M = 3, whose sweeps and plan are many blocks'; Newton steps, dpairs and the
/// unrolled gradient stay with one. Complete M >= 4 is the plain sum there: M K^M exponentials a
/// sweep.
///
/// Throws std::invalid_argument for sizes out of range (on a GPU also for more than 2^30 costs of a
/// problem and, complete M >= 3, K^{M-1} above 2^30), a graph that is no tree, epsilon not finite
/// or <= 0, or a span that does not fit.
void mot_forward(const Cpu&, const MotShape&, In cost, In marginals, std::span<double> state,
                 Out value, Out pairs, Out report, Scratch);
void mot_forward(const Cuda&, const MotShape&, In cost, In marginals, std::span<double> state,
                 Out value, Out pairs, Out report, Scratch);

/// dvalue [B] and dpairs [B, pairs, K, K], either empty for 0; dcost, dmarginals, depsilon [B]
/// accumulate.
/// Converged: T of the state is taken for the optimum. dcost_ij = T_ij dvalue, dmarginals = f
/// dvalue, depsilon = sum T (log T - 1) dvalue; dpairs by conjugate gradients on the Hessian.
/// dmarginals are shifted to mean 0 under the marginal: a constant acts on no marginal of fixed
/// sum. Unrolled: the derivative of what ran; throws with halvings or Newton steps.
void mot_backward(const Cpu&, const MotShape&, In cost, In marginals, std::span<const double> state,
                  In report, In dvalue, In dpairs, InOut dcost, InOut dmarginals, InOut depsilon,
                  Scratch);
void mot_backward(const Cuda&, const MotShape&, In cost, In marginals,
                  std::span<const double> state, In report, In dvalue, In dpairs, InOut dcost,
                  InOut dmarginals, InOut depsilon, Scratch);

/// Elements of `state`: [B, M, K], unrolled [B, max_sweeps, M, K].
int64_t mot_state_size(const MotShape&);
/// Work space that either direction needs, in bytes.
size_t mot_scratch_bytes(const Cpu&, const MotShape&);
size_t mot_scratch_bytes(const Cuda&, const MotShape&);

}  // namespace decalign::inline DECALIGN_REAL
