// What global_norm and adam ask of their arguments, on every backend.
#pragma once

#include "kernels/adam.h"

namespace decalign::inline DECALIGN_REAL {

inline void check_global_norm(std::span<double> squared_norm, Scratch scratch,
                              size_t scratch_bytes) {
  expect(squared_norm.size() == 1, "global_norm: squared_norm must have one element");
  expect(scratch.size() >= scratch_bytes, "global_norm: scratch too small");
}

inline void check_adam_options(const AdamOptions& o, const AdamState* state) {
  expect(state != nullptr, "adam: no state");
  expect(o.beta1 >= 0 && o.beta1 < 1 && o.beta2 >= 0 && o.beta2 < 1 && o.eps >= 0 &&
             o.weight_decay >= 0 && o.clip >= 0,
         "adam: option out of range");
}

inline void check_adam_sizes(In gradient, InOut parameter, InOut m, InOut v) {
  expect(parameter.size() == gradient.size() && m.size() == gradient.size() &&
             v.size() == gradient.size(),
         "adam: gradient, parameter, m and v differ in size");
}

inline void check_adam(const AdamOptions& o, const AdamState* state, In gradient, InOut parameter,
                       InOut m, InOut v) {
  check_adam_options(o, state);
  check_adam_sizes(gradient, parameter, m, v);
}

inline void check_clipped_adam(std::span<const AdamGroup> groups, std::span<const AdamRange> ranges,
                               In gradient, InOut parameter, InOut m, InOut v, Scratch scratch,
                               size_t scratch_bytes) {
  for (const AdamGroup& group : groups) check_adam_options(group.options, group.state);
  check_adam_sizes(gradient, parameter, m, v);
  int64_t next = 0;
  for (const AdamRange& r : ranges) {
    expect(r.begin >= next && r.size >= 0 && r.size <= std::ssize(gradient) - r.begin,
           "adam: the ranges are not in order within the parameters");
    expect(r.group >= 0 && r.group < std::ssize(groups), "adam: a range's group is not there");
    next = r.begin + r.size;
  }
  expect(scratch.size() >= scratch_bytes, "adam: scratch too small");
}

}  // namespace decalign::inline DECALIGN_REAL
