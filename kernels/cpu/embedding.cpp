#include "kernels/embedding.h"

#include "kernels/cpu/parallel.h"
#include "kernels/cpu/simd.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

constexpr int64_t kRows = 32;             // rows per forward task
constexpr int64_t kColumns = 4 * kLanes;  // columns per backward task

using Tables = std::span<const EmbeddingTable>;

bool overlap_partly(InOut a, InOut b) {
  const auto x = reinterpret_cast<uintptr_t>(a.data()), y = reinterpret_cast<uintptr_t>(b.data());
  return x != y && x < y + b.size_bytes() && y < x + a.size_bytes();
}

void check(const EmbeddingShape& s, Tables tables, In y, bool backward) {
  expect(s.rows >= 0 && s.width >= 0, "embedding: negative size");
  expect(std::ssize(y) == s.rows * s.width, "embedding: y must be [rows, width]");
  for (const EmbeddingTable& t : tables) {
    expect(std::ssize(t.ids) == s.rows, "embedding: ids must be [rows]");
    const int64_t size = t.entries * s.width;
    expect(t.entries >= 0 && (backward || std::ssize(t.table) == size),
           "embedding: table must be [entries, width]");
    expect(!backward || t.dtable.empty() || std::ssize(t.dtable) == size,
           "embedding: dtable must be [entries, width]");
    for (const int32_t id : t.ids)
      expect(id >= 0 && id < t.entries, "embedding: an id is out of range");
    for (const EmbeddingTable& other : tables)
      expect(!backward || !overlap_partly(t.dtable, other.dtable),
             "embedding: gradients overlap partly");
  }
}

}  // namespace

void embedding_forward(const Cpu& be, const EmbeddingShape& s, Tables tables, Out y) {
  check(s, tables, y, false);
  parallel_ranges(be, s.rows, kRows, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      for (int64_t j = 0; j < s.width; j += kLanes) {
        const int64_t lanes = std::min(s.width - j, kLanes);
        vreal sum{};
        for (const EmbeddingTable& t : tables)
          sum += load_partial(t.table.data() + t.ids[size_t(r)] * s.width + j, lanes);
        store_partial(y.data() + r * s.width + j, sum, lanes);
      }
  });
}

void embedding_backward(const Cpu& be, const EmbeddingShape& s, Tables tables, In dy) {
  check(s, tables, dy, true);
  // Tasks own columns: no two add to one element, and the rows keep their order.
  parallel_ranges(be, s.width, kColumns, [&](int64_t begin, int64_t end) {
    for (int64_t r = 0; r < s.rows; ++r)
      for (const EmbeddingTable& t : tables) {
        const int32_t id = t.ids[size_t(r)];
        if (t.dtable.empty() || id == t.padding) continue;
        const real* from = dy.data() + r * s.width;
        real* to = t.dtable.data() + id * s.width;
        for (int64_t j = begin; j < end; j += kLanes) {
          const int64_t lanes = std::min(end - j, kLanes);
          store_partial(to + j, load_partial(to + j, lanes) + load_partial(from + j, lanes), lanes);
        }
      }
  });
}

}  // namespace decalign::inline DECALIGN_REAL
