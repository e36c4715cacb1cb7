// One transport problem with its memory, in double and in units of epsilon: cost C / epsilon,
// potentials phi = f / epsilon = log u, and log q = phi - log a, which is finite where a is 0.
//
// Everything that a gradient needs is a tilted plan, (constant + sum_m lambda_m + sum_e D_e) o T,
// summed onto the pairs of the graph. Three ways to sum: messages on a tree, matrix products on a
// complete graph, and the plain sum over all K^M elements, which no range of the cost defeats.
#pragma once

#include "kernels/check/mot.h"
#include "kernels/cpu/mot_vectors.h"
#include "kernels/cpu/parallel.h"

namespace decalign::inline DECALIGN_REAL::mot_detail {

constexpr double kNothing = -1e300;  // what stands for the logarithm of an empty sum's maximum

/// Hands out pieces of the caller's work space; with base null it only counts.
struct Arena {
  std::byte* base;
  size_t used = 0;

  template <class T>
  T* take(int64_t n) {
    const size_t at = used;
    used += (size_t(n) * sizeof(T) + 63) / 64 * 64;
    return base == nullptr ? nullptr : reinterpret_cast<T*>(base + at);
  }
};

constexpr double kSliceDrift = 30;

struct Tilt {
  double constant;
  const double* lambda;  // [M, ld] or null
  const double* D;       // [pairs, K, ld] or null
};

/// Messages along the edges of a tree: 2 e goes from edge e's first to its second modality, 2 e + 1
/// back. `links` of node b are the messages that arrive at b.
struct Tree {
  int64_t *order, *link_begin, *links;  // [M], [M + 1], [2 (M - 1)]
  bool* known;                          // [2 (M - 1)]
  double *mu, *nu;                      // [2 (M - 1), ld]: log message, its tilt
  double* work;                         // [4, ld]
};

/// A complete graph of M > 3: for every index tuple of the first M - 3 modalities a problem of
/// three (mot_slices.cpp), whose matrices absorb the potentials at the start of every sweep.
struct Slices {
  enum { unknown, ready, refused } range;
  double *absorbed, *u;  // [M, ld]: log q; a q / e^absorbed
  double* outer;         // [pairs, K, ld]: exp(absorbed potentials - C)
  double* work;          // [K + 2, slice_work()]
};

struct Problem {
  Cpu be;
  MotShape s;
  int64_t M, K, pairs, ld;  // ld: K rounded up to whole vectors of double
  bool complete;            // summed as a complete graph of three or more
  bool start = true;        // f = 0 still
  double epsilon;           // the options', raised where the cost's rounding would swamp it
  double heat = 1;          // epsilon over the epsilon of the moment
  double* cost;             // [pairs, K, ld] / epsilon; infinite in the columns beyond K
  double *a, *log_a;        // [M, ld]
  double *q, *phi;          // [M, ld]: log q, log u
  double *reached, *z, *lambda, *vectors;  // [M, ld], the last [6, M, ld]
  double *plan, *tilted, *D;               // [pairs, K, ld]
  double* stream;                          // work space of the plain sum
  void* paired;                            // matrices of three of a complete graph
  Slices slices;                           // more than three
  Tree tree;

  const double* cost_row(int64_t e, int64_t i) const { return cost + (e * K + i) * ld; }
  MotEdge edge(int64_t e) const { return mot_edge(s, e); }
  int64_t pair(int64_t i, int64_t j) const { return i * M - i * (i + 1) / 2 + j - i - 1; }
};

/// Threads for work of about this many elementary steps: a team costs more than a small problem.
inline Cpu team(const Problem& p, int64_t steps) { return steps >= 1 << 17 ? p.be : Cpu{1}; }

/// Cuts a problem from the arena.
Problem lay_out(const Cpu& be, const MotShape& s, Arena& arena);
/// Fills in cost and marginals; log q = 0.
void read_problem(Problem& p, const real* cost, const real* marginals);
/// All potentials are new: what was derived from them is void.
void potentials_changed(Problem& p);
/// phi = log a + log q.
void update_phi(Problem& p);

/// log of sum over all modalities but m of exp(sum of their phi - C), -inf for an empty sum.
void log_contraction(Problem& p, int64_t m, double* out);
/// The tilted plan's pair sums, sums [pairs, K, ld].
void tilt(Problem& p, const Tilt& t, double* sums);
/// Modality sums [M, ld] of what has these pair sums.
void modality_sums(const Problem& p, const double* sums, double* out);
/// sum_m |reached - a|_1
double marginal_error(const Problem& p, const double* reached);
/// Modality m has a new log q: sets it and phi from the log contraction.
void set_potential(Problem& p, int64_t m, const double* log_sum);

void tree_prepare(Problem& p);
void tree_forget(const Tree& t, int64_t M);
/// phi_m has changed.
void tree_changed(const Problem& p, int64_t m);
void tree_contraction(const Problem& p, int64_t m, double* out);
void tree_tilt(const Problem& p, const Tilt& t, double* sums);

int64_t stream_size(const MotShape& s);
void stream_contraction(const Problem& p, int64_t m, double* out);
void stream_tilt(const Problem& p, const Tilt& t, double* sums);

/// False if the range of the products does not do.
bool slices_contraction(Problem& p, int64_t m, double* out);
bool slices_tilt(Problem& p, const Tilt& t, double* sums);
int64_t slice_work(const MotShape& s);

/// Complete graph of three by matrix products (mot_paired.h).
size_t paired_bytes(const MotShape& s);
/// At most so many sweeps; returns how many. log q of each goes to store [sweeps, M, K] unless
/// null.
int64_t paired_sweeps(Problem& p, int64_t sweeps, double tolerance, double* store);
/// False if no range does.
bool paired_tilt(Problem& p, const Tilt& t, double* sums);
/// Back through `sweeps` sweeps, log q in state [sweeps, M, K]: from d/dphi [M, ld] of the last to
/// d/dC [pairs, K, ld] and d/da [M, ld], which accumulate.
void paired_unroll(Problem& p, const double* state, int64_t sweeps, double* dphi, double* dcost,
                   double* da);
void unroll(Problem& p, const double* state, int64_t sweeps, double* dphi, double* dcost,
            double* da);
/// q and phi of sweep t's end, of modalities beyond `last` those of sweep t - 1.
void load_state(Problem& p, const double* state, int64_t t, int64_t last);
/// One update's way back by a tilt: d/dphi_m is used up.
void update_backward(Problem& p, int64_t m, double* dphi, double* dcost, double* da);
/// sum over k of y / a, 0 where a is 0: d/d log of the contraction that an update divides by.
inline double over_marginal(const Problem& p, int64_t m, int64_t k, double d) {
  const double a = p.a[m * p.ld + k];
  return a > 0 ? d / a : 0;
}

/// Solves (H + damping diag H) x = b, H the Hessian of the dual, for [M, ld] vectors; the plan's
/// pair sums are in p.plan, its modality sums in p.reached.
void solve_hessian(Problem& p, double damping, double* b, double* x);
/// Damped Newton steps; returns how many. Leaves the plan and its sums in p.plan, p.reached.
int64_t newton(Problem& p, int64_t steps, double tolerance, double& error);

}  // namespace decalign::inline DECALIGN_REAL::mot_detail
