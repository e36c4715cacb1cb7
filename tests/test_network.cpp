// The network: names and shapes of its weights, determinism, dropout, packed sequences, errors.
#include <map>

#include "data/dataset.h"
#include "model/config_keys.h"
#include "model/network.h"
#include "small_config.h"
#include "support.h"

using namespace decalign;
using namespace decalign::test;

namespace {

Config small_config() {
  Config config = decalign::testing::small_config();
  config.pde_dim = 5;
  config.lambda_ot = 1;
  config.embed_dropout = config.relu_dropout = config.res_dropout = 0;
  config.attn_dropout["l"] = 0;
  config.ct_weight = 0.1;
  return config;
}

/// Every kind of dropout there is.
Config with_dropout(Config config) {
  config.embed_dropout = config.relu_dropout = config.res_dropout = 0.2;
  config.output_dropout = config.text_dropout = 0.3;
  for (const char* suffix : {"l", "a", "v"}) config.attn_dropout[suffix] = 0.25;
  return config;
}

const std::vector<ModalitySize> kThree{{"text", 5, 7}, {"audio", 6, 3}, {"vision", 4, 8}};

Batch random_batch(const std::vector<ModalitySize>& sizes, int64_t count, unsigned seed = 3) {
  Batch batch;
  batch.count = count;
  for (const ModalitySize& size : sizes) {
    BatchModality m;
    m.x = on_host(uniform(count * size.steps * size.width, -1, 1, ++seed));
    m.steps = size.steps;
    m.width = size.width;
    m.lengths.assign(size_t(count), int32_t(size.steps));
    batch.modalities.push_back(std::move(m));
  }
  batch.labels = on_host(uniform(count, -2, 2, ++seed));
  return batch;
}

struct StepResult {
  Values logits, final_rep, grads;
  std::map<std::string, double> losses;
};

/// Forward and backward on fresh memory.
StepResult run_step(const Config& config, const std::vector<ModalitySize>& sizes,
                    const Batch& batch, const RandomState* random, int threads = 1) {
  Network network(config, sizes, "config");
  network.parameters().initialize(5);
  Tape tape{Device(Cpu{threads})};
  const Result r = network.forward(tape, batch, random);
  StepResult out;
  out.logits.assign(r.logits.value.begin(), r.logits.value.end());
  out.final_rep.assign(r.final_rep.value.begin(), r.final_rep.value.end());
  const std::pair<const char*, const Tensor*> terms[] = {{"task", &r.task}, {"dec", &r.dec},
                                                         {"hete", &r.hete}, {"homo", &r.homo},
                                                         {"ct", &r.ct},     {"total", &r.total}};
  for (const auto& [name, tensor] : terms)
    if (*tensor) out.losses[name] = double(tensor->value[0]);
  if (r.total) tape.backward(r.total);
  const InOut grads = network.parameters().grads();
  out.grads.assign(grads.begin(), grads.end());
  return out;
}

std::string error_of(const Config& config, std::vector<ModalitySize> sizes) {
  try {
    Network network(config, std::move(sizes), "some.json");
  } catch (const input_error& e) {
    return e.what();
  }
  return "no error";
}

}  // namespace

TEST_CASE("network: parameters have the release's names and shapes", "[model][network]") {
  Config config = small_config();
  config.conv1d_kernel_size["a"] = 3;
  Network network(config, kThree, "config");
  std::map<std::string, Shape> expected{
      {"proj_l.weight", {8, 7, 1}},  {"proj_a.weight", {8, 3, 3}},
      {"proj_v.weight", {8, 8, 1}},  {"encoder_com.weight", {8, 8, 1}},
      {"out_layer.weight", {1, 48}}, {"out_layer.bias", {1}}};
  for (const std::string m : {"l", "a", "v"}) {
    expected["encoder_uni_" + m + ".weight"] = {8, 8, 1};
    const std::string layer = "trans_" + m + ".layers.0.";
    expected[layer + "self_attn.in_proj_weight"] = {24, 8};
    expected[layer + "self_attn.in_proj_bias"] = {24};
    expected[layer + "self_attn.out_proj.weight"] = {8, 8};
    expected[layer + "self_attn.out_proj.bias"] = {8};
    expected[layer + "fc1.weight"] = {32, 8};
    expected[layer + "fc1.bias"] = {32};
    expected[layer + "fc2.weight"] = {8, 32};
    expected[layer + "fc2.bias"] = {8};
    for (const std::string norm : {"attn_layer_norm", "final_layer_norm"})
      for (const std::string part : {".weight", ".bias"}) expected[layer + norm + part] = {8};
    expected["pde_" + m + ".net.0.weight"] = {8, 8};
    expected["pde_" + m + ".net.0.bias"] = {8};
    expected["pde_" + m + ".net.3.weight"] = {5, 8};
    expected["pde_" + m + ".net.3.bias"] = {5};
  }
  std::map<std::string, Shape> found;
  for (const Parameter& p : network.parameters().list()) found[p.name] = p.shape;
  CHECK(found == expected);
  CHECK(found.size() == network.parameters().list().size());
}

TEST_CASE("network: other modalities use their name in parameters and keys", "[model][network]") {
  Config config = small_config();
  config.conv1d_kernel_size["thermal"] = 2;
  Network network(config, {{"text", 5, 7}, {"thermal", 6, 3}}, "config");
  REQUIRE(network.parameters().find("proj_thermal.weight"));
  CHECK(network.parameters().find("proj_thermal.weight")->shape == Shape{8, 3, 2});
  CHECK(network.parameters().find("trans_thermal.layers.0.fc1.bias"));
  CHECK(network.parameters().find("out_layer.weight")->shape == Shape{1, 32});
  CHECK_FALSE(network.parameters().find("proj_a.weight"));
}

TEST_CASE("network: initial values stay within the bound and depend on the seed",
          "[model][network]") {
  Network network(small_config(), kThree, "config");
  Parameters& parameters = network.parameters();
  parameters.initialize(5);
  const Values first(parameters.values().begin(), parameters.values().end());
  for (const Parameter& p : parameters.list()) {
    INFO(p.name);
    double largest = 0;
    for (real v : parameters.values(p)) largest = std::max(largest, std::abs(double(v)));
    if (p.name.ends_with("fc2.weight")) {  // uniform in +-1 / sqrt(32)
      CHECK(largest <= 1 / std::sqrt(32.0));
      CHECK(largest > 0.9 / std::sqrt(32.0));
    }
    if (p.name.ends_with("norm.weight")) CHECK(largest == 1);
    if (p.name.ends_with("in_proj_bias") || p.name.ends_with("out_proj.bias")) CHECK(largest == 0);
  }
  parameters.initialize(6);
  CHECK(Values(parameters.values().begin(), parameters.values().end()) != first);
  parameters.initialize(5);
  CHECK(Values(parameters.values().begin(), parameters.values().end()) == first);
}

TEST_CASE("network: only what a gradient can reach is trained", "[model][network]") {
  Config config = small_config();
  const auto trained = [&](const std::string& name) {
    return Network(config, kThree, "config").parameters().find(name)->trained;
  };
  CHECK(trained("proj_l.weight"));
  CHECK_FALSE(trained("proj_v.weight"));  // vision is as wide as the model
  CHECK(trained("pde_v.net.3.bias"));
  config.active_modalities = {"text", "audio"};
  for (const char* name : {"proj_l.weight", "encoder_uni_a.weight", "trans_l.layers.0.fc1.weight",
                           "encoder_com.weight", "out_layer.weight", "out_layer.bias"})
    CHECK(trained(name));
  for (const char* name : {"proj_v.weight", "encoder_uni_v.weight", "trans_v.layers.0.fc1.weight",
                           "trans_v.layers.0.attn_layer_norm.bias", "pde_l.net.0.weight"})
    CHECK_FALSE(trained(name));

  // A gradient arrives exactly where the flag says so. The keys' bias has none: it shifts all
  // scores of a query alike; neither has the norm's weight where nothing varies.
  Network network(config, kThree, "config");
  network.parameters().initialize(1);
  Tape tape;
  const Batch batch = random_batch(kThree, 6);
  tape.backward(network.forward(tape, batch, nullptr).total);
  for (const Parameter& p : network.parameters().list()) {
    INFO(p.name);
    const InOut grads = network.parameters().grads(p);
    const bool any = std::any_of(grads.begin(), grads.end(), [](real g) { return g != 0; });
    CHECK(any == p.trained);
  }
}

TEST_CASE("network: the total is the weighted sum of the terms, without labels there is none",
          "[model][network]") {
  Config config = small_config();
  config.dec_loss_weight = 0.7, config.alpha = 0.3, config.beta = -0.2, config.ct_weight = 0.4;
  Batch batch = random_batch(kThree, 6);
  const StepResult with = run_step(config, kThree, batch, nullptr);
  const auto& l = with.losses;
  const double total =
      l.at("task") + 0.7 * l.at("dec") + 0.3 * l.at("hete") - 0.2 * l.at("homo") + 0.4 * l.at("ct");
  CHECK(close(l.at("total"), total, 16));
  double square = 0;
  for (size_t i = 0; i < 6; ++i)
    square += std::pow(double(with.logits[i]) - double(batch.labels[i]), 2) / 6;
  CHECK(close(l.at("task"), square, 16));
  batch.labels.clear();
  const StepResult without = run_step(config, kThree, batch, nullptr);
  CHECK(without.logits == with.logits);
  CHECK_FALSE(without.losses.contains("task"));
  CHECK_FALSE(without.losses.contains("total"));
}

#ifdef DECALIGN_F64
// Variant paper as it is: full covariances, Bures costs, the converged transport's envelope
// gradient, sums, lengths. The envelope is exact at convergence, hence the tolerance.
TEST_CASE("network: gradient of variant paper", "[model][network]") {
  Config config = small_config();
  config.variant = "paper";
  apply_variant(config);
  config.ot_num_iters = 5000;
  config.ot_tolerance = 1e-13;
  Batch batch = random_batch(kThree, 6);
  for (BatchModality& m : batch.modalities)
    for (size_t b = 0; b < 6; ++b) m.lengths[b] = int32_t(2 + int64_t(b) % (m.steps - 1));
  Network network(config, kThree, "config");
  Parameters& parameters = network.parameters();
  parameters.initialize(5);
  const auto total = [&] {
    Tape tape{Device(Cpu{1}), false};
    return double(network.forward(tape, batch, nullptr).total.value[0]);
  };
  Tape tape{Device(Cpu{1})};
  tape.backward(network.forward(tape, batch, nullptr).total);
  double largest = 0;
  for (const real g : parameters.grads()) largest = std::max(largest, std::abs(double(g)));
  for (const Parameter& p : parameters.list()) {
    if (!p.trained) continue;
    const InOut values = parameters.values(p);
    for (size_t i = 0; i < values.size(); i += values.size() / 3 + 1) {
      const real x = values[i];
      const auto slope = [&](double h) {
        values[i] = real(double(x) + h);
        const double above = total();
        values[i] = real(double(x) - h);
        const double below = total();
        values[i] = x;
        return (above - below) / (2 * h);
      };
      const double d1 = slope(4e-4), d2 = slope(2e-4), d3 = slope(1e-4);
      const double e1 = (4 * d2 - d1) / 3, e2 = (4 * d3 - d2) / 3;
      const double want = (16 * e2 - e1) / 15, got = double(parameters.grads(p)[i]);
      INFO(p.name << "[" << i << "]: tape " << got << ", differences " << want);
      CHECK(std::abs(got - want) <= 1e-8 * largest);
    }
  }
}
#endif

TEST_CASE("network: a whole step has the same bits for 1 and 2 threads, M = 2 and M = 5",
          "[model][network]") {
  const std::vector<std::vector<ModalitySize>> choices = {
      {{"audio", 9, 3}, {"thermal", 11, 17}},
      {{"text", 12, 9}, {"audio", 30, 5}, {"vision", 20, 16}, {"gaze", 7, 4}, {"touch", 3, 33}}};
  for (const auto& sizes : choices) {
    for (const char* source : {"zeros", "lengths"}) {
      INFO(sizes.size() << " modalities, padding by " << source);
      Config config = with_dropout(small_config());
      config.dst_feature_dim_nheads = {16, 4};
      config.nlevels = 2;
      config.mask_source = source;
      config.use_sequence_mask = true;
      if (config.mask_source == "lengths") config.gmm_covariance = "full";
      Batch batch = random_batch(sizes, 19);
      for (size_t b = 0; b < 19; ++b) batch.modalities[1].lengths[b] = int32_t(1 + b % 7);
      const RandomState random{11, 4};
      const StepResult one = run_step(config, sizes, batch, &random, 1);
      const StepResult two = run_step(config, sizes, batch, &random, 2);
      CHECK(std::isfinite(one.losses.at("total")));
      CHECK(one.losses == two.losses);
      CHECK(one.logits == two.logits);
      CHECK(one.grads == two.grads);
    }
  }
}

TEST_CASE("network: evaluation ignores dropout, training draws anew in every step",
          "[model][network]") {
  const Batch batch = random_batch(kThree, 6);
  const Config plain = small_config();
  const RandomState first{1, 0}, second{1, 1}, other{2, 0};
  const StepResult want = run_step(plain, kThree, batch, nullptr);
  CHECK(run_step(plain, kThree, batch, &first).logits == want.logits);
  CHECK(run_step(with_dropout(plain), kThree, batch, nullptr).logits == want.logits);

  // Each kind by itself changes the result, differently in every step and for every seed.
  const auto check = [&](const char* name, const std::function<void(Config&)>& change) {
    INFO(name);
    Config config = plain;
    change(config);
    CHECK(run_step(config, kThree, batch, nullptr).logits == want.logits);
    const auto grads = [&](const RandomState& r) {
      return run_step(config, kThree, batch, &r).grads;
    };
    CHECK(grads(first) != want.grads);
    CHECK(grads(first) == grads(first));
    CHECK(grads(first) != grads(second));
    CHECK(grads(first) != grads(other));
  };
  check("embed", [](Config& c) { c.embed_dropout = 0.3; });
  check("relu", [](Config& c) { c.relu_dropout = 0.3; });
  check("residual", [](Config& c) { c.res_dropout = 0.3; });
  check("output", [](Config& c) { c.output_dropout = 0.3; });
  check("text", [](Config& c) { c.text_dropout = 0.3; });
  check("attention of text", [](Config& c) { c.attn_dropout["l"] = 0.3; });
  check("attention of audio", [](Config& c) { c.attn_dropout["a"] = 0.3; });
}

TEST_CASE("network: packed sequences give what every sample gives alone", "[model][network]") {
  const int64_t count = 4;
  for (const bool cross : {true, false}) {
    INFO((cross ? "cross attention" : "self-attention"));
    Config config = small_config();
    config.mask_source = "lengths";
    config.use_cross_modal_attention = cross;
    config.nlevels = 2;
    Batch batch = random_batch(kThree, count);
    for (size_t m = 0; m < 3; ++m) {
      for (int64_t b = 0; b < count; ++b) {
        BatchModality& x = batch.modalities[m];
        const int64_t length = 1 + (b + int64_t(m)) % x.steps;
        x.lengths[size_t(b)] = int32_t(length);
        // Whatever lies in the padding must not matter.
        std::fill(x.x.begin() + (b * x.steps + length) * x.width,
                  x.x.begin() + (b + 1) * x.steps * x.width, real(1e6));
      }
    }
    const StepResult packed = run_step(config, kThree, batch, nullptr);
    const size_t wide = packed.final_rep.size() / size_t(count);
    for (int64_t b = 0; b < count; ++b) {
      Batch alone;
      alone.count = 1;
      for (const BatchModality& all : batch.modalities) {
        BatchModality one;
        one.steps = all.lengths[size_t(b)];
        one.width = all.width;
        const auto begin = all.x.begin() + b * all.steps * all.width;
        one.x.assign(begin, begin + one.steps * one.width);
        one.lengths = {int32_t(one.steps)};
        alone.modalities.push_back(std::move(one));
      }
      const StepResult single = run_step(config, kThree, alone, nullptr);
      const auto row = In(packed.final_rep).subspan(size_t(b) * wide, wide);
      // 1e-12 in double: a few thousand rounding errors of numbers near 1.
      require_close(row, {single.final_rep.begin(), single.final_rep.end()}, 4096);
      require_close(In(packed.logits).subspan(size_t(b), 1), {double(single.logits[0])}, 4096);
    }
  }
}

TEST_CASE("network: config and data that do not fit end with a clear line", "[model][network]") {
  CHECK(error_of(small_config(), {{"text", 5, 7}}) ==
        "some.json: DecAlign needs at least two modalities, the data has 1");
  Config config = small_config();
  config.active_modalities = {"text", "gaze"};
  CHECK_THAT(error_of(config, kThree), Catch::Contains("some.json") && Catch::Contains("\"gaze\""));
  config = small_config();
  config.conv1d_kernel_size["a"] = 7;
  CHECK_THAT(error_of(config, kThree),
             Catch::Contains("\"conv1d_kernel_size_a\" is 7") && Catch::Contains("6 steps"));
  config.conv1d_kernel_size["a"] = 6;
  config.conv1d_kernel_size["v"] = 7;  // vision needs no projection
  CHECK(error_of(config, kThree) == "no error");
}

TEST_CASE("network: a batch of other sizes is refused", "[model][network]") {
  Network network(small_config(), kThree, "config");
  network.parameters().initialize(1);
  Tape tape;
  const auto refused = [&](const std::function<void(Batch&)>& change) {
    Batch batch = random_batch(kThree, 3);
    change(batch);
    CHECK_THROWS_AS(network.forward(tape, batch, nullptr), std::invalid_argument);
  };
  refused([](Batch& b) { b.count = 0; });
  refused([](Batch& b) { b.modalities.pop_back(); });
  refused([](Batch& b) { b.modalities[1].width = 4; });
  refused([](Batch& b) { b.modalities[2].x.pop_back(); });
  refused([](Batch& b) { b.labels.pop_back(); });
}
