#include "kernels/carve.h"
#include "kernels/check/feed_forward.h"
#include "kernels/cuda/dense.h"
#include "kernels/feed_forward.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

using gemm::kTasks;
using Groups = std::span<const FeedForwardGroup>;

gemm::Chunks first_chunks(const Cuda& be, const FeedForwardShape& s, Groups groups) {
  return gemm::Chunks(be, s.rows, std::ssize(groups), s.hidden, s.width);
}
gemm::Chunks second_chunks(const Cuda& be, const FeedForwardShape& s, Groups groups) {
  return gemm::Chunks(be, s.rows, std::ssize(groups), s.width, s.hidden);
}

}  // namespace

// Backward only: dz, and the parts of the two weight gradients.
size_t feed_forward_scratch_bytes(const Cuda& be, const FeedForwardShape& s, Groups groups) {
  return carve_bytes<real>(s.rows * s.hidden) +
         carve_bytes<real>(first_chunks(be, s, groups).elements) +
         carve_bytes<real>(second_chunks(be, s, groups).elements);
}

void feed_forward_forward(const Cuda& be, const FeedForwardShape& s, Groups groups, In x, Out h,
                          Out y, Scratch scratch) {
  check_feed_forward_forward(s, groups, x, h, y, scratch,
                             feed_forward_scratch_bytes(be, s, groups));
  std::vector<gemm::Dense> first, second;
  for (const FeedForwardGroup& g : groups) {
    first.push_back({x.data() + g.row * s.width, g.weight1.data(), pointer(g.bias1),
                     h.data() + g.row * s.hidden, g.rows, g.row * s.hidden});
    second.push_back({h.data() + g.row * s.hidden, g.weight2.data(), pointer(g.bias2),
                      y.data() + g.row * s.width, g.rows, 0});
  }
  gemm::dense(be, {s.width, s.hidden, s.width, s.hidden, true, s.dropout}, first);
  gemm::dense(be, {s.hidden, s.width, s.hidden, s.width, false, {}}, second);
}

void feed_forward_backward(const Cuda& be, const FeedForwardShape& s, Groups groups, In x, In h,
                           In dy, InOut dx, Scratch scratch) {
  check_feed_forward_backward(s, groups, x, h, dy, dx, scratch,
                              feed_forward_scratch_bytes(be, s, groups));
  const gemm::Chunks chunks1 = first_chunks(be, s, groups), chunks2 = second_chunks(be, s, groups);
  real* const dz = carve<real>(scratch, s.rows * s.hidden);
  real* const parts1 = carve<real>(scratch, chunks1.elements);
  real* const parts2 = carve<real>(scratch, chunks2.elements);
  for (size_t begin = 0; begin < groups.size(); begin += kTasks) {
    std::vector<gemm::DataGradient> hidden, data;
    std::vector<gemm::WeightGradient> first, second;
    bool wants_dz = !dx.empty();
    for (const FeedForwardGroup& g :
         groups.subspan(begin, std::min<size_t>(kTasks, groups.size() - begin))) {
      const int64_t in = g.row * s.width, inner = g.row * s.hidden;
      hidden.push_back({dy.data() + in, g.weight2.data(), g.row, g.rows});
      data.push_back({dz + inner, g.weight1.data(), g.row, g.rows});
      first.push_back({dz + inner, x.data() + in, g.rows, s.hidden, s.width, s.hidden, s.width,
                       pointer(g.dweight1), pointer(g.dbias1)});
      second.push_back({dy.data() + in, h.data() + inner, g.rows, s.width, s.hidden, s.width,
                        s.hidden, pointer(g.dweight2), pointer(g.dbias2)});
      wants_dz = wants_dz || !g.dweight1.empty() || !g.dbias1.empty();
    }
    // dz and what does not need it, then what does, then the sums.
    std::vector<gemm::Parts> list;
    if (!gemm::gradients(
            be, {s.width, s.hidden, s.width, wants_dz ? dz : nullptr, h.data(), s.dropout.scale()},
            hidden, second, chunks2, parts2))
      gemm::append_parts(list, second, chunks2, parts2);
    if (!gemm::gradients(be, {s.hidden, s.width, s.hidden, pointer(dx)}, data, first, chunks1,
                         parts1))
      gemm::append_parts(list, first, chunks1, parts1);
    if (!list.empty()) gemm::add_parts(be, list);
  }
}

}  // namespace decalign::inline DECALIGN_REAL
