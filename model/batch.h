// One batch on its way into the network.
#pragma once

#include <vector>

#include "kernels/types.h"

namespace decalign::inline DECALIGN_REAL {

/// One modality: x [B, steps, width], padded.
struct BatchModality {
  std::vector<real> x;
  int64_t steps = 0, width = 0;
  std::vector<int32_t> lengths;  ///< [B], each in [0, steps]; used with mask_source lengths
};

struct Batch {
  int64_t count = 0;                      ///< B
  std::vector<BatchModality> modalities;  ///< in the network's order, inactive ones too
  std::vector<real> labels;  ///< [B]; class indices in classification; empty without labels
};

}  // namespace decalign::inline DECALIGN_REAL
