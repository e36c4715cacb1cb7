#include "kernels/check/embedding.h"

#include "kernels/cpu/parallel.h"
#include "kernels/cpu/simd.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

constexpr int64_t kRows = 32;             // rows per forward task
constexpr int64_t kColumns = 4 * kLanes;  // columns per backward task

using Tables = std::span<const EmbeddingTable>;

void check_ids(Tables tables) {
  for (const EmbeddingTable& t : tables)
    for (const int32_t id : t.ids)
      expect(id >= 0 && id < t.entries, "embedding: an id is out of range");
}

}  // namespace

void embedding_forward(const Cpu& be, const EmbeddingShape& s, Tables tables, Out y) {
  check_embedding(s, tables, y, false);
  check_ids(tables);
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

size_t embedding_scratch_bytes(const Cpu&, const EmbeddingShape&, int64_t) { return 0; }

void embedding_backward(const Cpu& be, const EmbeddingShape& s, Tables tables, In dy, Scratch) {
  check_embedding(s, tables, dy, true);
  check_ids(tables);
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
