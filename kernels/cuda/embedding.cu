#include <algorithm>

#include "kernels/carve.h"
#include "kernels/check/embedding.h"
#include "kernels/cuda/launch.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

constexpr int kTables = 8;  // tables per launch
constexpr int kThreads = 256;
constexpr int kIds = 1024;                     // ids that are compared with at a time
constexpr int kWarps = 16, kColumns = 4 * 32;  // of a block that sums rows
constexpr int kShort = 32;                     // rows that one warp sums alone

struct ForwardTable {
  const int32_t* ids;
  const real* table;
  int64_t entries;
};

// Where a row stands among a table's rows sorted by (id, row).
struct Place {
  int row;
  int id;      // -1: adds nothing
  int before;  // earlier rows of its id
  int count;   // rows of its id
};

struct BackwardTable {
  const int32_t* ids;
  real* dtable;
  int64_t entries;
  int32_t padding;
  Place* sorted;  // [rows], scratch
};
using BackwardTables = ParameterList<BackwardTable, kTables>;

// A thread per element; `add`: to what an earlier launch has left.
__global__ void __launch_bounds__(kThreads)
    forward_kernel(const __grid_constant__ ParameterList<ForwardTable, kTables> tables, bool add,
                   int64_t size, int64_t width, real* y) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= size) return;
  const int64_t r = i / width, j = i - r * width;
  real sum = add ? y[i] : real(0);
  for (int t = 0; t < tables.count; ++t) {
    const ForwardTable& table = tables.item[t];
    const int32_t id = table.ids[r];
    sum += id >= 0 && id < table.entries ? table.table[id * width + j] : real(NAN);
  }
  y[i] = sum;
}

// Sorts each table's rows by (id, row), counting for every row those that come before it: n^2 / 2
// comparisons of numbers in shared memory, which take less time than the launches of a radix sort
// up to tens of thousands of rows.
__global__ void __launch_bounds__(kThreads)
    sort_kernel(const __grid_constant__ BackwardTables tables, int rows) {
  SHARED(int, other, [kIds]);
  const BackwardTable& table = tables.item[blockIdx.y];
  const auto id_of = [&](int r) {
    const int id = table.ids[r];
    return id < 0 || id >= table.entries || id == table.padding ? -1 : id;
  };
  const int r = int(blockIdx.x) * kThreads + int(threadIdx.x);
  const int id = r < rows ? id_of(r) : -1;
  int smaller = 0, before = 0, equal = 0;
  for (int first = 0; first < rows; first += kIds) {
    const int count = min(rows - first, kIds);
    __syncthreads();
    for (int i = threadIdx.x; i < count; i += kThreads) other[i] = id_of(first + i);
    __syncthreads();
    const int earlier = min(max(r - first, 0), count);
#pragma unroll 8
    for (int i = 0; i < earlier; ++i) {
      smaller += other[i] < id;
      before += other[i] == id;
    }
#pragma unroll 8
    for (int i = earlier; i < count; ++i) {
      smaller += other[i] < id;
      equal += other[i] == id;
    }
  }
  if (r < rows) table.sorted[smaller + before] = {r, id, before, before + equal};
}

// The sum of column j over rows sorted[begin .. end) of dy.
__device__ real sum_rows(const Place* sorted, int begin, int end, const real* dy, int64_t width,
                         int64_t j) {
  real sum = 0;
#pragma unroll 8
  for (int i = begin; i < end; ++i) sum += dy[sorted[i].row * width + j];
  return sum;
}

// dtable += sums of dy's rows. A warp per place in the sorted rows and 128 columns: it sums the
// rows of its id if it is the first of them and they are few. Many rows take the whole block.
__global__ void __launch_bounds__(32 * kWarps)
    add_kernel(const __grid_constant__ BackwardTables tables, int rows, int64_t width,
               const real* dy) {
  SHARED(Place, places, [kWarps]);
  SHARED(real, parts, [kWarps][kColumns]);
  const BackwardTable& table = tables.item[blockIdx.z];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int begin = int(blockIdx.x) * kWarps;
  const int64_t column = int64_t(blockIdx.y) * kColumns;
  if (int(threadIdx.x) < kWarps)
    places[threadIdx.x] =
        begin + int(threadIdx.x) < rows ? table.sorted[begin + threadIdx.x] : Place{0, -1, 0, 0};
  __syncthreads();
  const Place own = places[warp];
  if (own.id >= 0 && own.before == 0 && own.count <= kShort)
#pragma unroll
    for (int u = 0; u < kColumns / 32; ++u)
      if (const int64_t j = column + 32 * u + lane; j < width)
        table.dtable[own.id * width + j] +=
            sum_rows(table.sorted, begin + warp, begin + warp + own.count, dy, width, j);
  for (int p = 0; p < kWarps; ++p) {
    const Place place = places[p];
    if (place.id < 0 || place.before != 0 || place.count <= kShort) continue;
    const int share = (place.count + kWarps - 1) / kWarps, first = begin + p,
              from = first + min(warp * share, place.count),
              to = first + min((warp + 1) * share, place.count);
#pragma unroll
    for (int u = 0; u < kColumns / 32; ++u)
      if (const int64_t j = column + 32 * u + lane; j < width)
        parts[warp][32 * u + lane] = sum_rows(table.sorted, from, to, dy, width, j);
    __syncthreads();
    if (const int64_t j = column + threadIdx.x; threadIdx.x < kColumns && j < width) {
      real sum = 0;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) sum += parts[w][threadIdx.x];
      table.dtable[place.id * width + j] += sum;
    }
    __syncthreads();  // parts are written again
  }
}

}  // namespace

size_t embedding_scratch_bytes(const Cuda&, const EmbeddingShape& s, int64_t tables) {
  return size_t(tables) * carve_bytes<Place>(s.rows);
}

void embedding_forward(const Cuda& be, const EmbeddingShape& s,
                       std::span<const EmbeddingTable> tables, Out y) {
  check_embedding(s, tables, y, false);
  ParameterList<ForwardTable, kTables> list;
  bool add = false;
  const auto queue = [&] {
    launch(be, forward_kernel, unsigned(ceil_div<int64_t>(std::ssize(y), kThreads)), kThreads, 0,
           list, add, std::ssize(y), s.width, y.data());
    list.count = 0, add = true;
  };
  for (const EmbeddingTable& t : tables) {
    list.item[list.count++] = {t.ids.data(), t.table.data(), t.entries};
    if (list.count == kTables) queue();
  }
  if (list.count > 0 || !add) queue();
}

void embedding_backward(const Cuda& be, const EmbeddingShape& s,
                        std::span<const EmbeddingTable> tables, In dy, Scratch scratch) {
  check_embedding_backward(s, tables, dy, scratch,
                           embedding_scratch_bytes(be, s, std::ssize(tables)));
  expect(s.rows < int64_t(1) << 30, "embedding: too many rows");
  if (dy.empty()) return;
  const int rows = int(s.rows);
  BackwardTables list;
  const auto queue = [&] {
    const unsigned count = unsigned(list.count);
    launch(be, sort_kernel, dim3(unsigned(ceil_div(rows, kThreads)), count), kThreads, 0, list,
           rows);
    launch(be, add_kernel,
           dim3(unsigned(ceil_div(rows, kWarps)), unsigned(ceil_div<int64_t>(s.width, kColumns)),
                count),
           32 * kWarps, 0, list, rows, s.width, dy.data());
    list.count = 0;
  };
  for (const EmbeddingTable& t : tables) {
    if (t.dtable.empty()) continue;
    bool shared = false;  // gradients of one launch must not share memory
    for (int i = 0; i < list.count; ++i) shared |= list.item[i].dtable == t.dtable.data();
    if (shared || list.count == kTables) queue();
    list.item[list.count++] = {t.ids.data(), t.dtable.data(), t.entries, t.padding,
                               carve<Place>(scratch, s.rows)};
  }
  if (list.count > 0) queue();
}

}  // namespace decalign::inline DECALIGN_REAL
