// The loss terms of a training step, on the host.
#pragma once

#include <array>
#include <cmath>

#include "model/network.h"

namespace decalign::inline DECALIGN_REAL {

/// total, task, decoupling, heterogeneous, homogeneous, contrastive; then the transported mass.
inline constexpr size_t kStepLosses = 7;

struct StepLosses {
  std::array<double, kStepLosses> values{};
  bool transported = false;  ///< whether there was a transport

  double total() const { return values[0]; }
  double mass() const { return values[6]; }

  /// Null if the total is finite, else the first term that is not.
  const char* not_finite() const {
    constexpr const char* kNames[] = {"total",         "task",        "decoupling",
                                      "heterogeneous", "homogeneous", "contrastive"};
    if (std::isfinite(values[0])) return nullptr;
    for (size_t i = 1; i < std::size(kNames); ++i)
      if (!std::isfinite(values[i])) return kNames[i];
    return kNames[0];
  }
};

/// Where a step's terms are on the device, in the order of StepLosses; an empty span for none.
inline std::array<In, kStepLosses> step_terms(const Result& r) {
  return {r.total.value,
          r.task.value,
          r.dec.value,
          r.hete.value,
          r.homo.value,
          r.ct.value,
          r.transport.empty() ? In{} : In(r.transport).first(1)};
}

}  // namespace decalign::inline DECALIGN_REAL
