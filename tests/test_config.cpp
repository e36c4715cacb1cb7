// Configs: the shipped ones, errors with the nearest key, overrides, variants, the round trip.
#include <catch2/catch.hpp>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "data/dataset.h"
#include "model/config.h"

using namespace decalign;
using nlohmann::json;

namespace {

Config parsed(const char* text) { return parse_config(json::parse(text), "c.json"); }

/// The message for a config that is refused; it must be one line.
std::string error_of(const json& source) {
  try {
    parse_config(source, "c.json");
  } catch (const input_error& e) {
    const std::string text = e.what();
    CHECK(text.find('\n') == std::string::npos);
    return text;
  }
  return "no error";
}
std::string error_of(const char* text) { return error_of(json::parse(text)); }

json overridden(const std::string& assignment) {
  json target = json::object();
  apply_override(target, assignment);
  return target;
}

/// That an accepted config comes back from its own JSON, key by key.
void check_round_trip(const Config& config) {
  const std::string text = to_json(config).dump();
  CHECK(to_json(parse_config(json::parse(text), "again")).dump() == text);
}

}  // namespace

TEST_CASE("config: every shipped config parses and survives the round trip", "[model][config]") {
  int found = 0;
  for (const auto& entry : std::filesystem::directory_iterator(DECALIGN_CONFIGS)) {
    INFO(entry.path().string());
    ++found;
    const Config config = parse_config(read_json(entry.path()), entry.path());
    check_round_trip(config);
  }
  CHECK(found >= 7);
  for (const char* name :
       {"mosi", "mosi_finetune", "mosei", "sims", "iemocap", "generated", "default"})
    CHECK(std::filesystem::exists(std::string(DECALIGN_CONFIGS) + "/" + name + ".json"));
}

TEST_CASE("config: a shipped config's values arrive", "[model][config]") {
  const Config sims = parse_config(read_json(std::string(DECALIGN_CONFIGS) + "/sims.json"), "sims");
  CHECK(sims.dst_feature_dim_nheads == std::vector<int64_t>{32, 8});
  CHECK(sims.kernel_size("text") == 5);
  CHECK(sims.kernel_size("vision") == 5);
  CHECK(sims.attention_dropout("text") == 0.4);
  CHECK(sims.attention_dropout("audio") == 0.3);
  CHECK(sims.attention_dropout("vision") == 0.1);
  CHECK(sims.binary_task_weight == 0.01);
  CHECK(sims.early_stop_patience == 11);
  CHECK(sims.feature_clip_percentiles == std::vector<double>{0.1, 99.9});
  CHECK(sims.learning_rate == 3.5e-5);
  CHECK(sims.use_bert);
}

TEST_CASE("config: mosi_finetune is mosi with another optimisation, on the attended tokens",
          "[model][config]") {
  const std::string folder = DECALIGN_CONFIGS;
  json tuned = read_json(folder + "/mosi_finetune.json");
  const Config config = parse_config(tuned, "mosi_finetune");
  CHECK(config.learning_rate == 2e-4);
  CHECK(config.bert_learning_rate == 1e-4);
  CHECK(config.weight_decay == 0.05);
  CHECK(config.bert_weight_decay == 0.0);
  CHECK(config.average_decay == 0.98);
  CHECK(config.num_epochs == 8);
  json released = read_json(folder + "/mosi.json");
  for (json* c : {&tuned, &released})
    for (const char* key :
         {"learning_rate", "bert_learning_rate", "weight_decay", "bert_weight_decay",
          "average_decay", "num_epochs", "mask_source", "need_feature_standardized"})
      c->erase(key);
  CHECK(tuned == released);
}

TEST_CASE("config: absent keys and null are the release's defaults", "[model][config]") {
  const Config none = parsed("{}");
  const Config null = parsed(
      R"({"alpha": null, "pde_dim": null, "scheduler_patience": null, "active_modalities": null,
          "conv1d_kernel_size_a": null, "attn_dropout": null, "variant": null})");
  CHECK(to_json(none).dump() == to_json(null).dump());
  CHECK(none.dst_feature_dim_nheads == std::vector<int64_t>{40, 10});
  CHECK(none.nlevels == 5);
  CHECK(none.attention_dropout("text") == 0.1);
  CHECK(none.attention_dropout("audio") == 0);
  CHECK(none.kernel_size("audio") == 1);
  CHECK(none.pde_width() == 40);
  CHECK_FALSE(none.scheduler_patience.has_value());
  CHECK(none.task_loss == "mae");
  CHECK(none.gmm_covariance == "diagonal");
  check_round_trip(none);
  const Config empty = parsed(R"({"task_loss": "", "dataset_name": "", "selection_mode": ""})");
  CHECK(parse_config(json::parse(to_json(empty).dump()), "again").task_loss.empty());
  check_round_trip(empty);
}

TEST_CASE("config: an unknown key names the nearest known one", "[model][config]") {
  const auto nearest = [](const char* key, const std::string& known) {
    INFO(key);
    CHECK(error_of(json{{key, 1}}) == "c.json: unknown key \"" + std::string(key) +
                                          "\" (nearest known key: \"" + known + "\")");
  };
  nearest("num_epoch", "num_epochs");
  nearest("learnig_rate", "learning_rate");
  nearest("lambda-ot", "lambda_ot");
  nearest("Alpha", "alpha");
  nearest("conv1d_kernel_sise_v", "conv1d_kernel_size_v");
  nearest("attn_dropuot", "attn_dropout");
  CHECK_THAT(error_of(json{{std::string(3000, 'x'), 1}}),
             Catch::Contains("known key: \"") && !Catch::Contains("known key: \"\""));
  nearest("conv1d_kernel_size_", "conv1d_kernel_size_a");
}

TEST_CASE("config: keys of the release without an effect are accepted with any value",
          "[model][config]") {
  const Config config = parsed(
      R"({"seq_lens": [50, 50, 50], "feature_dims": [768, 5, 20], "transformers": "bert",
          "alpha1": 0.1, "class_counts": null, "device": {"any": "thing"}})");
  CHECK(to_json(config).dump() == to_json(parsed("{}")).dump());
}

TEST_CASE("config: wrong types and values out of range name key, value and what was expected",
          "[model][config]") {
  const auto refused = [](const char* text, const char* message) {
    INFO(text);
    CHECK(error_of(text) == std::string("c.json: ") + message);
  };
  refused(R"({"alpha": "big"})", "key \"alpha\" is \"big\", expected a number");
  refused(R"({"alpha": true})", "key \"alpha\" is true, expected a number");
  refused(R"({"alpha": [1]})", "key \"alpha\" is a list, expected a number");
  refused(R"({"use_bert": 1})", "key \"use_bert\" is 1, expected true or false");
  refused(R"({"use_bert": "false"})", "key \"use_bert\" is \"false\", expected true or false");
  refused(R"({"num_epochs": 2.5})", "key \"num_epochs\" is 2.5, expected a whole number");
  refused(R"({"num_epochs": 0})", "key \"num_epochs\" is 0, expected a number in [1, 1073741824]");
  refused(R"({"batch_size": -4})",
          "key \"batch_size\" is -4, expected a number in [1, 1073741824]");
  refused(R"({"embed_dropout": 1})", "key \"embed_dropout\" is 1, expected a number in [0, 1)");
  refused(R"({"attn_dropout_a": -0.1})",
          "key \"attn_dropout_a\" is -0.1, expected a number in [0, 1)");
  refused(R"({"gmm_var_floor": 0})", "key \"gmm_var_floor\" is 0, expected a number in (0, inf)");
  refused(R"({"ct_temperature": 0})", "key \"ct_temperature\" is 0, expected a number in (0, inf)");
  refused(R"({"sinkhorn": "exact"})", "key \"sinkhorn\" is \"exact\", expected release | log");
  refused(R"({"sinkhorn": 3})", "key \"sinkhorn\" is 3, expected release | log");
  refused(R"({"task_loss": 3})", "key \"task_loss\" is 3, expected a string");
  refused(R"({"variant": "thesis"})", "key \"variant\" is \"thesis\", expected release | paper");
  refused(R"({"dst_feature_dim_nheads": 40})",
          "key \"dst_feature_dim_nheads\" is 40, expected a list");
  refused(R"({"dst_feature_dim_nheads": [40]})",
          "key \"dst_feature_dim_nheads\" must be [width, heads]");
  refused(R"({"dst_feature_dim_nheads": [40, 7]})",
          "key \"dst_feature_dim_nheads\": 7 heads do not divide width 40");
  refused(R"({"dst_feature_dim_nheads": [40, 0]})",
          "key \"dst_feature_dim_nheads\" is 0, expected a number in [1, 1073741824]");
  refused(R"({"feature_clip_percentiles": [99, 1]})",
          "key \"feature_clip_percentiles\" must be [low, high] with low < high");
  refused(R"({"train_mode": "classification"})",
          "key \"num_classes\" must be at least 2 in classification");
  refused(R"({"train_mode": "classification", "num_classes": 3, "class_weights": [1, 2]})",
          "key \"class_weights\" has 2 entries for 3 classes");
  refused(R"({"gmm_covariance": "full", "local_proto_mahalanobis": true})",
          "key \"local_proto_mahalanobis\" divides by variances; set gmm_covariance=diagonal");
  refused(R"([1, 2])", "a config is a JSON object of keys and values");
}

TEST_CASE("config: messages stay one printable line whatever the key or value holds",
          "[model][config]") {
  CHECK(error_of(json{{"two\nlines", 1}}).starts_with("c.json: unknown key \"two?lines\""));
  CHECK(error_of(json{{"attn_dropout_\n", "x\ny"}}).starts_with("c.json: key \"attn_dropout_?\""));
  json deep = 1;  // a value nested so deep that printing it would exhaust the stack
  for (int i = 0; i < 200000; ++i) deep = json::array({std::move(deep)});
  json source;
  source["alpha"] = std::move(deep);
  CHECK(error_of(source) == "c.json: key \"alpha\" is a list, expected a number");
}

TEST_CASE("config: variant paper sets its keys, an explicit key wins", "[model][config]") {
  const Config paper = parsed(R"({"variant": "paper"})");
  CHECK(paper.gmm_covariance == "full");
  CHECK(paper.dec_loss == "cos_sum");
  CHECK(paper.hetero_cost_reduction == "sum");
  CHECK(paper.proto_reduction == "sum");
  CHECK(paper.moment_loss == "sum");
  CHECK(paper.ot_entropy == "log");
  CHECK(paper.sinkhorn == "log");
  CHECK(paper.ot_gradient == "envelope");
  CHECK(paper.mask_source == "lengths");
  CHECK(paper.temporal_length == -1);
  check_round_trip(paper);
  const Config mixed = parsed(
      R"({"sinkhorn": "release", "variant": "paper", "gmm_covariance": "diagonal",
          "temporal_length": 0})");
  CHECK(mixed.gmm_covariance == "diagonal");
  CHECK(mixed.sinkhorn == "release");
  CHECK(mixed.temporal_length == 0);
  CHECK(mixed.dec_loss == "cos_sum");
  check_round_trip(mixed);
}

TEST_CASE("config: suffix keys reach the modality they name", "[model][config]") {
  const Config config = parsed(
      R"({"conv1d_kernel_size_l": 3, "conv1d_kernel_size_thermal": 5, "attn_dropout": 0.3,
          "attn_dropout_v": 0.2, "attn_dropout_thermal": 0.15})");
  CHECK(config.kernel_size("text") == 3);
  CHECK(config.kernel_size("audio") == 1);
  CHECK(config.kernel_size("thermal") == 5);
  CHECK(config.attention_dropout("text") == 0.3);
  CHECK(config.attention_dropout("audio") == 0);
  CHECK(config.attention_dropout("vision") == 0.2);
  CHECK(config.attention_dropout("thermal") == 0.15);
  const auto written = to_json(config);
  CHECK(written.at("conv1d_kernel_size_thermal") == 5);
  CHECK(written.at("attn_dropout") == 0.3);
  CHECK_FALSE(written.contains("attn_dropout_l"));
  check_round_trip(config);
}

TEST_CASE("config: active modalities by name, letter, list or text", "[model][config]") {
  const std::vector<std::string> want{"text", "audio"};
  CHECK(parsed(R"({"active_modalities": ["text", "audio"]})").active_modalities == want);
  CHECK(parsed(R"({"active_modalities": ["T", "A"]})").active_modalities == want);
  CHECK(parsed(R"({"active_modalities": "l,a"})").active_modalities == want);
  CHECK(parsed(R"({"active_modalities": "['Text', 'Audio']"})").active_modalities == want);
  CHECK(parsed(R"({"active_modalities": ["v", "thermal"]})").active_modalities ==
        std::vector<std::string>{"vision", "thermal"});
}

TEST_CASE("config: temporal_length is a number or min", "[model][config]") {
  CHECK(parsed(R"({"temporal_length": "min"})").temporal_length == -1);
  CHECK(parsed(R"({"temporal_length": 12})").temporal_length == 12);
  CHECK(to_json(parsed(R"({"temporal_length": "min"})")).at("temporal_length") == "min");
  CHECK_THAT(error_of(R"({"temporal_length": "max"})"), Catch::Contains("\"max\""));
  CHECK_THAT(error_of(R"({"num_prototypes": "min"})"), Catch::Contains("expected a number"));
}

TEST_CASE("config: overrides are JSON, Python literals or text", "[model][config]") {
  CHECK(overridden("alpha=0.5")["alpha"] == 0.5);
  CHECK(overridden("num_epochs=3")["num_epochs"].is_number_integer());
  CHECK(overridden("learning_rate=1e-4")["learning_rate"] == 1e-4);
  for (const char* yes : {"use_bert=true", "use_bert=True", "use_bert=TRUE"})
    CHECK(overridden(yes)["use_bert"] == true);
  CHECK(overridden("use_bert=False")["use_bert"] == false);
  CHECK(overridden("pde_dim=None")["pde_dim"].is_null());
  CHECK(overridden("pde_dim=null")["pde_dim"].is_null());
  CHECK(overridden("dst_feature_dim_nheads=[40, 8]")["dst_feature_dim_nheads"] ==
        json::array({40, 8}));
  CHECK(overridden("task_loss=mse")["task_loss"] == "mse");
  CHECK(overridden("task_loss=\"mse\"")["task_loss"] == "mse");
  CHECK(overridden("featurePath=a=b.pkl")["featurePath"] == "a=b.pkl");
  CHECK(overridden("selection_mode=")["selection_mode"] == "");
  const json named = overridden("active_modalities=['text', 'audio']");
  CHECK(parse_config(named, "c").active_modalities == std::vector<std::string>{"text", "audio"});
  json target{{"alpha", 1}, {"beta", 2}};
  apply_override(target, "alpha=7");
  CHECK(target == json{{"alpha", 7}, {"beta", 2}});
}

TEST_CASE("config: what is no assignment is refused", "[model][config]") {
  for (const char* word : {"alpha", "=3", "", "--alpha 3"}) {
    INFO(word);
    CHECK_THROWS_WITH(overridden(word), Catch::Contains("is neither an option nor key=value"));
  }
  CHECK_THROWS_WITH(overridden("task_loss=\xff"), Catch::Contains("is not UTF-8 text"));
}

TEST_CASE("config: a file that is missing or no JSON is named", "[model][config]") {
  CHECK_THROWS_WITH(read_json("/nonexistent/c.json"), "/nonexistent/c.json: cannot be opened");
  CHECK_THROWS_WITH(read_json(__FILE__), Catch::Contains("test_config.cpp: not valid JSON"));
}

TEST_CASE("config: the reference lists every key with default and range", "[model][config]") {
  const std::string page = config_reference();
  const auto keys = to_json(parsed("{}"));
  CHECK(keys.size() > 50);
  for (const auto& [key, value] : keys.items()) {
    INFO(key);
    CHECK(page.find("| `" + key + "` |") != std::string::npos);
  }
  CHECK_THAT(page, Catch::Contains("| `conv1d_kernel_size_<modality>` |"));
  CHECK_THAT(page, Catch::Contains("| `dec_loss` | \"cos2_mean\", paper \"cos_sum\" |"));
}
