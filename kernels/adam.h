// Global-norm clipping and Adam.
#pragma once

#include "kernels/backend.h"

namespace decalign::inline DECALIGN_REAL {

struct AdamOptions {
  double beta1 = 0.9, beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0;  ///< coupled: added to the gradient
  double clip = 0;          ///< largest norm of all gradients together; 0: no clipping
};

/// What changes from step to step, in the backend's memory, so that a recorded step can be
/// replayed.
struct AdamState {
  double learning_rate = 0;
  int64_t step = 0;         ///< number of this step, counted from 1: see adam_advance
  double squared_norm = 0;  ///< of all gradients: see global_norm
};

/// squared_norm[0] = sum g^2 (add: += ), in double over fixed chunks: the same bits for every
/// number of threads.   g any length;  squared_norm [1], backend memory, usually
/// {&state->squared_norm, 1}
void global_norm(const Cpu&, In gradient, bool add, std::span<double> squared_norm, Scratch);
void global_norm(const Cuda&, In gradient, bool add, std::span<double> squared_norm, Scratch);
size_t global_norm_scratch_bytes(const Cpu&, int64_t n);
size_t global_norm_scratch_bytes(const Cuda&, int64_t n);

/// state->step += 1.
void adam_advance(const Cpu&, AdamState* state);
void adam_advance(const Cuda&, AdamState* state);

/// One Adam step (Kingma, Ba 2015; torch.optim.Adam) on a range of parameters, t = state->step >=
/// 1:
///   g = gradient * min(1, clip / (sqrt(squared_norm) + 1e-6)) + weight_decay * parameter
///   m = beta1 m + (1 - beta1) g,  v = beta2 v + (1 - beta2) g^2
///   parameter -= learning_rate / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
/// The gradient itself is left as it is. A second group of parameters with a learning rate of its
/// own has a state of its own and the same squared norm.
///
///   gradient, parameter, m, v of one length; state in backend memory
/// Throws std::invalid_argument for a null state, lengths that differ or options out of range; Cpu
/// for a step below 1, too.
void adam(const Cpu&, const AdamOptions&, const AdamState* state, In gradient, InOut parameter,
          InOut m, InOut v);
void adam(const Cuda&, const AdamOptions&, const AdamState* state, In gradient, InOut parameter,
          InOut m, InOut v);

/// Parameters that share options, with a state of their own in backend memory.
struct AdamGroup {
  AdamOptions options;
  AdamState* state = nullptr;
};

/// A run of parameters, and the group whose options are theirs.
struct AdamRange {
  int64_t begin = 0, size = 0, group = 0;
};

/// A whole step, two launches on a GPU: global_norm of all of `gradient` into every group's state,
/// adam_advance of every state, then adam on every range.
///
///   groups, ranges: host memory; ranges ascend and do not overlap;  gradient, parameter, m, v of
///   one length: what lies in no range counts in the norm and is left as it is
/// Throws std::invalid_argument as adam does, and for ranges out of order or beyond the end.
void clipped_adam(const Cpu&, std::span<const AdamGroup> groups, std::span<const AdamRange> ranges,
                  In gradient, InOut parameter, InOut m, InOut v, Scratch);
void clipped_adam(const Cuda&, std::span<const AdamGroup> groups, std::span<const AdamRange> ranges,
                  In gradient, InOut parameter, InOut m, InOut v, Scratch);
/// `n` parameters in all, `groups` groups.
size_t clipped_adam_scratch_bytes(const Cpu&, int64_t n, int64_t groups);
size_t clipped_adam_scratch_bytes(const Cuda&, int64_t n, int64_t groups);

}  // namespace decalign::inline DECALIGN_REAL
