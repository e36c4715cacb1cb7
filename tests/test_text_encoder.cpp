// Training with a text encoder: it learns, its files come back to the bit, frozen or fine-tuned.
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "data/dataset_file.h"
#include "data/file_hash.h"
#include "data/generated.h"
#include "data/safetensors.h"
#include "data/tokens.h"
#include "model/bert.h"
#include "model/frozen_text.h"
#include "model/trainer.h"
#include "small_config.h"
#include "support.h"
#include "temporary_folder.h"
#include "training_files.h"

using namespace decalign;
using namespace decalign::test;
using decalign::testing::TemporaryFolder;

namespace {

const char* const kVocabulary =
    "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nawful\nbad\npoor\nfine\nfair\ngood\ngreat\nfilm\nthe\n";
constexpr int32_t kFirstWord = 5, kWords = 7, kFiller = 12;  // awful ... great; film, the
constexpr int64_t kSteps = 9;

void write(const std::string& path, const std::string& text) {
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  std::ofstream(path, std::ios::binary) << text;
}

/// A pretrained folder of two layers with random weights. The file holds a pooler too.
Pretrained write_bert(const std::string& folder, double dropout = 0.1, uint64_t seed = 3) {
  const nlohmann::json sizes = {
      {"vocab_size", kFiller + 2},      {"hidden_size", 12},
      {"num_hidden_layers", 2},         {"num_attention_heads", 2},
      {"intermediate_size", 20},        {"max_position_embeddings", 50},
      {"hidden_dropout_prob", dropout}, {"attention_probs_dropout_prob", dropout}};
  write(folder + "/config.json", sizes.dump());
  write(folder + "/vocab.txt", kVocabulary);
  Parameters parameters;
  for (Parameter& p : bert_parameters(parse_bert_config(sizes, folder), true)) {
    if (p.bound > 0) p.bound = 0.3;
    parameters.add(std::move(p));
  }
  parameters.initialize(seed);
  std::vector<TensorOut> tensors;
  for (const Parameter& p : parameters.list())
    tensors.push_back(tensor_out<real>(p.name.substr(std::string(kEncoderPrefix).size()), p.shape,
                                       parameters.values(p)));
  const std::vector<float> pooler(144, 0.5f);
  tensors.push_back(tensor_out<float>("pooler.dense.weight", {12, 12}, pooler));
  save_safetensors(folder + "/model.safetensors", std::move(tensors));
  return open_pretrained(folder);
}

TextEncoder encoder_for(const Config& config) {
  std::string warning;
  return *find_text_encoder(config, "", warning);
}

/// Clips whose words tell the label, "[CLS] film ... good [SEP]", of 4 to 9 tokens, beside audio.
Dataset token_data(int64_t train = 44, bool as_text = false) {
  GeneratedOptions options;
  options.train = train;
  options.valid = 15;
  options.test = 12;
  options.modalities = {{"text", 5, 6}, {"audio", 7, 4}};
  Dataset data = generate_dataset(options);
  std::vector<std::string> words;
  std::istringstream vocabulary(kVocabulary);
  for (std::string word; vocabulary >> word;) words.push_back(word);
  for (auto& [name, split] : data.splits) {
    Sequences& text = split.modalities[0];
    std::vector<int32_t> tokens;
    for (int64_t n = 0; n < text.count; ++n) {
      const int64_t length = 4 + n % 6;
      std::vector<int32_t> ids(size_t(length), kFiller);
      ids.front() = 2, ids.back() = 3;
      ids[size_t(1 + n % (length - 2))] =
          kFirstWord + std::clamp(int32_t(std::lround(split.labels[size_t(n)] + 3)), 0, kWords - 1);
      std::vector<int32_t> clip(size_t(3 * kSteps), 0);
      std::copy(ids.begin(), ids.end(), clip.begin());
      std::fill_n(clip.begin() + kSteps, length, 1);
      tokens.insert(tokens.end(), clip.begin(), clip.end());
      std::string line;
      for (size_t t = 1; t + 1 < ids.size(); ++t)
        line += (t > 1 ? " " : "") + words[size_t(ids[t])];
      split.raw_text.push_back(line);
    }
    if (as_text) continue;
    text.tokens = tokens;
    text.lengths = token_lengths(tokens, kSteps);
    text.values.clear();
    text.steps = kSteps;
    text.width = 12;
  }
  return data;
}

Config fine_tuning(const std::string& pretrained, int64_t epochs) {
  Config config = testing::small_config();
  config.use_bert = true;
  config.pretrained = pretrained;
  config.batch_size = 8;  // the last batch of an epoch is smaller
  config.num_epochs = epochs;
  config.learning_rate = 3e-3;
  config.dec_loss_weight = config.alpha = config.beta = 0.01;
  config.sinkhorn = "log";
  return config;
}

/// Everything that a resumed run must carry over.
Config scheduled(const std::string& pretrained, int64_t epochs) {
  Config config = fine_tuning(pretrained, epochs);
  config.bert_learning_rate = 1e-3;
  config.bert_weight_decay = 0.01;
  config.bert_warmup = 0.6;  // still rising after the first epoch
  config.bert_layer_decay = 0.7;
  config.accumulation_steps = 2;
  // A loss that falls is a bad one here: the learning rates fall too, and the first epoch is best.
  config.selection_metric = "MOSI";
  config.selection_mode = config.scheduler_mode = "max";
  config.scheduler_patience = 0;
  config.factor = 0.5;
  config.early_stop_patience = 100;
  return config;
}

Config without_dropout(Config config) {
  for (const char* suffix : {"l", "a", "v"}) config.attn_dropout[suffix] = 0;
  config.relu_dropout = config.embed_dropout = config.res_dropout = 0;
  config.output_dropout = config.text_dropout = 0;
  return config;
}

void train(const Config& config, const Dataset& data, const TextEncoder& encoder,
           const std::string& folder, int threads = 1) {
  RunLog log("", true);
  Trainer trainer(config, data, {}, &encoder, 7, folder, Device(Cpu{threads}), log);
  trainer.run();
}

/// The tensors' bytes, without metadata.
std::map<std::string, std::vector<double>> tensors_of(const std::string& path) {
  const Safetensors file(path);
  std::map<std::string, std::vector<double>> values;
  for (const auto& [name, view] : file.tensors()) values[name] = file.doubles(name);
  return values;
}

/// |a - b| / |b| of a tensor of two files.
double distance(const std::string& a, const std::string& b, const std::string& tensor) {
  const auto x = Safetensors(a).doubles(tensor), y = Safetensors(b).doubles(tensor);
  REQUIRE(x.size() == y.size());
  double gap = 0, norm = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    gap += (x[i] - y[i]) * (x[i] - y[i]);
    norm += y[i] * y[i];
  }
  REQUIRE(norm > 0);
  return std::sqrt(gap / norm);
}

std::string message(const std::function<void()>& call) {
  try {
    call();
  } catch (const input_error& e) {
    return e.what();
  }
  return "no error";
}

const char* const kFiles[] = {"/checkpoint.safetensors", "/state.safetensors"};

}  // namespace

TEST_CASE("fine-tuning: it learns, and a reloaded checkpoint gives the same predictions",
          "[model][text_encoder]") {
  const TemporaryFolder folder;
  const Dataset data = token_data();
  const Device device(Cpu{1});
  RunLog log("", true);
  write_bert(folder / "bert", 0);
  for (const char* masks : {"zeros", "lengths"}) {
    INFO(masks);
    Config config = without_dropout(fine_tuning(folder / "bert", 8));
    config.mask_source = masks;
    const TextEncoder encoder = encoder_for(config);
    REQUIRE_FALSE(encoder.frozen);
    const std::string run = folder / masks;
    Trainer trainer(config, data, {}, &encoder, 7, run, device, log);
    const auto loss = [&] {
      return evaluate_split(trainer.network(), data.splits.at("train"), device).loss;
    };
    const double before = loss();
    const Safetensors pretrained(encoder.pretrained.weights());
    Parameters& start = trainer.network().parameters();
    for (const auto& [name, view] : pretrained.tensors()) {
      if (name.starts_with("pooler.")) continue;
      INFO(name);
      const Parameter* p = start.find("text_model.model." + name);
      REQUIRE(p);
      const Out values = start.values(*p);
      CHECK(std::vector<double>(values.begin(), values.end()) == pretrained.doubles(name));
    }
    trainer.run();
    CHECK(loss() < 0.5 * before);

    // Every weight of the encoder is another one, under the release's name.
    const std::string path = run + "/checkpoint.safetensors";
    const Safetensors checkpoint(path);
    size_t encoders = 0;
    for (const auto& [name, view] : checkpoint.tensors())
      if (name.starts_with("text_model.")) ++encoders;
    CHECK(encoders == pretrained.tensors().size() - 1);  // all but the pooler
    for (const auto& [name, view] : pretrained.tensors()) {
      if (name.starts_with("pooler.")) continue;
      INFO(name);
      REQUIRE(checkpoint.has("text_model.model." + name));
      CHECK(checkpoint.doubles("text_model.model." + name) != pretrained.doubles(name));
    }

    const Split& test = data.splits.at("test");
    const Evaluation want = evaluate_split(trainer.network(), test, device);
    auto [about, network] = load_checkpoint(path);
    const Evaluation got = evaluate_split(network, test, device);
    CHECK(got.predictions.scores == want.predictions.scores);
    CHECK(std::set<float>(got.predictions.scores.begin(), got.predictions.scores.end()).size() > 6);
    REQUIRE(about.encoder);
    CHECK_FALSE(about.frozen);
    CHECK(about.encoder->hidden_size == 12);
  }
}

TEST_CASE("fine-tuning: a resumed run, and every number of threads, end with the same bits",
          "[model][text_encoder]") {
  const TemporaryFolder folder;
  const Dataset data = token_data();
  write_bert(folder / "bert");
  const Config config = scheduled(folder / "bert", 4);
  const TextEncoder encoder = encoder_for(config);
  train(config, data, encoder, folder / "whole");
  const std::vector<double> numbers =
      Safetensors(folder / "whole/state.safetensors").doubles("optimizer.numbers");
  REQUIRE(numbers.size() == 6);          // two of the trainer, then a rate for each group
  CHECK(numbers[2] < 2e-3);              // they have fallen,
  CHECK(numbers[4] < numbers[5] * 0.8);  // and are smaller below
  train(config, data, encoder, folder / "two", 2);
  for (const char* name : kFiles) {
    CHECK(content((folder / "two") + name) == content((folder / "whole") + name));
    CHECK(content((folder / "two") + name).size() > 10000);
  }
  for (const int64_t patience : {0, 2}) {  // stops after the first epoch, and a later one
    INFO("patience " << patience);
    const std::string part = folder / ("part" + std::to_string(patience));
    const std::string rest = folder / ("rest" + std::to_string(patience));
    Config early = config;
    early.early_stop_patience = patience;
    train(early, data, encoder, part);
    const int64_t stopped = details(part + "/state.safetensors").at("epoch");
    CHECK(stopped == patience + 1);
    continue_as(part, rest, config);
    train(config, data, encoder, rest);
    CHECK(details(rest + "/state.safetensors") == details(folder / "whole/state.safetensors"));
    for (const char* name : kFiles)
      CHECK(tensors_of(rest + name) == tensors_of((folder / "whole") + name));
  }
}

TEST_CASE("text encoder: a run does not go on with another one", "[model][text_encoder][errors]") {
  const TemporaryFolder folder;
  const Device device(Cpu{1});
  write_bert(folder / "bert");
  for (const bool fine_tuned : {true, false}) {
    Config config = fine_tuning(folder / "bert", 1);
    config.use_finetune = fine_tuned;
    TextEncoder encoder = encoder_for(config);
    Dataset data = token_data(16);
    if (!fine_tuned) encode_text(data, encoder.pretrained, TextFeatures::steps, device);
    const std::string run = folder / (fine_tuned ? "tuned" : "frozen");
    train(config, data, encoder, run);
    const std::string expected =
        run +
        "/state.safetensors: was written with another text encoder; resume with the run's own";
    const auto resumed = [&](const TextEncoder* with) {
      return message([&] {
        RunLog log("", true);
        Trainer(config, data, {}, with, 7, run, device, log).run();
      });
    };
    CHECK(resumed(&encoder) == "no error");
    if (fine_tuned) {
      encoder.pretrained.config.layer_norm_eps = 1e-3;
      CHECK(resumed(&encoder) == expected);
    } else {
      CHECK(resumed(nullptr) == expected);
      encoder.frozen->folder = "moved";
      CHECK(resumed(&encoder) == "no error");
      encoder.frozen->sha256 = "another";
      CHECK(resumed(&encoder) == expected);
    }
  }
}

TEST_CASE("text encoder: sizes that its weights do not have are one line",
          "[model][text_encoder][errors]") {
  const TemporaryFolder folder;
  const Pretrained pretrained = write_bert(folder / "bert");
  const std::string weights = pretrained.weights();
  // More than there is memory for: found before any is taken.
  Pretrained huge = pretrained;
  huge.config.vocab_size = huge.config.hidden_size = 1 << 24;
  Dataset data = token_data(4);
  CHECK(message([&] { encode_text(data, huge, TextFeatures::steps, Device(Cpu{1})); }) ==
        weights +
            ": tensor \"embeddings.word_embeddings.weight\" is [14, 12], the network's is "
            "[16777216, 16777216]");
  const Config config = fine_tuning(folder / "bert", 1);
  train(config, data, encoder_for(config), folder / "run");
  const std::string checkpoint = folder / "run/checkpoint.safetensors", other = folder / "o";
  nlohmann::json about = details(checkpoint);
  about["encoder"]["vocab_size"] = 1 << 24;
  about["encoder"]["intermediate_size"] = 1 << 24;
  with_metadata(checkpoint, other, "decalign", about.dump());
  CHECK_THAT(
      message([&] { load_checkpoint(other); }),
      Catch::Contains("o: tensor \"text_model.model.embeddings.word_embeddings.weight\" is"));

  // Raw text is cut to the encoder's positions; token ids of more steps are refused.
  save_dataset(folder / "raw.safetensors", token_data(4, true));
  for (auto& [name, split] : data.splits) split.modalities[0].width = 0;  // as a file has it
  save_dataset(folder / "ids.safetensors", data);
  Pretrained narrow = pretrained;
  narrow.config.max_position_embeddings = 8;
  const auto open = [&](const std::string& file) {
    return open_dataset(config, folder / file, "", &narrow);
  };
  CHECK(open("raw.safetensors").splits.at("train").modalities[0].steps == 8);
  CHECK_THAT(message([&] { open("ids.safetensors"); }),
             Catch::EndsWith("text has 9 tokens, the encoder takes 8"));
}

TEST_CASE("fine-tuning: layers computed again on the way back give the same bits",
          "[model][text_encoder]") {
  const TemporaryFolder folder;
  const Dataset data = token_data();
  write_bert(folder / "bert");
  for (const char* masks : {"zeros", "lengths"}) {
    INFO(masks);
    Config config = fine_tuning(folder / "bert", 2);
    config.mask_source = masks;
    const TextEncoder encoder = encoder_for(config);
    const std::string kept = folder / (masks + std::string("_kept")),
                      again = folder / (masks + std::string("_again"));
    train(config, data, encoder, kept);
    config.checkpoint_activations = true;
    train(config, data, encoder, again);
    for (const char* name : kFiles) CHECK(tensors_of(again + name) == tensors_of(kept + name));
  }
}

TEST_CASE("fine-tuning: two batches of 8 a step are one batch of 16", "[model][text_encoder]") {
  const TemporaryFolder folder;
  write_bert(folder / "bert", 0);
  // Of 40 clips the last step has one batch of 8 either way.
  for (const int64_t clips : {16, 40}) {
    INFO(clips << " clips");
    const Dataset data = token_data(clips);
    Config config = without_dropout(fine_tuning(folder / "bert", 1));
    config.alpha = config.beta = 0;  // these losses compare the samples of a batch
    config.dec_loss_weight = 1;
    config.clip = 1e6;  // which would hide a factor
    const TextEncoder encoder = encoder_for(config);
    const std::string parts = folder / ("parts" + std::to_string(clips)),
                      whole = folder / ("whole" + std::to_string(clips));
    config.accumulation_steps = 2;
    train(config, data, encoder, parts);
    config.accumulation_steps = 1;
    config.batch_size = 16;
    train(config, data, encoder, whole);
    CHECK(details(parts + "/state.safetensors").at("steps") == (clips + 8) / 16);
    CHECK(details(whole + "/state.safetensors").at("steps") == (clips + 8) / 16);
    // After one step the first moment is a tenth of the gradient. Adam divides by its
    // size, which makes rounding larger where a gradient is almost 0.
    const double limit = (clips == 16 ? 30 : 1e5) * double(std::numeric_limits<real>::epsilon());
    CHECK(distance(parts + "/state.safetensors", whole + "/state.safetensors", "optimizer.m") <
          limit);
  }
}

TEST_CASE("frozen encoder: it trains, and the checkpoint names the encoder it needs",
          "[model][text_encoder]") {
  const TemporaryFolder folder;
  const Device device(Cpu{1});
  RunLog log("", true);
  const Pretrained pretrained = write_bert(folder / "bert", 0.5);
  for (const char* masks : {"zeros", "lengths"}) {
    INFO(masks);
    Config config = without_dropout(fine_tuning(folder / "bert", 8));
    config.use_finetune = false;
    config.mask_source = masks;
    const TextEncoder encoder = encoder_for(config);
    REQUIRE(encoder.frozen);
    const TextFeatures kind = frozen_features(config);
    Dataset data = token_data(), again = token_data();
    encode_text(data, pretrained, kind, device);
    encode_text(again, pretrained, kind, Device(Cpu{2}));
    const Sequences& text = data.splits.at("test").modalities[0];
    CHECK(text.values == again.splits.at("test").modalities[0].values);
    CHECK((text.width == 12 && text.steps == kSteps));
    const std::string run = folder / masks;
    Trainer trainer(config, data, {}, &encoder, 7, run, device, log);
    const auto loss = [&] {
      return evaluate_split(trainer.network(), data.splits.at("train"), device).loss;
    };
    const double before = loss();
    trainer.run();
    CHECK(loss() < 0.8 * before);

    const std::string path = run + "/checkpoint.safetensors";
    const Safetensors checkpoint(path);
    for (const auto& [name, view] : checkpoint.tensors())
      CHECK_FALSE(name.starts_with("text_model."));
    auto [about, network] = load_checkpoint(path);
    CHECK_FALSE(about.encoder);
    REQUIRE(about.frozen);
    const FrozenEncoder recorded = *about.frozen;
    CHECK(recorded.folder == folder / "bert");
    CHECK(recorded.sha256 == sha256_of(pretrained.weights()));
    CHECK(evaluate_split(network, data.splits.at("test"), device).predictions.scores ==
          evaluate_split(trainer.network(), data.splits.at("test"), device).predictions.scores);
    CHECK(message([&] { frozen_text_encoder(config, recorded, "", path); }) == "no error");
    // The recorded folder serves where the config's name leads nowhere.
    Config elsewhere = config;
    elsewhere.pretrained = "moved";
    CHECK(frozen_text_encoder(elsewhere, recorded, "", path).pretrained.folder == folder / "bert");
    Config other = config;
    other.pretrained = folder / "other";
    write_bert(other.pretrained, 0.5, 4);
    CHECK(message([&] { frozen_text_encoder(other, recorded, "", path); }) ==
          folder / "other/model.safetensors: is not the encoder that " + path +
              " was trained with (its sha256 is " + recorded.sha256 + ")");
  }
}

TEST_CASE("fine-tuning: raw text is split by the encoder's vocabulary", "[model][text_encoder]") {
  const TemporaryFolder folder;
  const Device device(Cpu{1});
  RunLog log("", true);
  const Pretrained pretrained = write_bert(folder / "bert");
  save_dataset(folder / "raw.safetensors", token_data(24, true));
  Config config = fine_tuning(folder / "bert", 2);
  config.mask_source = "lengths";
  const TextEncoder encoder = encoder_for(config);
  const Dataset data = open_dataset(config, folder / "raw.safetensors", "", &encoder.pretrained);
  REQUIRE(has_tokens(data));
  // The ids are those that the texts were made from, on 50 steps.
  const Dataset want = token_data(24);
  for (const auto& [name, split] : data.splits) {
    const Sequences &got = split.modalities[0], &made = want.splits.at(name).modalities[0];
    REQUIRE((got.steps == 50 && got.width == 12));
    CHECK(got.lengths == made.lengths);
    for (int64_t n = 0; n < got.count; ++n)
      for (int64_t t = 0; t < kSteps; ++t)
        CHECK(got.tokens[size_t(n * 150 + t)] == made.tokens[size_t(n * 3 * kSteps + t)]);
  }
  Trainer trainer(config, data, {}, &encoder, 7, folder / "run", device, log);
  trainer.run();
  auto [about, network] = load_checkpoint(folder / "run/checkpoint.safetensors");
  CHECK(evaluate_split(network, data.splits.at("test"), device).predictions.scores ==
        evaluate_split(trainer.network(), data.splits.at("test"), device).predictions.scores);
  // Padding changes nothing: the same clips on 9 steps.
  const Evaluation padded = evaluate_split(network, data.splits.at("test"), device),
                   short_ = evaluate_split(network, want.splits.at("test"), device);
  for (size_t i = 0; i < padded.predictions.scores.size(); ++i)
    CHECK(short_.predictions.scores[i] == Approx(padded.predictions.scores[i]).margin(1e-5));
}
