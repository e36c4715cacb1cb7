// What a launch of mot needs to know of its problems, from the host's shape.
#pragma once

#include <algorithm>
#include <vector>

#include "kernels/cuda/mot_paired.h"
#include "kernels/cuda/mot_tree.h"

namespace decalign::inline DECALIGN_REAL::mot_block {

constexpr int kThreads = 256;
constexpr size_t kSharedBytes = 160 * 1024;  // what a block may have on sm_80, too
constexpr int kControl = 16;                 // doubles that launches of many blocks hand on
constexpr int64_t kMostElements = 1 << 30;   // of what an int counts

enum class Sums { tree, paired, stream };

inline Sums sums_of(const MotShape& s) {
  if (s.graph != CostGraph::complete || s.modalities == 2) return Sums::tree;
  return s.modalities == 3 ? Sums::paired : Sums::stream;
}

/// The tree's lists, one after the other in Graph's order; throws if it is none.
std::vector<int> tree_lists(const MotShape& s);
/// All but the lists of a tree and the scratch.
Sizes make_sizes(const MotShape& s, Direction direction);
/// Doubles of a problem's memory.
int64_t problem_size(const MotShape& s, const Sizes& z);
/// Copies a tree's lists to the device.
Graph make_graph(const Cuda& be, const MotShape& s);

/// Blocks of a launch: as many as there are problems, unless each needs scratch.
inline int64_t blocks(const Cuda& be, const MotShape& s, bool shared) {
  return shared ? s.batch : std::min<int64_t>(s.batch, std::min(be.multiprocessors, kCounters));
}

/// Threads for a message's elements, a product's, or a warp for each sum.
inline int block_threads(const MotShape& s) {
  const int64_t K = s.components;
  const int64_t each = sums_of(s) == Sums::tree ? 8 : sums_of(s) == Sums::paired ? K : 32;
  return int(std::clamp<int64_t>((each * K + 31) / 32 * 32, 32, kThreads));
}

/// Queues kernel_of(shared) on every problem of the batch, a block each.
template <class KernelOf, class... A>
void launch_problems(const Cuda& be, const MotShape& s, Sizes z, Scratch scratch,
                     KernelOf&& kernel_of, const A&... arguments) {
  z.graph = make_graph(be, s);
  const size_t bytes = size_t(z.each) * sizeof(double);
  const bool shared = bytes <= kSharedBytes;
  if (!shared) z.scratch = reinterpret_cast<double*>(scratch.data());
  launch(be, kernel_of(shared), unsigned(blocks(be, s, shared)), unsigned(block_threads(s)),
         shared ? bytes : 0, z, arguments...);
}

}  // namespace decalign::inline DECALIGN_REAL::mot_block
