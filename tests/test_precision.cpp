// Products in tf32 and bf16 on a GPU: their error against fp32, what they leave alone.
#include "autograd/cuda_device.h"
#include "kernels/attention.h"
#include "kernels/conv1d.h"
#include "kernels/feed_forward.h"
#include "kernels/matmul.h"
#include "tests/support.h"

#ifdef DECALIGN_CUDA

using namespace decalign;
using namespace decalign::test;

namespace {

using Arrays = std::vector<Values>;
using Kernel = std::function<Arrays(const Cuda&, const Arrays&)>;

Arrays absolute(Arrays arrays) {
  for (Values& array : arrays)
    for (real& e : array) e = std::abs(e);
  return arrays;
}

// The rounding error of a factor, relative to it.
double unit(Precision p) { return p == Precision::tf32 ? 0x1p-11 : 0x1p-8; }

// Runs `kernel` in every precision. Its results are off by rounding errors of the format, no more
// and no less. `linear`: in each of two factors, so that its results for the inputs' absolute
// values bound the error of every element.
void compare(const Arrays& inputs, bool linear, const Kernel& kernel) {
  if (!gpu()) return;
  Cuda be = *gpu()->cuda();
  const Arrays want = kernel(be, inputs), most = kernel(be, absolute(inputs));
  for (const Precision p : {Precision::tf32, Precision::bf16}) {
    be.precision = p;
    const Arrays got = kernel(be, inputs);
    CHECK(kernel(be, inputs) == got);
    for (size_t a = 0; a < want.size(); ++a) {
      if (sizeof(real) == 8) {
        CHECK(got[a] == want[a]);
        continue;
      }
      double error = 0, size = 0, worst = 0;
      for (size_t i = 0; i < want[a].size(); ++i) {
        const double e = std::abs(double(got[a][i]) - double(want[a][i]));
        error += e * e, size += double(want[a][i]) * double(want[a][i]);
        if (const double share = e / std::max(double(most[a][i]), 1e-6); !(share <= worst))
          worst = share;
      }
      const double relative = std::sqrt(error / size) / unit(p);
      INFO("result " << a << ", bf16 " << (p == Precision::bf16));
      CHECK(relative < 4);
      CHECK(relative > 0.05);
      if (linear) CHECK(worst <= 2.01 * unit(p) + 1e-5);
    }
  }
}

// Results as they came, on the host.
Arrays values_of(std::initializer_list<Guarded*> results) {
  Arrays values;
  for (Guarded* g : results) {
    REQUIRE(g->intact());
    values.push_back(g->values());
  }
  return values;
}

void compare_matmul(int64_t rows, int64_t k, int64_t n) {
  MatmulShape s;
  s.x_rows = s.y_rows = rows, s.k = k, s.n = s.y_cols = n;
  compare({uniform(rows * k, -1, 1, 1), uniform(n * k, -1, 1, 2), uniform(rows * n, -1, 1, 3)},
          true, [&](const Cuda& be, const Arrays& in) {
            Guarded y(rows * n), dx(rows * k, 0), dw(n * k, 0);
            MatmulGroup g;
            g.rows = rows, g.weight = in[1], g.dweight = dw.span();
            Workspace scratch(matmul_scratch_bytes(be, s, {&g, 1}));
            matmul_forward(be, s, {&g, 1}, in[0], y.span(), scratch.span());
            matmul_backward(be, s, {&g, 1}, in[0], y.span(), in[2], dx.span(), scratch.span());
            return values_of({&y, &dx, &dw});
          });
}

void compare_conv1d(int64_t width, int64_t channels, int64_t kernel) {
  const Conv1dShape s{3, 30, width, channels, kernel, 0};
  const std::vector<int64_t> first{0, 20, 20, 45};
  const Rows rows{1, 3, first};
  compare({uniform(3 * 30 * width, -1, 1, 1), uniform(channels * width * kernel, -1, 1, 2),
           uniform(45 * channels, -1, 1, 3)},
          true, [&](const Cuda& be, const Arrays& in) {
            Guarded y(45 * channels), dx(std::ssize(in[0]), 0), dw(std::ssize(in[1]), 0);
            Workspace scratch(conv1d_scratch_bytes(be, s));
            conv1d_forward(be, s, rows, in[0], in[1], y.span(), scratch.span());
            conv1d_backward(be, s, rows, in[0], in[1], in[2], dx.span(), dw.span(), scratch.span());
            return values_of({&y, &dx, &dw});
          });
}

// Two heads, kSteps queries and keys: whole tiles and a part of one.
constexpr int64_t kSteps = 70;
Kernel attention_of(int64_t depth, bool causal) {
  return [=](const Cuda& be, const Arrays& in) {
    const std::vector<int64_t> first{0, kSteps};
    const KeyRange range{0, kSteps};
    AttentionShape s;
    s.queries = {1, 1, first};
    s.width = s.key_stride = 2 * depth, s.heads = 2, s.key_rows = kSteps;
    s.ranges = {&range, 1}, s.causal = causal;
    const int64_t size = kSteps * s.width;
    Guarded out(size), lse(kSteps * 2), dq(size, 0), dk(size, 0), dv(size, 0);
    attention_forward(be, s, in[0], in[1], in[2], out.span(), lse.span());
    attention_backward(be, s, in[0], in[1], in[2], out.span(), lse.span(), in[3], dq.span(),
                       dk.span(), dv.span());
    return values_of({&out, &dq, &dk, &dv});
  };
}
Arrays attention_inputs(int64_t depth) {
  Arrays inputs;
  for (unsigned i = 0; i < 4; ++i) inputs.push_back(uniform(kSteps * 2 * depth, -2, 2, i));
  return inputs;
}

}  // namespace

TEST_CASE("precision: matmul", "[kernels][precision]") {
  for (const auto& [rows, k, n] :
       {std::array<int64_t, 3>{70, 40, 100}, {33, 7, 30}, {200, 65, 64}, {130, 256, 33}})
    compare_matmul(rows, k, n);
}

TEST_CASE("precision: matmul of cuBLAS", "[kernels][precision]") { compare_matmul(20, 256, 512); }

TEST_CASE("precision: conv1d", "[kernels][precision]") {
  compare_conv1d(20, 40, 3);
  compare_conv1d(300, 30, 1);
  compare_conv1d(33, 64, 5);
}

TEST_CASE("precision: feed_forward", "[kernels][precision]") {
  const FeedForwardShape s{100, 40, 160, {}};
  compare(
      {uniform(100 * 40, -1, 1, 1), uniform(160 * 40, -1, 1, 2), uniform(40 * 160, -1, 1, 3),
       uniform(100 * 40, -1, 1, 4)},
      false, [&](const Cuda& be, const Arrays& in) {
        Guarded h(100 * 160), y(100 * 40), dx(100 * 40, 0), dw1(160 * 40, 0), dw2(40 * 160, 0);
        FeedForwardGroup g;
        g.rows = 100, g.weight1 = in[1], g.weight2 = in[2];
        g.dweight1 = dw1.span(), g.dweight2 = dw2.span();
        Workspace scratch(feed_forward_scratch_bytes(be, s, {&g, 1}));
        feed_forward_forward(be, s, {&g, 1}, in[0], h.span(), y.span(), scratch.span());
        feed_forward_backward(be, s, {&g, 1}, in[0], h.span(), in[3], dx.span(), scratch.span());
        return values_of({&h, &y, &dw2});
      });
}

TEST_CASE("precision: attention of wide heads", "[kernels][precision]") {
  for (const int64_t depth : {20, 64, 70})
    compare(attention_inputs(depth), false, attention_of(depth, depth == 64));
}

TEST_CASE("precision: attention of narrow heads keeps its bits", "[kernels][precision]") {
  for (const Device& device : devices()) {
    if (device.on_host()) continue;
    Cuda be = *device.cuda();
    const Kernel attention = attention_of(8, false);
    const Arrays want = attention(be, attention_inputs(8));
    be.precision = Precision::bf16;
    CHECK(attention(be, attention_inputs(8)) == want);
  }
}

TEST_CASE("precision: a device is opened with one", "[kernels][precision]") {
  if (why_no_cuda().empty()) {
    const OpenDevice opened = open_device("cuda", 0, "bf16");
    CHECK(opened.device.cuda()->precision == Precision::bf16);
    CHECK(opened.description.ends_with(", products in bf16"));
    CHECK(open_device("auto", 0).device.cuda()->precision == Precision::fp32);
  }
  const OpenDevice host = open_device("cpu", 1, "tf32");
  CHECK(host.device.on_host());
  CHECK(host.description == "CPU; precision tf32 is a GPU's, this one computes in fp32");
  CHECK(open_device("cpu", 1, "fp32").description == "CPU");
}

#endif
