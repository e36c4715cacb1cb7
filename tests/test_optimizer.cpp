// The optimiser over a network's parameters: Adam by its definition, clipping by the norm of all
// gradients, parameters that are not trained.
#include "model/optimizer.h"
#include "model/parameter_groups.h"
#include "support.h"

using namespace decalign;
using namespace decalign::test;

namespace {

/// Parameters of unequal sizes, so that padding lies between them; the middle one is not trained.
Parameters three_parameters() {
  Parameters parameters;
  parameters.add({"first", {3, 7}, 0, 1, 0, true});
  parameters.add({"fixed", {5}, 0, 1, 0, false});
  parameters.add({"second", {40}, 0, 1, 0, true});
  parameters.add({"third", {1}, 0, 0, 2, true});
  parameters.initialize(3);
  return parameters;
}

void set_gradients(Parameters& parameters, unsigned seed) {
  for (const Parameter& p : parameters.list()) {
    const Values g = uniform(p.size(), -1, 1, ++seed);
    std::copy(g.begin(), g.end(), parameters.grads(p).begin());
  }
}

}  // namespace

TEST_CASE("parameters: found by name, and a name is there once", "[model][optimizer]") {
  Parameters parameters = three_parameters();
  for (const Parameter& p : parameters.list()) CHECK(parameters.find(p.name) == &p);
  CHECK(parameters.find("secon") == nullptr);
  CHECK_THROWS_AS(parameters.add({"second", {2}, 0, 1, 0, true}), std::invalid_argument);
  CHECK(parameters.list().size() == 4);
  Tape tape;
  CHECK(parameters.on(tape, "second").value.data() ==
        parameters.values(parameters.list()[2]).data());
  CHECK_THROWS_AS(parameters.on(tape, "fourth"), std::invalid_argument);
}

TEST_CASE("optimizer: three steps are Adam's definition with clipping and decay",
          "[model][optimizer]") {
  Parameters parameters = three_parameters();
  parameters.move_to(GENERATE(Device(Cpu{1}), Device(Cpu{2})));
  AdamOptions options;
  options.clip = 0.5;
  options.weight_decay = 0.1;
  Optimizer optimizer(parameters, options, 0.05);
  std::vector<std::vector<double>> want, m, v;
  for (const Parameter& p : parameters.list()) {
    const Out value = parameters.values(p);
    want.emplace_back(value.begin(), value.end());
    m.emplace_back(value.size(), 0.0);
    v.emplace_back(value.size(), 0.0);
  }
  for (int t = 1; t <= 3; ++t) {
    optimizer.zero_grad();
    for (real g : parameters.grads()) REQUIRE(g == 0);
    set_gradients(parameters, unsigned(100 * t));
    const double rate = t == 3 ? 0.01 : 0.05;
    optimizer.set_learning_rate(0, rate);
    double norm = 0;  // of every gradient, that of the fixed parameter too
    for (const Parameter& p : parameters.list())
      for (real g : parameters.grads(p)) norm += double(g) * double(g);
    norm = std::sqrt(norm);
    REQUIRE(norm > 2 * options.clip);
    optimizer.step();
    CHECK(close(optimizer.gradient_norm(), norm, 16));
    CHECK(optimizer.steps() == t);
    for (size_t i = 0; i < want.size(); ++i) {
      const Parameter& p = parameters.list()[i];
      INFO(p.name << " after step " << t);
      for (size_t j = 0; j < want[i].size() && p.trained; ++j) {
        const double g = parameters.grads(p)[j] * 0.5 / (norm + 1e-6) + 0.1 * want[i][j];
        m[i][j] = 0.9 * m[i][j] + 0.1 * g;
        v[i][j] = 0.999 * v[i][j] + 0.001 * g * g;
        const double corrected = std::sqrt(v[i][j] / (1 - std::pow(0.999, t))) + 1e-8;
        want[i][j] -= rate * m[i][j] / (1 - std::pow(0.9, t)) / corrected;
      }
      require_close(parameters.values(p), want[i], 64);
    }
  }
}

TEST_CASE("optimizer: what is not trained keeps its bits and its moments stay zero",
          "[model][optimizer]") {
  Parameters parameters = three_parameters();
  const Parameter& fixed = *parameters.find("fixed");
  const Values before(parameters.values(fixed).begin(), parameters.values(fixed).end());
  AdamOptions options;
  options.weight_decay = 1;
  Optimizer optimizer(parameters, options, 0.1);
  set_gradients(parameters, 1);
  optimizer.step();
  CHECK(Values(parameters.values(fixed).begin(), parameters.values(fixed).end()) == before);
  for (int64_t i = 0; i < fixed.size(); ++i)
    CHECK(optimizer.first_moment()[size_t(fixed.offset + i)] == 0);
  for (const char* name : {"first", "second", "third"})
    CHECK(optimizer.second_moment()[size_t(parameters.find(name)->offset)] > 0);
}

TEST_CASE("optimizer: moments and step count carried over continue to the same bits",
          "[model][optimizer]") {
  AdamOptions options;
  options.clip = 1;
  Parameters whole = three_parameters(), half = three_parameters();
  const double decay = GENERATE(0.0, 0.7);
  const std::vector<ParameterGroup> groups{{options, 0.02}};
  Optimizer a(whole, groups, decay), before(half, groups, decay);
  for (unsigned t = 0; t < 4; ++t) {
    set_gradients(whole, 50 * t);
    a.step();
    if (t >= 2) continue;
    set_gradients(half, 50 * t);
    before.step();
  }
  Optimizer b(half, groups, decay);
  b.restore(before.first_moment(), before.second_moment(), before.average(), before.steps());
  for (unsigned t = 2; t < 4; ++t) {
    set_gradients(half, 50 * t);
    b.step();
  }
  CHECK(std::equal(whole.values().begin(), whole.values().end(), half.values().begin()));
  CHECK(a.average() == b.average());
  CHECK(a.average().empty() == (decay == 0));
}

TEST_CASE("optimizer: the average follows the weights, and stands in for them while asked to",
          "[model][optimizer]") {
  AdamOptions options;
  Parameters parameters = three_parameters();
  const double decay = 0.6;  // the first two steps are averaged evenly
  Optimizer optimizer(parameters, {{options, 0.05}}, decay);
  const auto values = [&] {
    return std::vector<double>(parameters.values().begin(), parameters.values().end());
  };
  std::vector<double> want = values();
  for (int t = 1; t <= 4; ++t) {
    set_gradients(parameters, unsigned(20 * t));
    optimizer.step();
    const double take = std::max(1 - decay, 1.0 / t);
    const std::vector<double> now = values();
    for (size_t i = 0; i < want.size(); ++i) want[i] += take * (now[i] - want[i]);
  }
  const std::vector<double> own = values();
  {
    const AveragedWeights averaged(parameters, optimizer);
    require_close(parameters.values(), want, 16);
    for (const char* name : {"first", "second", "third"})
      CHECK(parameters.values(*parameters.find(name))[0] !=
            real(own[size_t(parameters.find(name)->offset)]));
  }
  CHECK(values() == own);
  Optimizer plain(parameters, options, 0.05);
  const AveragedWeights nothing(parameters, plain);
  CHECK(values() == own);
}

TEST_CASE("optimizer: each group has its step size and decay, all share the norm",
          "[model][optimizer]") {
  const auto parameters_of = [](int encoder_group) {
    Parameters parameters;
    parameters.add({"network", {30}, 0, 1, 0, true});
    Parameter encoder{"encoder", {50}, 0, 1, 0, true};
    encoder.group = encoder_group;
    parameters.add(encoder);
    parameters.initialize(3);
    set_gradients(parameters, 1);
    return parameters;
  };
  const auto values_of = [](Parameters& p, size_t i) {
    const Out values = p.values(p.list()[i]);
    return Values(values.begin(), values.end());
  };
  AdamOptions options;
  options.clip = 0.5;
  options.weight_decay = 0.1;
  AdamOptions decayed = options;
  decayed.weight_decay = 0.3;
  // What one group alone does to both parameters.
  Parameters first = parameters_of(0), second = parameters_of(0), grouped = parameters_of(1);
  Optimizer(first, options, 0.05).step();
  Optimizer(second, decayed, 0.01).step();
  Optimizer optimizer(grouped, {{options, 0.05}, {decayed, 0.01}});
  optimizer.step();
  CHECK(values_of(grouped, 0) == values_of(first, 0));
  CHECK(values_of(grouped, 1) == values_of(second, 1));
  CHECK(values_of(grouped, 1) != values_of(first, 1));
  CHECK(optimizer.learning_rate(1) == 0.01);
  CHECK_THROWS_AS(Optimizer(grouped, {{options, 0.05}}), std::invalid_argument);
}

TEST_CASE("parameter groups: layer decay from the top, warm-up of the encoder",
          "[model][optimizer]") {
  Config config;
  config.weight_decay = 0.2;
  BertConfig encoder;
  encoder.num_hidden_layers = 3;
  CHECK(parameter_groups(config, {}, 0.5).size() == 1);
  for (const ParameterGroup& group : parameter_groups(config, encoder, 0.5)) {
    CHECK(group.learning_rate == 0.5);
    CHECK(group.options.weight_decay == 0.2);
  }
  config.bert_learning_rate = 0.1;
  config.bert_weight_decay = 0.0;
  config.bert_layer_decay = 0.5;
  const auto groups = parameter_groups(config, encoder, 0.5);
  REQUIRE(groups.size() == 5);  // network, embeddings, three layers
  const double want[] = {0.5, 0.0125, 0.025, 0.05, 0.1};
  for (size_t g = 0; g < 5; ++g) CHECK(groups[g].learning_rate == Approx(want[g]).epsilon(1e-12));
  CHECK(groups[0].options.weight_decay == 0.2);
  CHECK(groups[1].options.weight_decay == 0);

  CHECK(warmup_factor(config, 0, 100) == 1);
  config.bert_warmup = 0.1;
  CHECK(warmup_factor(config, 0, 100) == Approx(0.1));
  CHECK(warmup_factor(config, 9, 100) == 1);
  CHECK(warmup_factor(config, 50, 100) == 1);
}
