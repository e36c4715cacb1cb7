// The text encoder: hidden states and gradients beside transformers.BertModel's, tokens as rows,
// recomputed layers, weights in and out.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "data/safetensors.h"
#include "model/bert.h"
#include "model/config.h"
#include "support.h"
#include "temporary_folder.h"

using namespace decalign;
using namespace decalign::test;
using decalign::testing::TemporaryFolder;

namespace {

const std::string kCases = std::string(DECALIGN_GOLDEN) + "/../bert_hidden/";

/// A pretrained folder of tests/golden/bert_hidden with its inputs and expected results.
struct Case {
  std::string folder;
  BertConfig config = parse_bert_config(read_json(folder + "/config.json"), folder);
  Safetensors expected;
  BatchModality text{};
  int64_t batch = 0;
  Values cotangent{};

  explicit Case(const std::string& name) : Case(kCases + name, kCases + name) {}
  Case(const std::string& pretrained, const std::string& results)
      : folder(pretrained), expected(results + "/expected.safetensors") {
    const Safetensors inputs(results + "/inputs.safetensors");
    const auto& shape = inputs.view("input_ids").shape;
    batch = shape[0], text.steps = shape[1], text.width = config.hidden_size;
    const auto ids = inputs.integers("input_ids"), mask = inputs.integers("attention_mask"),
               types = inputs.integers("token_type_ids");
    // Any mark but 0 is attention; 100 makes its row the larger one whatever the segments are.
    for (int64_t b = 0; b < batch; ++b)
      for (const auto& [row, scale] : {std::pair(&ids, 1), {&mask, 100}, {&types, 1}})
        for (int64_t t = 0; t < text.steps; ++t)
          text.tokens.push_back(scale * int32_t((*row)[size_t(b * text.steps + t)]));
    if (!inputs.has("cotangent")) return;
    for (double x : inputs.doubles("cotangent")) cotangent.push_back(real(x));
  }

  Parameters parameters() const {
    Parameters p;
    add_bert_parameters(p, config, true);
    load_bert(p, Safetensors(folder + "/model.safetensors"));
    return p;
  }
};

/// max|got - want| / max|want|, NaN if any; the difference itself where all expected are zero.
double error_of(In got, const std::vector<double>& want) {
  REQUIRE(got.size() == want.size());
  double gap = 0, top = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    const double difference = std::abs(double(got[i]) - want[i]);
    if (!(difference <= gap)) gap = difference;
    top = std::max(top, std::abs(want[i]));
  }
  return top > 0 ? gap / top : gap;
}

struct Pass {
  Values hidden, gradients;
};

/// Hidden states and, from the cotangent, the gradients of all parameters.
Pass run(const Case& c, Parameters& parameters, int threads, const BertOptions& options = {},
         bool packed = false) {
  std::fill(parameters.grads().begin(), parameters.grads().end(), real(0));
  Tape tape(Device(Cpu{threads}));
  const TokenRows tokens = token_rows(tape, c.text, c.batch, packed);
  const Tensor hidden = bert(tape, parameters, c.config, tokens, options);
  Pass pass{{hidden.value.begin(), hidden.value.end()}, {}};
  if (!packed && options.trained && !c.cotangent.empty()) tape.backward(hidden, In(c.cotangent));
  pass.gradients.assign(parameters.grads().begin(), parameters.grads().end());
  return pass;
}

std::string message(const std::function<void()>& call) {
  try {
    call();
  } catch (const input_error& e) {
    return e.what();
  }
  return "no error";
}

}  // namespace

TEST_CASE("bert: hidden states and gradients are transformers.BertModel's", "[model][bert]") {
  for (const char* name : {"plain", "older"}) {
    INFO(name);
    const Case c(name);
    const nlohmann::json f32_error = read_json(c.folder + "/f32_error.json");
    const auto limit = [&](const std::string& tensor) {
      return sizeof(real) == 8 ? 1e-12 : 2 * f32_error.at(tensor).get<double>() + 1e-6;
    };
    Parameters parameters = c.parameters();
    const Pass pass = run(c, parameters, 2);
    CHECK(error_of(pass.hidden, c.expected.doubles("hidden")) <= limit("hidden"));
    int compared = 0;
    for (const Parameter& p : parameters.list()) {
      const std::string tensor = "grad." + p.name.substr(std::string(kEncoderPrefix).size());
      INFO(tensor);
      CHECK(error_of(parameters.grads(p), c.expected.doubles(tensor)) <= limit(tensor));
      ++compared;
    }
    CHECK(compared == 5 + 16 * c.config.num_hidden_layers);
  }
}

// DECALIGN_BERT_HIDDEN names a folder that tests/golden/make_bert_hidden.py --real wrote.
TEST_CASE("bert: a real encoder's hidden states are transformers.BertModel's", "[model][bert]") {
  const char* results = std::getenv("DECALIGN_BERT_HIDDEN");
  if (results == nullptr) {
    std::puts("skipped: no pretrained model");
    return;
  }
  const Case c(std::string(results) + "/pretrained", results);
  Parameters parameters = c.parameters();
  const std::vector<double> want = c.expected.doubles("hidden");
  const std::vector<uint8_t> attended = attended_tokens(c.text, c.batch);
  const auto at = [&](const auto& rows, bool mark) {
    std::remove_cvref_t<decltype(rows)> chosen;
    for (size_t i = 0; i < rows.size(); ++i)
      if (bool(attended[i / size_t(c.config.hidden_size)]) == mark) chosen.push_back(rows[i]);
    return chosen;
  };
  const Values hidden = run(c, parameters, 2).hidden;
  const double limit = sizeof(real) == 8 ? 1e-12 : 2e-5;
  const double tokens = error_of(at(hidden, true), at(want, true)),
               padding = error_of(at(hidden, false), at(want, false)),
               packed = error_of(run(c, parameters, 2, {}, true).hidden, at(want, true));
  std::printf("largest error of tokens %.1e, padding %.1e, packed tokens %.1e\n", tokens, padding,
              packed);
  CHECK(tokens <= limit);
  CHECK(padding <= limit);
  CHECK(packed <= limit);
}

TEST_CASE("bert: every number of threads and recomputed layers give the same bits",
          "[model][bert]") {
  const Case c("plain");
  Parameters parameters = c.parameters();
  const RandomState random{5, 3};
  for (const bool dropped : {false, true}) {
    uint32_t ops = 0;
    BertOptions options;
    if (dropped) options.dropout = [&](double) { return Dropout{0.25, &random, ops++}; };
    const Pass once = run(c, parameters, 1, options);
    for (const bool recompute : {false, true}) {
      ops = 0;
      options.recompute = recompute;
      const Pass again = run(c, parameters, 3, options);
      CHECK(again.hidden == once.hidden);
      CHECK(again.gradients == once.gradients);
    }
    if (dropped) CHECK_FALSE(once.hidden == run(c, parameters, 1).hidden);
  }
}

TEST_CASE("bert: without training no gradient is computed", "[model][bert]") {
  const Case c("plain");
  Parameters parameters = c.parameters();
  BertOptions options;
  options.trained = false;
  const Pass frozen = run(c, parameters, 1, options);
  CHECK(frozen.hidden == run(c, parameters, 1).hidden);
  Tape tape;
  CHECK_FALSE(bert(tape, parameters, c.config, token_rows(tape, c.text, c.batch, false), options)
                  .requires_grad());
}

TEST_CASE("bert: packed tokens have the hidden states they have among padding", "[model][bert]") {
  const Case c("plain");
  Parameters parameters = c.parameters();
  const Values whole = run(c, parameters, 2).hidden,
               packed = run(c, parameters, 2, {}, true).hidden;
  const std::vector<uint8_t> attended = attended_tokens(c.text, c.batch);
  std::vector<double> want;
  for (size_t row = 0; row < attended.size(); ++row)
    for (int64_t j = 0; attended[row] && j < c.config.hidden_size; ++j)
      want.push_back(double(whole[row * size_t(c.config.hidden_size) + size_t(j)]));
  CHECK(want.size() < whole.size());
  require_close(packed, want, 64);
}

TEST_CASE("tokens: rows, positions and runs of keys", "[model][bert]") {
  Tape tape;
  BatchModality text;
  text.steps = 4;
  text.tokens = {7, 8, 9, 4, 1, 1, 0, 1, 0, 0, 1, 0,   // a hole
                 5, 6, 0, 0, 1, 1, 0, 0, 0, 1, 0, 0,   //
                 3, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0};  // nothing attended
  const TokenRows all = token_rows(tape, text, 3, false);
  CHECK(all.rows.total() == 12);
  CHECK(all.ids[4] == 5);
  CHECK(all.segments[2] == 1);
  CHECK(all.positions == std::vector<int32_t>{0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3});
  CHECK(all.ranges_per_sequence == 2);
  REQUIRE(all.keys.size() == 6);
  CHECK((all.keys[0].row == 0 && all.keys[0].length == 2));
  CHECK((all.keys[1].row == 3 && all.keys[1].length == 1));
  CHECK((all.keys[2].row == 4 && all.keys[2].length == 2));
  CHECK((all.keys[3].length == 0 && all.keys[4].length == 0 && all.keys[5].length == 0));
  const TokenRows packed = token_rows(tape, text, 3, true);
  CHECK(packed.ids == std::vector<int32_t>{7, 8, 4, 5, 6});
  CHECK(packed.positions == std::vector<int32_t>{0, 1, 3, 0, 1});
  CHECK(packed.rows.length(0) == 3);
  CHECK(packed.rows.length(2) == 0);
  CHECK(packed.ranges_per_sequence == 1);
}

TEST_CASE("bert: weights that do not fit, and ids outside the tables, are one line",
          "[model][bert][errors]") {
  const Case c("older");
  const Safetensors file(c.folder + "/model.safetensors");
  BertConfig wrong = c.config;
  wrong.intermediate_size += 1;
  Parameters parameters;
  add_bert_parameters(parameters, wrong, true);
  CHECK_THAT(message([&] { load_bert(parameters, file); }),
             Catch::Contains("model.safetensors: tensor \"bert.encoder.layer.0.intermediate.dense."
                             "weight\" is ["));
  wrong = c.config;
  wrong.num_hidden_layers += 1;
  Parameters deeper;
  add_bert_parameters(deeper, wrong, true);
  const std::string missing = "encoder.layer." + std::to_string(c.config.num_hidden_layers) + ".";
  CHECK_THAT(message([&] { load_bert(deeper, file); }),
             Catch::Contains("model.safetensors") && Catch::Contains(missing));
  CHECK_FALSE(unused_bert_weights(c.config, file).empty());

  Parameters fitting = c.parameters();
  Case outside("older");
  outside.text.tokens[0] = int32_t(c.config.vocab_size);
  CHECK_THAT(message([&] { run(outside, fitting, 1); }), Catch::Contains("token id"));
  outside = Case("older");
  outside.text.tokens[size_t(2 * outside.text.steps)] = int32_t(c.config.type_vocab_size);
  CHECK_THAT(message([&] { run(outside, fitting, 1); }), Catch::Contains("segment id"));
}
