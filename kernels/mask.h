// Zeroing of padded rows.
#pragma once

#include "kernels/backend.h"

namespace decalign::inline DECALIGN_REAL {

/// y_r = x_r where mask_r is not 0, else 0. x, y [rows, width], mask [rows]; width = x.size() /
/// mask.size().
void mask_rows_forward(const Cpu&, int64_t width, In x, In mask, Out y);
void mask_rows_forward(const Cuda&, int64_t width, In x, In mask, Out y);

/// dx_r += dy_r where mask_r is not 0.
void mask_rows_backward(const Cpu&, int64_t width, In mask, In dy, InOut dx);
void mask_rows_backward(const Cuda&, int64_t width, In mask, In dy, InOut dx);

}  // namespace decalign::inline DECALIGN_REAL
