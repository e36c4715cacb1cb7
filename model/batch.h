// One batch on its way into the network.
#pragma once

#include <vector>

#include "kernels/types.h"

namespace decalign::inline DECALIGN_REAL {

/// One modality: x [B, steps, width], padded. Text that the network's encoder reads has tokens
/// instead, width being the encoder's.
struct BatchModality {
  std::vector<real> x;
  std::vector<int32_t> tokens;  ///< [B, 3, steps], see Sequences::tokens
  int64_t steps = 0, width = 0;
  std::vector<int32_t> lengths;  ///< [B], each in [0, steps]; used with mask_source lengths
  In device_x;                   ///< x in the device's memory; empty: x itself is read, or uploaded

  In values() const { return device_x.empty() ? In(x) : device_x; }
};

struct Batch {
  int64_t count = 0;                      ///< B
  std::vector<BatchModality> modalities;  ///< in the network's order, inactive ones too
  std::vector<real> labels;  ///< [B]; class indices in classification; empty without labels
  In device_labels;          ///< as device_x
  std::span<const int32_t> device_classes;  ///< [B], of the contrastive loss
};

}  // namespace decalign::inline DECALIGN_REAL
