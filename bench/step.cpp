// Times whole training steps: forward, losses, backward, clipping, Adam, with the config's dropout,
// on random data.
//
//   bench_step --config C.json --batch 32 --seq 50,50,50 --dims 768,5,20 --threads 2 --steps 20
//
// prints one JSON line {"ms": [...], "peak_mb": ...}: milliseconds of every step after a warm-up of
// three, and the largest resident memory. With --bert FOLDER text is token ids, --tokens LO,HI of
// them attended in each clip, and the encoder of FOLDER is trained too.
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <iostream>
#include <nlohmann/json.hpp>

#include "kernels/dropout_mask.h"
#include "model/bert.h"
#include "model/network.h"
#include "model/parameter_groups.h"
#include "model/pretrained.h"

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

uint32_t random_below(int64_t i, uint32_t stream, int64_t n) {
  return uint32_t(philox({uint32_t(i), stream, 1, 0}, {7, 7})[0] % uint64_t(n));
}

// Token ids [B, 3, T] with between lo and hi attended tokens a clip.
std::vector<int32_t> random_tokens(int64_t batch, int64_t steps, int64_t lo, int64_t hi,
                                   int64_t vocabulary) {
  std::vector<int32_t> tokens(size_t(batch * 3 * steps), 0);
  for (int64_t b = 0; b < batch; ++b) {
    const int64_t length = std::min(steps, lo + int64_t(random_below(b, 1, hi - lo + 1)));
    for (int64_t t = 0; t < length; ++t) {
      tokens[size_t(3 * b * steps + t)] = int32_t(random_below(b * steps + t, 2, vocabulary));
      tokens[size_t((3 * b + 1) * steps + t)] = 1;
    }
  }
  return tokens;
}

double peak_megabytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return double(usage.ru_maxrss) / 1024;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("whole training steps on random data");
  std::string config_path;
  int64_t batch_size = 32, steps = 20;
  std::string bert_folder;
  std::vector<int64_t> lengths{50, 50, 50}, widths{768, 5, 20}, attended{8, 24};
  int threads = 0;
  app.add_option("--config", config_path)->required();
  app.add_option("--batch", batch_size);
  app.add_option("--seq", lengths)->delimiter(',');
  app.add_option("--dims", widths)->delimiter(',');
  app.add_option("--bert", bert_folder);
  app.add_option("--tokens", attended)->delimiter(',')->expected(2);
  app.add_option("--threads", threads);
  app.add_option("--steps", steps);
  CLI11_PARSE(app, argc, argv);

  try {
    const Config config = parse_config(read_json(config_path), config_path);
    std::optional<Pretrained> encoder;
    if (!bert_folder.empty()) {
      encoder = open_pretrained(bert_folder);
      widths.at(0) = encoder->config.hidden_size;
    }
    const char* names[] = {"text", "audio", "vision"};
    std::vector<ModalitySize> sizes;
    Batch batch;
    batch.count = batch_size;
    for (size_t m = 0; m < 3; ++m) {
      sizes.push_back({names[m], lengths.at(m), widths.at(m)});
      BatchModality input;
      input.steps = lengths[m];
      input.width = widths[m];
      if (m == 0 && encoder)
        input.tokens = random_tokens(batch_size, input.steps, attended[0], attended[1],
                                     encoder->config.vocab_size);
      else
        input.x = random_values(batch_size * input.steps * input.width, uint32_t(m));
      input.lengths.assign(size_t(batch_size), int32_t(input.steps));
      batch.modalities.push_back(std::move(input));
    }
    for (int64_t b = 0; b < batch_size; ++b)
      batch.labels.push_back(config.classification() ? real(b % config.num_classes)
                                                     : real(b % 7) - 3);

    Network network(config, sizes, config_path,
                    encoder ? std::optional(encoder->config) : std::nullopt);
    const Device device(Cpu{threads});
    network.parameters().initialize(1);
    network.move_to(device);
    if (encoder) load_bert(network.parameters(), Safetensors(encoder->weights()));
    Optimizer optimizer(network.parameters(),
                        parameter_groups(config, network.encoder(), config.learning_rate));
    Tape tape(device);
    RandomState random{1, 0};
    std::vector<double> ms;
    constexpr int64_t kWarmUp = 3;
    for (int64_t step = 0; step < steps + kWarmUp; ++step) {
      const auto start = std::chrono::steady_clock::now();
      tape.reset();
      optimizer.zero_grad();
      random.step = uint64_t(step);
      const Result result = network.forward(tape, batch, &random);
      tape.backward(result.total);
      optimizer.step();
      const std::chrono::duration<double, std::milli> spent =
          std::chrono::steady_clock::now() - start;
      if (step >= kWarmUp) ms.push_back(spent.count());
    }
    std::cout << nlohmann::json{{"ms", ms}, {"peak_mb", peak_megabytes()}}.dump() << "\n";
  } catch (const std::exception& e) {
    std::cerr << "bench_step: " << e.what() << "\n";
    return 2;
  }
}
