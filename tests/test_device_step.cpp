// The network on every device: a step's losses and gradients, Adam, recorded steps, a training run.
#include <nlohmann/json.hpp>
#include <numeric>

#include "data/dataset.h"
#include "model/batches.h"
#include "model/config_keys.h"
#include "model/recorded_steps.h"
#include "tests/small_config.h"
#include "tests/support.h"
#ifdef DECALIGN_SIM
#include "tests/sim/control.h"
#include "tests/sim/cost_model.h"
#include "tests/sim/counters.h"
#endif

using namespace decalign;
using namespace decalign::test;

namespace {

using Sizes = std::vector<ModalitySize>;

const Sizes kTwo{{"audio", 9, 3}, {"thermal", 11, 17}};
const Sizes kThree{{"text", 12, 9}, {"audio", 14, 5}, {"vision", 10, 8}};
const Sizes kFive{
    {"text", 6, 9}, {"audio", 8, 5}, {"vision", 7, 16}, {"gaze", 5, 4}, {"touch", 3, 11}};

const BertConfig& small_encoder() {
  static const BertConfig config = [] {
    BertConfig c;
    c.hidden_size = 12, c.num_hidden_layers = 2, c.num_attention_heads = 2;
    c.intermediate_size = 20, c.vocab_size = 30, c.max_position_embeddings = 12;
    return c;
  }();
  return config;
}

// Every kind of dropout, zero-step masks, two layers.
Config config_of(const Sizes& sizes) {
  Config config = decalign::testing::small_config();
  config.nlevels = 2;
  config.lambda_ot = 1;
  config.ct_weight = 0.1;
  config.binary_task_weight = 0.2;
  config.embed_dropout = config.relu_dropout = config.res_dropout = 0.2;
  config.output_dropout = config.text_dropout = 0.3;
  for (const ModalitySize& size : sizes) config.attn_dropout[modality_suffix(size.name)] = 0.25;
  return config;
}

Split split_of(const Sizes& sizes, int64_t count) {
  Split split;
  unsigned seed = 40;
  for (const ModalitySize& size : sizes) {
    Sequences s;
    s.name = size.name, s.count = count, s.steps = size.steps, s.width = size.width;
    const Values x = uniform(count * size.steps * size.width, -1, 1, ++seed);
    s.values.assign(x.begin(), x.end());
    // The last steps of every other sample are padding.
    for (int64_t n = 0; n < count; n += 2)
      std::fill_n(s.values.begin() + ((n + 1) * size.steps - 2) * size.width, 2 * size.width, 0.0f);
    s.lengths.assign(size_t(count), int32_t(size.steps));
    split.modalities.push_back(std::move(s));
  }
  const Values labels = uniform(count, -3, 3, ++seed);
  split.labels.assign(labels.begin(), labels.end());
  for (int64_t n = 0; n < count; ++n) split.ids.push_back(std::to_string(n));
  return split;
}

Batch batch_of(const Split& split, int64_t count) {
  std::vector<int64_t> samples;
  for (int64_t n = 0; n < count; ++n) samples.push_back(n);
  Batch batch;
  gather(split, samples, batch);
  return batch;
}

struct Pass {
  std::vector<double> losses;
  std::vector<real> logits, gradients;
};

Pass run_step(const Config& config, const Sizes& sizes, const Batch& batch, const Device& device) {
  Network network(config, sizes, "config");
  network.parameters().initialize(5);
  network.move_to(device);
  Tape tape(device);
  const RandomState& random = on_devices(RandomState{11, 3});
  const Result r = network.forward(tape, batch, &random);
  tape.backward(r.total);
  Pass pass;
  for (const In term : step_terms(r)) pass.losses.push_back(double(device.read(term, 0)));
  pass.logits = device.read(r.logits.value);
  network.parameters().fetch();
  pass.gradients.assign(network.parameters().grads().begin(), network.parameters().grads().end());
  return pass;
}

// Largest difference over largest entry.
double error_of(In got, In want) {
  REQUIRE(got.size() == want.size());
  double largest = 0, worst = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    largest = std::max(largest, std::abs(double(want[i])));
    const double error = std::abs(double(got[i]) - double(want[i]));
    if (!(error <= worst)) worst = error;
  }
  return worst / std::max(largest, 1e-30);
}

constexpr double kLimit = sizeof(real) == 8 ? 1e-10 : 2e-4;

void compare_with_host(const Config& config, const Sizes& sizes, const Split& split) {
  const Batch batch = batch_of(split, split.modalities[0].count);
  const Pass host = run_step(config, sizes, batch, Device(Cpu{1}));
  for (const Device& device : devices()) {
    INFO(sizes.size() << " modalities");
    const Pass pass = run_step(config, sizes, batch, device);
    for (size_t i = 0; i < host.losses.size(); ++i)
      CHECK(pass.losses[i] == Approx(host.losses[i]).epsilon(kLimit));
    CHECK(error_of(pass.logits, host.logits) <= kLimit);
    Network network(config, sizes, "config");
    for (const Parameter& p : network.parameters().list()) {
      const auto part = [&](const Pass& from) {
        return In(from.gradients).subspan(size_t(p.offset), size_t(p.size()));
      };
      INFO(p.name);
      // The keys' bias has a gradient of nothing but rounding.
      if (p.name.ends_with("in_proj_bias")) continue;
      CHECK(error_of(part(pass), part(host)) <= kLimit);
    }
  }
}

// Lengths from 1 to all of a modality's steps, none of the second sample's.
void shorten(Split& split) {
  for (Sequences& s : split.modalities)
    for (int64_t n = 0; n < s.count; ++n)
      s.lengths[size_t(n)] = n == 1 ? 0 : int32_t(1 + (7 * n + s.width) % s.steps);
}

}  // namespace

TEST_CASE("device step: losses and gradients are the host's", "[model][device]") {
  for (const Sizes& sizes : {kTwo, kThree, kFive})
    compare_with_host(config_of(sizes), sizes, split_of(sizes, 6));
}

// Full covariances, Bures costs, sums, transport in the log domain with its envelope gradient,
// sequences without padding.
TEST_CASE("device step: losses and gradients of variant paper are the host's", "[model][device]") {
  for (const Sizes& sizes : {kTwo, kThree, kFive}) {
    Config config = config_of(sizes);
    config.nlevels = 1;
    config.num_prototypes = 2;
    config.variant = "paper";
    apply_variant(config);
    Split split = split_of(sizes, 4);
    shorten(split);
    compare_with_host(config, sizes, split);
  }
}

#ifdef DECALIGN_CUDA
TEST_CASE("device step: in tf32 and bf16 it is near that in fp32", "[model][device][precision]") {
  const Config config = config_of(kThree);
  const Split split = split_of(kThree, 6);
  const Batch batch = batch_of(split, 6);
  for (const Device& device : devices()) {
    if (device.on_host()) continue;
    const Pass full = run_step(config, kThree, batch, device);
    for (const auto& [precision, unit] :
         {std::pair{Precision::tf32, 0x1p-11}, std::pair{Precision::bf16, 0x1p-8}}) {
      Cuda be = *device.cuda();
      be.precision = precision;
      const Pass pass = run_step(config, kThree, batch, Device(be));
      for (size_t i = 0; i < full.losses.size(); ++i) {
        INFO("loss " << i << ", bf16 " << (precision == Precision::bf16));
        CHECK(std::abs(pass.losses[i] - full.losses[i]) <=
              4 * unit * (1 + std::abs(full.losses[i])));
      }
      CHECK(error_of(pass.gradients, full.gradients) <= 64 * unit);
      CHECK((pass.gradients != full.gradients) == (sizeof(real) == 4));
    }
  }
}
#endif

TEST_CASE("device step: Adam on equal gradients gives the host's weights", "[model][device]") {
  const auto trained = [](const Device& device) {
    Network network(config_of(kThree), kThree, "config");
    Parameters& parameters = network.parameters();
    parameters.initialize(5);
    network.move_to(device);
    AdamOptions options;
    options.clip = 0.6;
    options.weight_decay = 0.01;
    Optimizer optimizer(parameters, options, 0.01);
    for (unsigned t = 0; t < 4; ++t) {
      const Values g = uniform(std::ssize(parameters.grads()), -1, 1, t);
      device.upload(g.data(), parameters.device_grads().data(), g.size() * sizeof(real));
      optimizer.step();
    }
    parameters.fetch();
    return std::vector<real>(parameters.values().begin(), parameters.values().end());
  };
  const std::vector<real> host = trained(Device(Cpu{1}));
  for (const Device& device : devices())
    CHECK(error_of(trained(device), host) <= 16 * std::numeric_limits<real>::epsilon());
}

namespace {

// Token ids for the first modality's values, of which some at the end, and one in between, are not
// attended.
void tokenize(Split& split) {
  Sequences& text = split.modalities[0];
  text.values.clear();
  for (int64_t n = 0; n < text.count; ++n)
    for (int row = 0; row < 3; ++row)
      for (int64_t t = 0; t < text.steps; ++t) {
        const bool seen = t < 1 + 5 * n % text.steps && !(n == 4 && t == 1);
        text.tokens.push_back(row == 0 ? int32_t(3 + (11 * n + 5 * t) % 26) : row == 1 ? seen : 0);
      }
}

// Three epochs of batches of 4, 4 and 2, as they are and recorded.
void compare_recorded(const Config& config, const Split& split,
                      const std::optional<BertConfig>& encoder = {},
                      std::optional<size_t> budget = {}) {
  const std::vector<int64_t> order{3, 1, 4, 0, 5, 9, 2, 6, 8, 7};
  if (!gpu()) return;
  const Device& device = *gpu();
  const auto start = [&](Network& network) -> Parameters& {
    network.parameters().initialize(5);
    network.move_to(device);
    return network.parameters();
  };
  AdamOptions options;
  options.clip = 0.6;
  const std::vector<ModalitySize> sizes = modality_sizes(split);
  Network eager(config, sizes, "config", encoder);
  const std::vector<ParameterGroup> groups(encoder ? size_t(encoder->num_hidden_layers) + 2 : 1,
                                           {options, 0.003});
  Optimizer eager_optimizer(start(eager), groups, 0.9);
  Tape eager_tape(device);
  std::vector<double> losses;
  Buffer<RandomState> random(device, 1);
  for (int64_t step = 0; step < 9; ++step) {
    const int64_t first = step % 3 * 4;
    Batch batch;
    gather(split, std::span(order).subspan(size_t(first), size_t(std::min<int64_t>(4, 10 - first))),
           batch);
    eager_tape.reset();
    eager_optimizer.zero_grad();
    const RandomState now{7, uint64_t(step)};
    random.upload({&now, 1});
    const Result r = eager.forward(eager_tape, batch, random.data());
    losses.push_back(double(device.read(r.total.value, 0)));
    eager_tape.backward(r.total);
    eager_optimizer.step();
  }
  Network network(config, sizes, "config", encoder);
  Optimizer optimizer(start(network), groups, 0.9);
  Tape tape(device);
  RecordedSteps steps(network, optimizer, tape, split, budget);
  CHECK(steps.resident() == !budget);
  std::vector<double> recorded;
  for (uint64_t epoch = 0; epoch < 3; ++epoch) {
    steps.begin(order, {7, 3 * epoch});
    for (const int64_t count : {4, 4, 2}) steps.queue(count, 0, 1);
    for (int i = 0; i < 3; ++i) recorded.push_back(steps.receive(true)->total());
    CHECK_FALSE(steps.receive(true));
  }
  CHECK(recorded == losses);
  CHECK(steps.nodes() > 0);
  CHECK(optimizer.steps() == 9);
  CHECK(optimizer.average() == eager_optimizer.average());
  {
    const AveragedWeights averaged(network.parameters(), optimizer);
    network.parameters().fetch();  // from the device
    CHECK(std::ranges::equal(network.parameters().values(), optimizer.average()));
  }
  eager.parameters().fetch();
  network.parameters().fetch();
  CHECK(std::equal(network.parameters().values().begin(), network.parameters().values().end(),
                   eager.parameters().values().begin()));
}

}  // namespace

TEST_CASE("device step: recorded steps are the eager steps to the bit",
          "[model][device][recorded]") {
  compare_recorded(config_of(kThree), split_of(kThree, 10));
}

TEST_CASE("device step: recorded steps without padding are the eager steps to the bit",
          "[model][device][recorded]") {
  Config config = config_of(kThree);
  config.mask_source = "lengths";
  Split split = split_of(kThree, 10);
  shorten(split);
  compare_recorded(config, split);
}

TEST_CASE("device step: recorded steps with a text encoder are the eager steps to the bit",
          "[model][device][recorded]") {
  Split split = split_of(kThree, 10);
  tokenize(split);
  split.modalities[0].width = small_encoder().hidden_size;
  for (const bool recompute : {false, true}) {
    Config config = config_of(kThree);
    config.mask_source = recompute ? "lengths" : "zeros";
    config.use_bert = true;
    config.checkpoint_activations = recompute;
    compare_recorded(config, split, small_encoder());
  }
}

TEST_CASE("device step: recorded steps on features that stay on the host",
          "[model][device][recorded]") {
  Split split = split_of(kThree, 10);
  const size_t bytes = 10 * (12 * 9 + 14 * 5 + 10 * 8) * sizeof(float);
  compare_recorded(config_of(kThree), split, {}, bytes - 1);
  Config config = config_of(kThree);
  config.mask_source = "lengths";
  shorten(split);
  compare_recorded(config, split, {}, 0);
}

#ifdef DECALIGN_SIM
TEST_CASE("device step: the device gets a step without padding in one launch", "[model][device]") {
  Config config = config_of(kThree);
  config.mask_source = "lengths";
  Split split = split_of(kThree, 40);
  shorten(split);
  const Device& device = devices().front();
  Network network(config, kThree, "config");
  network.parameters().initialize(5);
  network.move_to(device);
  Optimizer optimizer(network.parameters(), AdamOptions{}, 0.003);
  Tape tape(device);
  RecordedSteps steps(network, optimizer, tape, split);
  std::vector<int64_t> order(40);
  std::iota(order.begin(), order.end(), int64_t(0));
  for (int epoch = 0; epoch < 2; ++epoch) {
    steps.begin(order, {7, 0});
    const sim::Counters before = sim::counters();
    for (int i = 0; i < 10; ++i) {
      steps.queue(4, 0, 1);
      steps.receive(true);
    }
    const sim::Counters spent = sim::counters() - before;
    if (epoch == 0) continue;
    WARN("nodes of a step without padding: " << steps.nodes());
    CHECK(steps.nodes() <= 150);
    CHECK(spent.graph_launches == 10);
    CHECK(spent.graph_updates == 10);
    CHECK(spent.uploads == 10);
    CHECK(spent.allocations + spent.frees == 0);
    CHECK(spent.device_copies + spent.memsets + spent.kernels + spent.blas == 0);
  }
}

namespace {

// Steps at the MOSI config: B 32, T 50, precomputed features.
struct MosiSteps {
  MosiSteps() { std::iota(order.begin(), order.end(), int64_t(0)); }
  static Config config() {
    const std::string path = DECALIGN_CONFIGS "/mosi.json";
    Config config = parse_config(read_json(path), path);
    config.use_bert = false;
    return config;
  }
  Parameters& start() {
    network.parameters().initialize(5);
    network.move_to(device);
    return network.parameters();
  }
  void begin() {
    steps.begin(order, {7, 0});
    wait();
  }
  void queue(int count) {
    for (int i = 0; i < count; ++i) steps.queue(32, 0, 1);
  }

  // After steps that were only counted.
  static void execute() {
    wait();
    sim::forget_error();  // nothing has written the losses
    sim::set_execution(true);
  }

  inline static const Sizes kSizes{{"text", 50, 768}, {"audio", 50, 5}, {"vision", 50, 20}};
  const Split split = split_of(kSizes, 32);
  std::vector<int64_t> order = std::vector<int64_t>(32);
  const Device& device = devices().front();
  Network network{config(), kSizes, "config"};
  Optimizer optimizer{start(), AdamOptions{}, 0.003};
  Tape tape{device};
  RecordedSteps steps{network, optimizer, tape, split};
};

}  // namespace

TEST_CASE("device step: a recorded step at the MOSI config is at most 150 nodes",
          "[model][device]") {
  MosiSteps mosi;
  mosi.begin();
  sim::set_execution(false);
  mosi.queue(2);
  const sim::Counters before = sim::counters();
  mosi.queue(2);
  const sim::Counters spent = sim::counters() - before;
  mosi.execute();
  WARN("nodes of a step at the MOSI config: " << mosi.steps.nodes());
  CHECK(mosi.steps.nodes() <= 150);
  // The host only launches, and copies the losses back.
  CHECK(spent.graph_launches == 2);
  CHECK(spent.downloads == 2);
  CHECK(spent.allocations + spent.frees + spent.synchronisations == 0);
  CHECK(spent.uploads + spent.device_copies + spent.memsets + spent.kernels + spent.blas == 0);
}

// For tools/kernel_report --model, with SIM_COST=FILE.
TEST_CASE("device step: what a step at the MOSI config costs", "[.cost]") {
  MosiSteps mosi;
  mosi.begin();
  sim::set_execution(false);
  mosi.queue(2);  // as it is, then recorded
  mosi.execute();
  mosi.begin();
  sim::start_costs();
  mosi.queue(1);
  wait();
  sim::stop_costs();
  CHECK(sim::costs().size() > 40);
  for (int i = 0; i < 2; ++i) mosi.steps.receive(true);
  CHECK(std::isfinite(mosi.steps.receive(true)->total()));
}
#endif
