// Zeroing of padded rows, and which rows are padding.
#pragma once

#include "kernels/backend.h"
#include "kernels/rows.h"

namespace decalign::inline DECALIGN_REAL {

/// y_r = x_r where mask_r is not 0, else 0. x, y [rows, width], mask [rows]; width = x.size() /
/// mask.size().
void mask_rows_forward(const Cpu&, int64_t width, In x, In mask, Out y);
void mask_rows_forward(const Cuda&, int64_t width, In x, In mask, Out y);

/// dx_r += dy_r where mask_r is not 0.
void mask_rows_backward(const Cpu&, int64_t width, In mask, In dy, InOut dx);
void mask_rows_backward(const Cuda&, int64_t width, In mask, In dy, InOut dx);

/// Where a modality's rows come from: row t of sample b is x[b, t].
struct StepSource {
  In x;  ///< [B, steps, width] in backend memory; empty: the modality's rows are not looked at
  int64_t steps = 0, width = 0;
};

/// mask_r = 1 where row r's step has any entry that is not 0 (NaN included), else 0; 1 throughout
/// for modalities without x. sources [M]; no sequence longer than its source's steps; mask [R].
void zero_rows_mask(const Cpu&, const Rows&, std::span<const StepSource> sources, Out mask);
void zero_rows_mask(const Cuda&, const Rows&, std::span<const StepSource> sources, Out mask);

}  // namespace decalign::inline DECALIGN_REAL
