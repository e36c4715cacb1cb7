// A pretrained encoder's folder: config.json, where it is looked for, what is said if it is not
// there.
#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "data/file_hash.h"
#include "model/text_encoder.h"
#include "temporary_folder.h"

using namespace decalign;
using decalign::testing::TemporaryFolder;
using nlohmann::json;

namespace {

namespace fs = std::filesystem;

std::string message(const std::function<void()>& call) {
  try {
    call();
  } catch (const input_error& e) {
    return e.what();
  }
  return "no error";
}

std::string config_error(const json& source) {
  return message([&] { parse_bert_config(source, "c.json"); });
}

void write(const std::string& path, const std::string& text) {
  fs::create_directories(fs::path(path).parent_path());
  std::ofstream(path) << text;
}

/// An environment variable for the life of the object.
class Variable {
 public:
  Variable(const char* name, const std::string& value) : name_(name) {
    if (const char* old = std::getenv(name)) old_ = old;
    setenv(name, value.c_str(), 1);
  }
  ~Variable() { old_ ? setenv(name_, old_->c_str(), 1) : unsetenv(name_); }

 private:
  const char* name_;
  std::optional<std::string> old_;
};

}  // namespace

TEST_CASE("bert config: Hugging Face's keys and defaults", "[model][bert]") {
  const BertConfig defaults = parse_bert_config(json::object(), "c.json");
  CHECK(defaults.hidden_size == 768);
  CHECK(defaults.num_attention_heads == 12);
  const BertConfig mini = parse_bert_config({{"hidden_size", 384},
                                             {"num_hidden_layers", 6},
                                             {"layer_norm_eps", 1e-5},
                                             {"hidden_dropout_prob", 0},
                                             {"model_type", "bert"},
                                             {"torch_dtype", "float32"},
                                             {"pad_token_id", nullptr}},
                                            "c.json");
  CHECK(mini.hidden_size == 384);
  CHECK(mini.num_hidden_layers == 6);
  CHECK(mini.layer_norm_eps == 1e-5);
  CHECK(mini.hidden_dropout_prob == 0);
  const json round = json::parse(to_json(mini).dump());
  CHECK(to_json(parse_bert_config(round, "again")).dump() == to_json(mini).dump());
}

TEST_CASE("bert config: what does not fit is one line", "[model][bert][errors]") {
  CHECK(config_error(json::array()) == "c.json: a BERT's config is a JSON object");
  CHECK(config_error({{"hidden_size", 1.5}}) ==
        "c.json: key \"hidden_size\" is 1.5, expected a whole number in [1.0, 16777216.0]");
  CHECK_THAT(config_error({{"hidden_size", "384"}}), Catch::Contains("\"hidden_size\" is"));
  CHECK_THAT(config_error({{"hidden_size", -4}}), Catch::Contains("\"hidden_size\" is -4"));
  CHECK_THAT(config_error({{"hidden_size", 1e300}}), Catch::Contains("\"hidden_size\" is"));
  CHECK_THAT(config_error({{"hidden_dropout_prob", 1}}), Catch::Contains("hidden_dropout_prob"));
  CHECK(config_error({{"hidden_size", 100}, {"num_attention_heads", 12}}) ==
        "c.json: 12 num_attention_heads do not divide hidden_size 100");
  CHECK_THAT(config_error({{"hidden_act", "relu"}}), Catch::Contains("expected \"gelu\""));
  CHECK_THAT(config_error({{"model_type", "roberta"}}), Catch::Contains("expected \"bert\""));
  CHECK_THAT(config_error({{"position_embedding_type", "relative_key"}}),
             Catch::Contains("expected \"absolute\""));
}

TEST_CASE("pretrained: a folder, below model_dir, in the cache", "[model][bert]") {
  const TemporaryFolder folder;
  const Variable home("HF_HOME", folder / "hf");
  const Variable hub("HF_HUB_CACHE", "");
  const auto found = [&](const std::string& name, const std::string& model_dir = "") {
    return find_pretrained(pretrained_places(name, model_dir));
  };
  CHECK(found("some-bert").empty());
  const std::string cached = folder / "hf/hub/models--google-bert--some-bert";
  write(cached + "/snapshots/aaa/config.json", "{}");
  write(cached + "/snapshots/bbb/config.json", "{}");
  CHECK(found("some-bert") == cached + "/snapshots/bbb");
  write(cached + "/refs/main", "aaa\n");
  CHECK(found("some-bert") == cached + "/snapshots/aaa");
  CHECK(found("google-bert/some-bert") == cached + "/snapshots/aaa");
  write(folder / "models/some-bert/config.json", "{}");
  CHECK(found("some-bert", folder / "models") == folder / "models/some-bert");
  CHECK(found(folder / "models/some-bert") == folder / "models/some-bert");
  CHECK(find_pretrained(pretrained_places("some-bert", "", folder / "models")) ==
        folder / "models/some-bert");
}

TEST_CASE("text encoder: a name that is not to be had warns, a path is an error",
          "[model][bert][errors]") {
  const TemporaryFolder folder;
  const Variable home("HF_HOME", folder / "hf"), hub("HF_HUB_CACHE", ""), user("HOME", folder / "");
  Config config;
  std::string warning;
  CHECK_FALSE(find_text_encoder(config, "", warning).has_value());
  CHECK(warning.empty());
  config.use_bert = true;
  CHECK_FALSE(find_text_encoder(config, "", warning).has_value());
  CHECK(warning == "key \"pretrained\" names no text encoder");
  config.pretrained = "no-such-bert";
  CHECK_FALSE(find_text_encoder(config, folder / "models", warning).has_value());
  CHECK_THAT(warning, Catch::StartsWith("key \"pretrained\": \"no-such-bert\" was not found; "
                                        "looked for config.json in no-such-bert, ") &&
                          Catch::Contains("models/no-such-bert") &&
                          Catch::Contains("models--no-such-bert") &&
                          Catch::Contains("set pretrained=FOLDER"));
  config.pretrained = folder / "none";
  CHECK_THAT(message([&] { find_text_encoder(config, "", warning); }),
             Catch::Contains("none\" was not found"));
  write(folder / "half/config.json", "{}");
  config.pretrained = folder / "half";
  CHECK_THAT(message([&] { find_text_encoder(config, "", warning); }),
             Catch::EndsWith("half/model.safetensors: is missing; the encoder's weights are read "
                             "from it"));
  write(folder / "half/config.json", "{\"hidden_size\": }");
  CHECK_THAT(message([&] { find_text_encoder(config, "", warning); }),
             Catch::Contains("half/config.json: not valid JSON"));
}

TEST_CASE("file hash: SHA-256 of known contents", "[data]") {
  const TemporaryFolder folder;
  write(folder / "abc", "abc");
  CHECK(sha256_of(folder / "abc") ==
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK_THAT(message([&] { sha256_of(folder / "none"); }), Catch::Contains("none"));
}
