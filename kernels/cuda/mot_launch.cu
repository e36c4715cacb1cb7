#include <cmath>

#include "kernels/cuda/mot_launch.h"

namespace decalign::inline DECALIGN_REAL::mot_block {

std::vector<int> tree_lists(const MotShape& s) {
  const int M = int(s.modalities), messages = 2 * (M - 1);
  std::vector<int> ends, tour, order{0}, links, link_begin(size_t(M) + 1, 0);
  links.resize(size_t(messages));
  for (int e = 0; e < M - 1; ++e) {
    const MotEdge edge = mot_edge(s, e);
    ends.insert(ends.end(), {int(edge.first), int(edge.second)});
    expect(edge.first != edge.second, "mot: the edges are no tree");
  }
  const auto receiver = [&](int message) { return ends[size_t(message ^ 1)]; };
  for (int message = 0; message < messages; ++message) ++link_begin[size_t(receiver(message)) + 1];
  for (size_t m = 0; m < size_t(M); ++m) link_begin[m + 1] += link_begin[m];
  std::vector<int> next(link_begin.begin(), link_begin.end() - 1);
  for (int message = 0; message < messages; ++message)
    links[size_t(next[size_t(receiver(message))]++)] = message;
  // Depth first; `path` holds the messages that led down to the modality at hand.
  std::copy_n(link_begin.begin(), M, next.begin());
  std::vector<int> path;
  for (int at = 0;;) {
    if (next[size_t(at)] < link_begin[size_t(at) + 1]) {
      const int down = links[size_t(next[size_t(at)]++)] ^ 1;
      if (!path.empty() && down == (path.back() ^ 1)) continue;  // where it came from
      expect(int(order.size()) < M, "mot: the edges are no tree");
      path.push_back(down);
      tour.push_back(2 * down + 1);
      order.push_back(at = receiver(down));
    } else {
      if (path.empty()) break;
      tour.push_back(2 * (path.back() ^ 1));
      at = ends[size_t(path.back())];
      path.pop_back();
    }
  }
  expect(int(order.size()) == M, "mot: the edges are no tree");
  for (const std::vector<int>* list : {&tour, &order, &link_begin, &links})
    ends.insert(ends.end(), list->begin(), list->end());
  return ends;
}

Graph make_graph(const Cuda& be, const MotShape& s) {
  if (sums_of(s) != Sums::tree) return {};
  const std::vector<int> lists = tree_lists(s);
  const int64_t M = s.modalities, messages = 2 * (M - 1);
  const int* const at = device_list(be, std::span<const int>(lists));
  return {at, at + messages, at + 2 * messages, at + 2 * messages + M,
          at + 2 * messages + 2 * M + 1};
}

Sizes make_sizes(const MotShape& s, Direction direction) {
  const MotOptions& o = s.options;
  const int64_t M = s.modalities, K = s.components;
  int64_t others = 1;
  if (sums_of(s) != Sums::tree)
    for (int64_t m = 0; m < M - 1 && K > 1; ++m) {
      expect(others * K <= kMostElements, "mot: K^(M - 1) is beyond what a GPU sums");
      if (m < M - 2) others *= K;
    }
  expect(s.pairs() * K * K <= kMostElements, "mot: too many pair costs for a GPU");
  Sizes z{};
  z.M = int(M), z.K = int(K), z.pairs = int(s.pairs());
  z.n = int(M * K), z.ld = int(K | 1), z.c = int(s.pairs() * K * K), z.others = int(others);
  z.batch = s.batch;
  z.state = mot_state_size(s) / std::max<int64_t>(s.batch, 1);
  z.direction = direction;
  z.newton = direction == Direction::forward && o.newton_steps > 0;
  z.primal = o.value == MotValue::primal;
  z.unrolled = o.gradient == MotGradient::unrolled;
  z.halvings = o.halvings, z.max_sweeps = o.max_sweeps, z.newton_steps = o.newton_steps;
  z.epsilon = o.epsilon, z.tolerance = o.tolerance;
  z.heat = std::ldexp(1.0, -int(o.halvings));
  z.each = problem_size(s, z);
  // What one block would be slow at; where many blocks know how.
  z.wide = sums_of(s) == Sums::paired && direction != Direction::unrolled && !z.newton &&
           size_t(z.each) * sizeof(double) > kSharedBytes;
  if (z.wide) z.each += kControl;
  return z;
}

int64_t problem_size(const MotShape& s, const Sizes& z) {
  switch (sums_of(s)) {
    case Sums::tree:
      return Tree(z, nullptr).used;
    case Sums::paired:
      return Paired(z, nullptr).used;
    case Sums::stream:
      break;
  }
  return Stream(z, nullptr).used;
}

}  // namespace decalign::inline DECALIGN_REAL::mot_block
