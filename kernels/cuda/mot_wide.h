// The complete graph of three where a problem is too large for one block: every product and every
// sum is a launch of many blocks, decisions are a block's of each problem, and what has nothing to
// do returns at once. The host only counts sweeps.
#pragma once

#include "kernels/cuda/mot_launch.h"

namespace decalign::inline DECALIGN_REAL::mot_block {

/// What launches hand on of a problem, at the end of its memory.
struct Control {
  int64_t updates;  // of single modalities, done so far
  double epsilon, heat;
  int start, ready, done;
  int pending;  // of the two updates of a launch, those that the plain sum has to do
  int absorb;   // the potentials are to be absorbed anew; 2: X is to be built
};
static_assert(sizeof(Control) <= kControl * sizeof(double));

/// A part of the batch, a slot of scratch each.
struct Wide {
  const real *cost, *marginals;
  double* state;  // null: not of every sweep
  real* pairs;    // null: not wanted
  int64_t first;  // problem of the first slot
};

/// A slot's problem as the last launch left it.
struct Slot : Paired {
  Control& control;
  int64_t problem;

  __device__ Slot(const Sizes& sizes, const Wide& w, int slot)
      : Paired(sizes, sizes.scratch + slot * sizes.each),
        control(*reinterpret_cast<Control*>(sizes.scratch + (slot + 1) * sizes.each - kControl)),
        problem(w.first + slot) {
    cost = w.cost + problem * z.c;
    D = nullptr;
  }
  __device__ void resume() {
    epsilon = control.epsilon, heat = control.heat;
    scale = 1 / epsilon;
    start = control.start, ready = control.ready;
    touched = int(min(control.updates, int64_t(3)));
  }
};

/// Queues the solve of the part's problems up to their plan.
void wide_sweeps(const Cuda& be, const Sizes& z, const Wide& w, int slots);
/// Queues what leads to the plan of the potentials in `state`, of which `report` knows.
void wide_plan(const Cuda& be, const Sizes& z, const Wide& w, const double* state,
               const real* report, int slots);
/// f(sizes, part, problems) for the parts of the batch.
template <class F>
void for_parts(const Cuda& be, const MotShape& s, Sizes z, Wide w, Scratch scratch, F&& f) {
  z.scratch = reinterpret_cast<double*>(scratch.data());
  const int64_t slots = blocks(be, s, false);
  for (w.first = 0; w.first < s.batch; w.first += slots)
    f(z, w, int(std::min(slots, s.batch - w.first)));
}

}  // namespace decalign::inline DECALIGN_REAL::mot_block
