// Test helpers: devices, random inputs, guarded outputs, comparison, gradient check.
#pragma once

#include <catch2/catch.hpp>
#include <cmath>
#include <functional>
#include <limits>
#include <random>
#include <vector>

#include "autograd/tape.h"
#include "tests/devices.h"

namespace decalign::inline DECALIGN_REAL::test {

using Values = Shared<real>;

inline Values uniform(int64_t n, double lo, double hi, unsigned seed = 1) {
  std::mt19937 rng(seed);
  Values v(static_cast<size_t>(n));
  for (real& e : v) e = real(lo + (hi - lo) * (double(rng()) / 4294967296.0));
  return v;
}

inline std::vector<real> on_host(const Values& v) { return {v.begin(), v.end()}; }

/// Memory for an output with sentinels on both sides; `intact()` tells whether a kernel wrote
/// beyond it.
class Guarded {
 public:
  explicit Guarded(int64_t n, real inside = kSentinel)
      : size_(size_t(n)), memory_(size_t(n) + 2 * kGuard) {
    for (real& e : memory_) e = kSentinel;
    for (real& e : span()) e = inside;
  }
  Out span() { return Out(memory_.data() + kGuard, size_); }
  bool intact() const {
    wait();
    for (size_t i = 0; i < kGuard; ++i)
      if (memory_[i] != kSentinel || memory_[memory_.size() - 1 - i] != kSentinel) return false;
    return true;
  }
  Values values() const {
    wait();
    return Values(memory_.begin() + kGuard, memory_.end() - kGuard);
  }

 private:
  static constexpr size_t kGuard = 64;
  static constexpr real kSentinel = real(-12345.678);
  size_t size_;
  Values memory_;
};

/// Work space of exactly `bytes` bytes, 64-byte aligned.
class Workspace {
 public:
  explicit Workspace(size_t bytes) : memory_(bytes / sizeof(Line) + 1), bytes_(bytes) {}
  Scratch span() { return {reinterpret_cast<std::byte*>(memory_.data()), bytes_}; }

 private:
  struct alignas(64) Line {
    std::byte b[64];
  };
  Shared<Line> memory_;
  size_t bytes_;
};

/// A backend's results have the same bits on every run and for every number of threads.
class Bits {
 public:
  void require(const Device& device, const std::vector<Values>& got) {
    std::vector<Values>& before = device.on_host() ? host_ : cuda_;
    if (before.empty()) before = got;
    REQUIRE(got == before);
  }

 private:
  std::vector<Values> host_, cuda_;
};

/// |got - want| <= ulps * eps * (scale + |want|). Written so that a NaN fails.
inline bool close(double got, double want, double ulps, double scale = 1) {
  return std::abs(got - want) <=
         ulps * std::numeric_limits<real>::epsilon() * (scale + std::abs(want));
}

inline void require_close(In got, const std::vector<double>& want, double ulps, double scale = 1) {
  REQUIRE(got.size() == want.size());
  wait();
  for (size_t i = 0; i < want.size(); ++i) {
    if (close(got[i], want[i], ulps, scale)) continue;
    INFO("element " << i << ": got " << got[i] << ", want " << want[i]);
    REQUIRE(close(got[i], want[i], ulps, scale));
  }
}

/// Checks d(sum w . f(inputs)) / d(inputs) from the tape against Richardson-extrapolated central
/// differences for a fixed random w: largest difference <= tolerance * largest entry, per input.
/// The backward pass runs twice, so that a kernel that overwrites instead of adding fails. On a
/// device other than the host some elements of each input are checked instead of all.
/// Meaningful in the double build only.
inline void gradcheck(const Device& device, std::vector<Shape> shapes, std::vector<Values> start,
                      const std::function<Tensor(Tape&, const std::vector<Tensor>&)>& f,
                      double tolerance = 1e-8, double h = 1e-3) {
  const size_t count = shapes.size();
  REQUIRE(start.size() == count);
  std::vector<Values> grad(count);
  for (size_t i = 0; i < count; ++i) grad[i].assign(start[i].size(), 0);
  Values weight;
  const auto run = [&](Tape& tape, bool with_grad) {
    std::vector<Tensor> inputs;
    for (size_t i = 0; i < count; ++i)
      inputs.push_back(tape.leaf(shapes[i], start[i], with_grad ? InOut(grad[i]) : InOut()));
    const Tensor y = f(tape, inputs);
    if (weight.empty()) weight = uniform(y.size(), -1, 1, 2);
    return y;
  };
  for (int repeat = 0; repeat < 2; ++repeat) {
    Tape tape(device);
    const Tensor y = run(tape, true);
    tape.backward(y, weight);
    device.wait();
  }
  for (size_t i = 0; i < count; ++i) {
    double largest = 0, worst = 0;
    size_t worst_at = 0;
    const size_t stride = device.on_host() ? 1 : start[i].size() / 8 + 1;
    for (size_t j = stride / 2; j < start[i].size(); j += stride) {
      const real x = start[i][j];
      const auto at = [&](double v) {
        start[i][j] = real(v);
        Tape tape(device, false);
        const std::vector<real> y = device.read(run(tape, false).value);
        start[i][j] = x;
        double value = 0;
        for (size_t e = 0; e < y.size(); ++e) value += double(weight[e]) * double(y[e]);
        return value;
      };
      const auto slope = [&](double step) { return (at(x + step) - at(x - step)) / (2 * step); };
      const double d1 = slope(h), d2 = slope(h / 2), d3 = slope(h / 4);
      const double e1 = (4 * d2 - d1) / 3, e2 = (4 * d3 - d2) / 3;  // Richardson, twice
      const double numeric = (16 * e2 - e1) / 15, error = std::abs(grad[i][j] / 2 - numeric);
      largest = std::max(largest, std::abs(numeric));
      if (!(error <= worst)) worst = error, worst_at = j;
    }
    INFO("input " << i << ", element " << worst_at << ": tape " << grad[i][worst_at] / 2
                  << ", off by " << worst << ", largest entry " << largest);
    REQUIRE(worst <= tolerance * std::max(largest, 1e-6));
  }
}

}  // namespace decalign::inline DECALIGN_REAL::test
