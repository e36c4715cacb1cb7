// Embedding: definition, untouched rows, errors, gradients.
#include "autograd/embedding.h"
#include "kernels/embedding.h"
#include "tests/support.h"

using namespace decalign;
using namespace decalign::test;

namespace {

using Ids = Shared<int32_t>;

Ids random_ids(int64_t rows, int64_t entries, unsigned seed) {
  Ids ids;
  for (real v : uniform(rows, 0, 1, seed))
    ids.push_back(std::min(int32_t(double(v) * double(entries)), int32_t(entries) - 1));
  return ids;
}

// Five threads share the columns in other ways than two.
std::vector<Device> embedding_devices() {
  std::vector<Device> all = devices();
  if (all[0].on_host()) all.push_back(Device(Cpu{5}));
  return all;
}

template <class Backend>
void backward(const Backend& be, const EmbeddingShape& s, std::span<const EmbeddingTable> tables,
              In dy) {
  Workspace scratch(embedding_scratch_bytes(be, s, std::ssize(tables)));
  embedding_backward(be, s, tables, dy, scratch.span());
}

// Three tables of different heights, the first with a padding id, as in a language model.
void compare(int64_t rows, int64_t width) {
  const int64_t entries[] = {300, 50, 2};
  std::vector<Values> table;
  std::vector<Ids> ids;
  for (unsigned t = 0; t < 3; ++t) {
    table.push_back(uniform(entries[t] * width, -1, 1, 10 + t));
    ids.push_back(random_ids(rows, entries[t], 20 + t));
  }
  for (size_t r = 0; r < ids[0].size(); r += 3) ids[0][r] = 7;
  const Values dy = uniform(rows * width, -1, 1, 5);
  std::vector<double> y(dy.size());
  std::vector<std::vector<double>> dtable;
  for (size_t t = 0; t < 3; ++t) {
    dtable.emplace_back(table[t].size(), 1.0);
    for (size_t i = 0; i < y.size(); ++i) {
      const size_t id = size_t(ids[t][i / size_t(width)]),
                   e = id * size_t(width) + i % size_t(width);
      y[i] += double(table[t][e]);
      if (t != 0 || id != 7) dtable[t][e] += double(dy[i]);
    }
  }
  Bits bits;
  for (const Device& device : embedding_devices())
    device.run([&](const auto& be) {
      std::vector<Guarded> gradient;
      for (int64_t n : entries) gradient.emplace_back(n * width, 1);
      std::vector<EmbeddingTable> tables;
      for (size_t t = 0; t < 3; ++t)
        tables.push_back({ids[t], table[t], gradient[t].span(), entries[t], t == 0 ? 7 : -1});
      Guarded gy(rows * width);
      embedding_forward(be, {rows, width}, tables, gy.span());
      backward(be, {rows, width}, tables, dy);
      require_close(gy.span(), y, 4);
      std::vector<Values> got{gy.values()};
      for (size_t t = 0; t < 3; ++t) {
        require_close(gradient[t].span(), dtable[t], 8 + double(rows) / 2);
        REQUIRE(gradient[t].intact());
        got.push_back(gradient[t].values());
      }
      REQUIRE(gy.intact());
      bits.require(device, got);
    });
}

}  // namespace

TEST_CASE("embedding: equals its definition for any size", "[kernels][embedding]") {
  for (int64_t rows : {0, 1, 7, 33, 129})
    for (int64_t width : {1, 7, 33, 64, 129}) compare(rows, width);
}

TEST_CASE("embedding: a language model's size", "[kernels][embedding]") { compare(1600, 384); }

TEST_CASE("embedding: rows that no id names are left alone", "[kernels][embedding]") {
  const Ids ids{4, 2, 4};
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      Values dtable(50, -0.0);
      dtable[5] = NAN;
      const std::vector<EmbeddingTable> tables{{ids, {}, dtable, 5, -1}};
      backward(be, {3, 10}, tables, Values(30, 1));
      device.wait();
      for (size_t i = 0; i < dtable.size(); ++i) {
        const size_t row = i / 10;
        if (i == 5) {
          REQUIRE(std::isnan(dtable[i]));
        } else {
          REQUIRE(dtable[i] == (row == 4 ? 2 : row == 2 ? 1 : 0));
          REQUIRE(std::signbit(dtable[i]) == (row != 4 && row != 2));
        }
      }
    });
}

TEST_CASE("embedding: tables may share a gradient", "[kernels][embedding]") {
  const Ids a = random_ids(500, 3, 1), b = random_ids(500, 3, 2);
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      Values dtable(3 * 100);
      const std::vector<EmbeddingTable> tables{{a, {}, dtable, 3, -1}, {b, {}, dtable, 3, -1}};
      backward(be, {500, 100}, tables, Values(50000, 1));
      device.wait();
      for (size_t i = 0; i < dtable.size(); ++i)
        REQUIRE(dtable[i] == real(std::count(a.begin(), a.end(), int32_t(i / 100)) +
                                  std::count(b.begin(), b.end(), int32_t(i / 100))));
    });
}

TEST_CASE("embedding: no tables give zeros, and there may be many", "[kernels][embedding]") {
  const Ids ids{1, 0};
  const Values table{1, 2, 3, 4, 5, 6};
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      Values y(6, 3), dtable(6);
      embedding_forward(be, {2, 3}, {}, y);
      device.wait();
      REQUIRE(y == Values(6, 0));
      const std::vector<EmbeddingTable> tables(19, {ids, table, dtable, 2, -1});
      embedding_forward(be, {2, 3}, tables, y);
      backward(be, {2, 3}, tables, Values{1, 2, 3, 4, 5, 6});
      device.wait();
      REQUIRE(y == Values{76, 95, 114, 19, 38, 57});
      REQUIRE(dtable == Values{76, 95, 114, 19, 38, 57});
    });
}

TEST_CASE("embedding: rejects what does not fit", "[kernels][embedding][errors]") {
  const Ids good{0, 4, 2, 1};
  Values table(15), y(12);
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      Workspace scratch(embedding_scratch_bytes(be, {4, 3}, 2));
      const auto forward = [&](std::span<const int32_t> ids, In t, Out out) {
        const std::vector<EmbeddingTable> tables{{ids, t, {}, 5, -1}};
        embedding_forward(be, {4, 3}, tables, out);
      };
      const auto backward = [&](std::span<const int32_t> ids, InOut d, In dy) {
        const std::vector<EmbeddingTable> tables{{ids, {}, d, 5, -1}};
        embedding_backward(be, {4, 3}, tables, dy, scratch.span());
      };
      const std::span<const int32_t> ids = good;
      REQUIRE_NOTHROW(forward(ids, table, y));
      REQUIRE_NOTHROW(backward(ids, table, y));
      REQUIRE_NOTHROW(backward(ids, {}, y));
      REQUIRE_THROWS_AS(forward(ids.first(3), table, y), std::invalid_argument);
      REQUIRE_THROWS_AS(forward(ids, In(table).first(14), y), std::invalid_argument);
      REQUIRE_THROWS_AS(forward(ids, table, Out(y).first(11)), std::invalid_argument);
      REQUIRE_THROWS_AS(backward(ids, InOut(table).first(14), y), std::invalid_argument);
      REQUIRE_THROWS_AS(backward(ids, table, In(y).first(11)), std::invalid_argument);
      Values wide(18);
      const std::vector<EmbeddingTable> tables{{ids, {}, InOut(wide).first(15), 5, -1},
                                               {ids, {}, InOut(wide).last(15), 5, -1}};
      REQUIRE_THROWS_AS(embedding_backward(be, {4, 3}, tables, y, scratch.span()),
                        std::invalid_argument);
      const std::vector<EmbeddingTable> one{{ids, {}, table, 5, -1}};
      if (!device.on_host())
        REQUIRE_THROWS_AS(embedding_backward(be, {4, 3}, one, y, {}), std::invalid_argument);
    });
}

TEST_CASE("embedding: an id out of range", "[kernels][embedding][errors]") {
  const Values table{1, 2, 3, 4}, dy{1, 2, 3, 4, 5, 6};
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      for (int32_t wrong : {-1, 2}) {
        const Ids ids{1, wrong, 1};
        Values y(6), dtable(4);
        const std::vector<EmbeddingTable> tables{{ids, table, dtable, 2, -1}};
        if (device.on_host()) {
          REQUIRE_THROWS_AS(embedding_forward(be, {3, 2}, tables, y), std::invalid_argument);
          REQUIRE_THROWS_AS(backward(be, {3, 2}, tables, dy), std::invalid_argument);
          continue;
        }
        embedding_forward(be, {3, 2}, tables, y);
        backward(be, {3, 2}, tables, dy);
        device.wait();
        REQUIRE((y[0] == 3 && y[1] == 4 && std::isnan(y[2]) && std::isnan(y[3]) && y[4] == 3));
        REQUIRE(dtable == Values{0, 0, 6, 8});
      }
    });
}

#ifdef DECALIGN_F64
TEST_CASE("embedding: gradients", "[autograd][embedding]") {
  const Ids words{3, 0, 3, 6, 1}, places{0, 1, 2, 0, 1};
  for (const Device& device : devices())
    gradcheck(device, {{7, 9}, {3, 9}}, {uniform(63, -1, 1), uniform(27, -1, 1, 2)},
              [&](Tape& tape, const std::vector<Tensor>& in) {
                const std::vector<EmbeddingPart> parts{{words, in[0], -1}, {places, in[1], -1}};
                return embedding(tape, parts);
              });
}

TEST_CASE("embedding: a padding id passes no gradient, a constant table none",
          "[autograd][embedding]") {
  const Ids ids{1, 0, 1};
  for (const Device& device : devices()) {
    Values table = uniform(6, -1, 1), gradient(6), fixed = uniform(6, -1, 1, 2);
    Tape tape(device);
    const std::vector<EmbeddingPart> parts{{ids, tape.leaf({2, 3}, table, gradient), 0},
                                           {ids, tape.leaf({2, 3}, fixed), -1}};
    tape.backward(embedding(tape, parts), Values(9, 1));
    device.wait();
    REQUIRE(gradient == Values{0, 0, 0, 2, 2, 2});
  }
}
#endif
