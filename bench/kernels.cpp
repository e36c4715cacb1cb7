// Runs one kernel on the inputs of a file, for bench/peers/kernels.py.
//
//   bench_kernels mmd IN.safetensors OUT.safetensors --options '{"unbiased": true}' --repeats 5
//
// prints one JSON line {"ms": [...], "device": ...}: milliseconds of every run after one to warm
// up. A kernel's run is bench/runs/<name>.cpp, which says what it reads and writes.
#include <CLI/CLI.hpp>
#include <iostream>

#include "autograd/cuda_device.h"
#include "bench/runs/problem.h"

namespace decalign::inline DECALIGN_REAL::bench {

#define DECALIGN_RUN(name) void run_##name(Problem&);
DECALIGN_RUNS
#undef DECALIGN_RUN

void Problem::save(const std::string& path) const {
  std::list<std::vector<real>> values;
  std::vector<TensorOut> tensors;
  for (const auto& [name, output] : outputs_) {
    values.push_back(device_.read(output.values));
    tensors.push_back(tensor_out(name, output.shape, std::span<const real>(values.back())));
  }
  save_safetensors(path, std::move(tensors));
}

}  // namespace decalign::inline DECALIGN_REAL::bench

using namespace decalign;

int main(int argc, char** argv) {
  const std::map<std::string, void (*)(bench::Problem&)> runs{
#define DECALIGN_RUN(name) {#name, bench::run_##name},
      DECALIGN_RUNS
#undef DECALIGN_RUN
  };
  CLI::App app("one kernel on the inputs of a file");
  std::string kernel, inputs, outputs, options = "{}", device_name = "cpu";
  int repeats = 5, threads = 0;
  app.add_option("kernel", kernel)->required()->check(CLI::IsMember(runs));
  app.add_option("inputs", inputs)->required();
  app.add_option("outputs", outputs)->required();
  app.add_option("--options", options, "JSON");
  app.add_option("--repeats", repeats);
  app.add_option("--threads", threads);
  app.add_option("--device", device_name);
  CLI11_PARSE(app, argc, argv);
  try {
    const OpenDevice opened = open_device(device_name, threads);
    const Safetensors file(inputs);
    bench::Problem problem(opened.device, file, nlohmann::json::parse(options), repeats);
    runs.at(kernel)(problem);
    problem.save(outputs);
    std::cout << nlohmann::json{{"ms", problem.ms()}, {"device", opened.description}}.dump()
              << "\n";
  } catch (const std::exception& e) {
    std::cerr << "bench_kernels: " << e.what() << "\n";
    return 2;
  }
}
