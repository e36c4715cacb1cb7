// What mot asks of its arguments, on every backend.
#pragma once

#include <cmath>

#include "kernels/mot.h"

namespace decalign::inline DECALIGN_REAL {

namespace mot_detail {
constexpr double kSwamped = 1e-13;  // least epsilon over the largest |cost|
}

/// Pair e of the graph.
inline MotEdge mot_edge(const MotShape& s, int64_t e) {
  switch (s.graph) {
    case CostGraph::star:
      return {0, e + 1};
    case CostGraph::chain:
      return {e, e + 1};
    case CostGraph::tree:
      return s.edges[size_t(e)];
    case CostGraph::complete:
      break;
  }
  int64_t i = 0;
  for (; e >= s.modalities - 1 - i; ++i) e -= s.modalities - 1 - i;
  return {i, i + 1 + e};
}

inline void check_mot_shape(const MotShape& s) {
  const MotOptions& o = s.options;
  expect(s.batch >= 0 && s.modalities >= 2 && s.components >= 1, "mot: sizes out of range");
  expect(s.modalities <= kMotModalities, "mot: more than 4096 modalities");
  expect(s.components <= 1 << 20, "mot: sizes out of range");
  expect(std::isfinite(o.epsilon) && o.epsilon > 0, "mot: epsilon must be finite and positive");
  expect(o.max_sweeps >= 0 && o.tolerance >= 0 && o.newton_steps >= 0 && o.halvings >= 0 &&
             o.halvings <= 1000,
         "mot: option out of range");
  expect(o.gradient == MotGradient::converged || (o.halvings == 0 && o.newton_steps == 0),
         "mot: the unrolled gradient knows neither halvings nor Newton steps");
  if (s.graph != CostGraph::tree) return expect(s.edges.empty(), "mot: edges belong to a tree");
  expect(std::ssize(s.edges) == s.modalities - 1, "mot: a tree has modalities - 1 edges");
  for (const MotEdge& e : s.edges)
    expect(e.first >= 0 && e.second >= 0 && e.first < s.modalities && e.second < s.modalities,
           "mot: an edge names a modality that is not there");
}

inline void check_mot(const MotShape& s, In cost, In marginals, int64_t state, In report,
                      Scratch scratch, size_t scratch_bytes) {
  check_mot_shape(s);
  const int64_t B = s.batch, M = s.modalities, K = s.components;
  expect(std::ssize(cost) == B * s.pairs() * K * K, "mot: cost must be [B, pairs, K, K]");
  expect(std::ssize(marginals) == B * M * K, "mot: marginals must be [B, M, K]");
  expect(state == mot_state_size(s), "mot: state must have mot_state_size elements");
  expect(std::ssize(report) == B * 4, "mot: report must be [B, 4]");
  expect(scratch.size() >= scratch_bytes, "mot: scratch too small");
}

inline void check_mot_forward(const MotShape& s, In cost, In value, In pairs) {
  expect(std::ssize(value) == s.batch, "mot: value must be [B]");
  expect(pairs.empty() || pairs.size() == cost.size(), "mot: pairs must have the size of cost");
}

inline void check_mot_backward(const MotShape& s, In cost, In marginals, In dvalue, In dpairs,
                               InOut dcost, InOut dmarginals, InOut depsilon) {
  expect(dvalue.empty() || std::ssize(dvalue) == s.batch, "mot: dvalue must be [B]");
  expect(dpairs.empty() || dpairs.size() == cost.size(), "mot: dpairs must have the size of cost");
  expect(dcost.empty() || dcost.size() == cost.size(), "mot: dcost must have the size of cost");
  expect(dmarginals.empty() || dmarginals.size() == marginals.size(),
         "mot: dmarginals must have the size of marginals");
  expect(depsilon.empty() || std::ssize(depsilon) == s.batch, "mot: depsilon must be [B]");
}

}  // namespace decalign::inline DECALIGN_REAL
