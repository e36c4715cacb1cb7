// Times whole training steps: forward, losses, backward, clipping, Adam, with the config's dropout,
// on random data.
//
//   bench_step --config C.json --batch 32 --seq 50,50,50 --dims 768,5,20 --threads 2 --steps 20
//
// prints one JSON line {"ms": [...]}: milliseconds of every step after a warm-up of three.
#include <CLI/CLI.hpp>
#include <chrono>
#include <iostream>
#include <nlohmann/json.hpp>

#include "kernels/dropout_mask.h"
#include "model/network.h"
#include "model/optimizer.h"

using namespace decalign;

namespace {

// Uniform in [-1, 1), the same numbers everywhere.
std::vector<real> random_values(int64_t n, uint32_t stream) {
  std::vector<real> values(static_cast<size_t>(n));
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = real(philox({uint32_t(i), uint32_t(uint64_t(i) >> 32), stream, 0}, {7, 7})[0] /
                         2147483648.0 -
                     1);
  return values;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("whole training steps on random data");
  std::string config_path;
  int64_t batch_size = 32, steps = 20;
  std::vector<int64_t> lengths{50, 50, 50}, widths{768, 5, 20};
  int threads = 0;
  app.add_option("--config", config_path)->required();
  app.add_option("--batch", batch_size);
  app.add_option("--seq", lengths)->delimiter(',');
  app.add_option("--dims", widths)->delimiter(',');
  app.add_option("--threads", threads);
  app.add_option("--steps", steps);
  CLI11_PARSE(app, argc, argv);

  try {
    const Config config = parse_config(read_json(config_path), config_path);
    const char* names[] = {"text", "audio", "vision"};
    std::vector<ModalitySize> sizes;
    Batch batch;
    batch.count = batch_size;
    for (size_t m = 0; m < 3; ++m) {
      sizes.push_back({names[m], lengths.at(m), widths.at(m)});
      BatchModality input;
      input.steps = lengths[m];
      input.width = widths[m];
      input.x = random_values(batch_size * input.steps * input.width, uint32_t(m));
      input.lengths.assign(size_t(batch_size), int32_t(input.steps));
      batch.modalities.push_back(std::move(input));
    }
    for (int64_t b = 0; b < batch_size; ++b)
      batch.labels.push_back(config.classification() ? real(b % config.num_classes)
                                                     : real(b % 7) - 3);

    Network network(config, sizes, config_path);
    network.parameters().initialize(1);
    AdamOptions adam;
    adam.weight_decay = config.weight_decay;
    adam.clip = config.clip;
    Optimizer optimizer(network.parameters(), adam, config.learning_rate);
    const Device device(Cpu{threads});
    Tape tape(device);
    RandomState random{1, 0};
    std::vector<double> ms;
    constexpr int64_t kWarmUp = 3;
    for (int64_t step = 0; step < steps + kWarmUp; ++step) {
      const auto start = std::chrono::steady_clock::now();
      tape.reset();
      optimizer.zero_grad(device);
      random.step = uint64_t(step);
      const Result result = network.forward(tape, batch, &random);
      tape.backward(result.total);
      optimizer.step(device);
      const std::chrono::duration<double, std::milli> spent =
          std::chrono::steady_clock::now() - start;
      if (step >= kWarmUp) ms.push_back(spent.count());
    }
    std::cout << nlohmann::json{{"ms", ms}}.dump() << "\n";
  } catch (const std::exception& e) {
    std::cerr << "bench_step: " << e.what() << "\n";
    return 2;
  }
}
