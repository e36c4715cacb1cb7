// Times whole training steps: forward, losses, backward, clipping, Adam, with the config's dropout,
// on random data.
//
//   bench_step --config C.json --batch 32 --seq 50,50,50 --dims 768,5,20 --threads 2 --steps 20
//
// prints one JSON line {"ms": [...], "peak_mb": ...}: milliseconds of every step after a warm-up of
// three, and the largest resident memory. On a GPU (--device cuda) float features are stepped by
// replaying a recorded graph. With --bert FOLDER text is token ids, --tokens LO,HI of
// them attended in each clip, and the encoder of FOLDER is trained too.
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <iostream>
#include <nlohmann/json.hpp>
#include <numeric>

#include "autograd/cuda_device.h"
#include "model/bert.h"
#include "model/parameter_groups.h"
#include "model/pretrained.h"
#include "model/recorded_steps.h"

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

constexpr int64_t kWarmUp = 3;

// The batch as a data set of its size, which a device can hold.
Split split_of(const Batch& batch, const std::vector<ModalitySize>& sizes) {
  Split split;
  for (size_t m = 0; m < sizes.size(); ++m) {
    Sequences s;
    s.name = sizes[m].name, s.count = batch.count, s.steps = sizes[m].steps;
    s.width = sizes[m].width;
    const BatchModality& from = batch.modalities[m];
    s.values.assign(from.x.begin(), from.x.end());
    s.tokens = from.tokens, s.lengths = from.lengths;
    split.modalities.push_back(std::move(s));
  }
  split.labels.assign(batch.labels.begin(), batch.labels.end());
  return split;
}

// Milliseconds of every step, each waited for.
template <class Step>
std::vector<double> timed(int64_t steps, Step step) {
  std::vector<double> ms;
  for (int64_t i = 0; i < steps + kWarmUp; ++i) {
    const auto start = std::chrono::steady_clock::now();
    step(i);
    const std::chrono::duration<double, std::milli> spent =
        std::chrono::steady_clock::now() - start;
    if (i >= kWarmUp) ms.push_back(spent.count());
  }
  return ms;
}

std::vector<double> eager_steps(Network& network, Optimizer& optimizer, Tape& tape,
                                const Batch& batch, int64_t steps) {
  Buffer<RandomState> random(tape.device(), 1);
  return timed(steps, [&](int64_t i) {
    tape.reset();
    optimizer.zero_grad();
    const RandomState now{1, uint64_t(i)};
    random.upload({&now, 1});
    const Result result = network.forward(tape, batch, random.data());
    tape.backward(result.total);
    optimizer.step();
    tape.device().wait();
  });
}

std::vector<double> recorded_steps(Network& network, Optimizer& optimizer, Tape& tape,
                                   const Split& split, int64_t steps) {
  RecordedSteps recorded(network, optimizer, tape, split);
  std::vector<int64_t> order(split.labels.size());
  std::iota(order.begin(), order.end(), int64_t(0));
  return timed(steps, [&](int64_t i) {
    recorded.begin(order, {1, uint64_t(i)});
    recorded.queue(std::ssize(order), 0, 1);
    (void)recorded.receive(true);
  });
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("whole training steps on random data");
  std::string config_path;
  int64_t batch_size = 32, steps = 20;
  std::string bert_folder, device_name = "cpu";
  std::vector<int64_t> lengths{50, 50, 50}, widths{768, 5, 20}, attended{8, 24};
  int threads = 0;
  app.add_option("--config", config_path)->required();
  app.add_option("--batch", batch_size);
  app.add_option("--seq", lengths)->delimiter(',');
  app.add_option("--dims", widths)->delimiter(',');
  app.add_option("--bert", bert_folder);
  app.add_option("--tokens", attended)->delimiter(',')->expected(2);
  app.add_option("--threads", threads);
  app.add_option("--device", device_name);
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
    const OpenDevice opened = open_device(device_name, threads, config.precision);
    const Device& device = opened.device;
    network.parameters().initialize(1);
    network.move_to(device);
    if (encoder) load_bert(network.parameters(), Safetensors(encoder->weights()));
    Optimizer optimizer(network.parameters(),
                        parameter_groups(config, network.encoder(), config.learning_rate));
    Tape tape(device);
    const Split split = split_of(batch, sizes);
    const bool recorded = !device.on_host();
    const std::vector<double> ms = recorded ? recorded_steps(network, optimizer, tape, split, steps)
                                            : eager_steps(network, optimizer, tape, batch, steps);
    std::cout << nlohmann::json{{"ms", ms},
                                {"device", opened.description},
                                {"recorded", recorded},
                                {"peak_mb", peak_megabytes()}}
                     .dump()
              << "\n";
  } catch (const std::exception& e) {
    std::cerr << "bench_step: " << e.what() << "\n";
    return 2;
  }
}
