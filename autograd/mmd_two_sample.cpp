#include "autograd/mmd_two_sample.h"

#include "kernels/scaled_add.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

MmdTwoSampleShape shape_of(const Tensor& x, const Tensor& y, int64_t bandwidths, bool unbiased) {
  expect(x.shape.size() == 2 && y.shape.size() == 2 && x.shape[1] == y.shape[1],
         "mmd_two_sample: x and y must be [n, d] and [m, d]");
  return {x.shape[0], y.shape[0], x.shape[1], bandwidths, unbiased};
}

}  // namespace

Tensor mmd_two_sample(Tape& tape, const Tensor& x, const Tensor& y, const Tensor& bandwidths,
                      const Tensor& weights, bool unbiased, MmdArithmetic arithmetic) {
  MmdTwoSampleShape shape = shape_of(x, y, bandwidths.size(), unbiased);
  shape.arithmetic = arithmetic;
  const Tensor value =
      tape.make({1}, x.requires_grad() || y.requires_grad() || bandwidths.requires_grad());
  const auto gradient = [&](const Tensor& t) {
    return tape.take<real>(tape.recording() && t.requires_grad() ? t.size() : 0);
  };
  const auto dx = gradient(x), dy = gradient(y), db = gradient(bandwidths);
  tape.run([&](const auto& be) {
    mmd_two_sample_forward(be, shape, x.value, y.value, bandwidths.value, weights.value,
                           value.value, dx, dy, db,
                           tape.scratch(mmd_two_sample_scratch_bytes(be, shape)));
  });
  tape.record({value}, [&tape, x, y, bandwidths, value, dx, dy, db](const auto& be) {
    scaled_add(be, tape.grad(value), dx, tape.grad_sink(x));
    scaled_add(be, tape.grad(value), dy, tape.grad_sink(y));
    scaled_add(be, tape.grad(value), db, tape.grad_sink(bandwidths));
  });
  return value;
}

Tensor mmd_median_bandwidth(Tape& tape, const Tensor& x, const Tensor& y) {
  const MmdTwoSampleShape shape = shape_of(x, y, 1, false);
  const Tensor bandwidth = tape.make({1}, false);
  tape.run([&](const auto& be) {
    mmd_median_bandwidth(be, shape, x.value, y.value, bandwidth.value,
                         tape.scratch(mmd_median_scratch_bytes(be, shape)));
  });
  return bandwidth;
}

}  // namespace decalign::inline DECALIGN_REAL
