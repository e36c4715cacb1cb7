// Multi-marginal optimal transport over a graph of pair costs as an op.
#pragma once

#include "autograd/tape.h"
#include "kernels/mot.h"

namespace decalign::inline DECALIGN_REAL {

struct GraphTransport {
  Tensor value;            ///< [B]
  Tensor pairs;            ///< [B, pairs, K, K], or empty: not wanted
  std::span<real> report;  ///< [B, 4]: see kernels/mot.h; backend memory
};

/// cost [B, pairs, K, K], marginals [B, M, K]; `edges` of a tree. Gradients of both arguments, from
/// the value and from the pairs. See kernels/mot.h.
GraphTransport mot(Tape&, const Tensor& cost, const Tensor& marginals, CostGraph graph,
                   const MotOptions&, bool pairs = false, std::span<const MotEdge> edges = {});

}  // namespace decalign::inline DECALIGN_REAL
