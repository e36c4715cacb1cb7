// One problem of bench_kernels: named inputs from a file, options, named outputs, and the clock.
#pragma once

#include <chrono>
#include <list>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "autograd/buffer.h"
#include "data/safetensors.h"

namespace decalign::inline DECALIGN_REAL::bench {

class Problem {
 public:
  Problem(const Device& device, const Safetensors& inputs, nlohmann::json options, int repeats)
      : device_(device), inputs_(inputs), options_(std::move(options)), repeats_(repeats) {}

  const Device& device() const { return device_; }
  template <class T>
  T option(const std::string& name, T fallback) const {
    return options_.value(name, fallback);
  }

  int64_t size(const std::string& input, size_t axis) const {
    return inputs_.view(input).shape.at(axis);
  }
  /// On the device.
  In input(const std::string& name) {
    const std::vector<float> values = inputs_.floats(name);
    const std::vector<real> reals(values.begin(), values.end());
    const auto copy = memory<real>(std::ssize(reals));
    device_.upload(reals.data(), copy.data(), copy.size_bytes());
    return copy;
  }
  /// Written to the file in the end.
  Out output(const std::string& name, std::vector<int64_t> shape) {
    int64_t n = 1;
    for (int64_t s : shape) n *= s;
    const auto values = memory<real>(n);
    outputs_[name] = {std::move(shape), values};
    return values;
  }
  /// Uninitialised, on the device.
  template <class T>
  std::span<T> memory(int64_t n) {
    memory_.emplace_back(device_, size_t(n) * sizeof(T));
    return {reinterpret_cast<T*>(memory_.back().data()), size_t(n)};
  }
  Scratch scratch(size_t bytes) { return memory<std::byte>(int64_t(bytes)); }

  /// Runs f(backend) once to warm up, then again and again by the clock.
  template <class F>
  void time(F f) {
    for (int i = 0; i <= repeats_; ++i) {
      const auto start = std::chrono::steady_clock::now();
      device_.run(f);
      device_.wait();
      const std::chrono::duration<double, std::milli> t = std::chrono::steady_clock::now() - start;
      if (i > 0) ms_.push_back(t.count());
    }
  }

  const std::vector<double>& ms() const { return ms_; }
  void save(const std::string& path) const;

 private:
  struct Output {
    std::vector<int64_t> shape;
    Out values;
  };
  Device device_;
  const Safetensors& inputs_;
  nlohmann::json options_;
  int repeats_;
  std::list<Buffer<std::byte>> memory_;
  std::map<std::string, Output> outputs_;
  std::vector<double> ms_;
};

}  // namespace decalign::inline DECALIGN_REAL::bench
