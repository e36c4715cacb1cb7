// Text encoders of the tests: a small pretrained folder, clips of its words, configs.
#pragma once

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "data/generated.h"
#include "data/safetensors.h"
#include "data/tokens.h"
#include "model/bert.h"
#include "model/trainer.h"
#include "small_config.h"
#include "support.h"
#include "temporary_folder.h"

namespace decalign::inline DECALIGN_REAL::test {

inline constexpr const char* kVocabulary =
    "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nawful\nbad\npoor\nfine\nfair\ngood\ngreat\nfilm\nthe\n";
inline constexpr int32_t kFirstWord = 5, kWords = 7, kFiller = 12;  // awful ... great; film, the
inline constexpr int64_t kSteps = 9;

inline void write(const std::string& path, const std::string& text) {
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  std::ofstream(path, std::ios::binary) << text;
}

/// A pretrained folder of two layers with random weights. The file holds a pooler too.
inline Pretrained write_bert(const std::string& folder, double dropout = 0.1, uint64_t seed = 3) {
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

inline TextEncoder encoder_for(const Config& config) {
  std::string warning;
  return *find_text_encoder(config, "", warning);
}

/// Clips whose words tell the label, "[CLS] film ... good [SEP]", of 4 to 9 tokens, beside audio.
inline Dataset token_data(int64_t train = 44, bool as_text = false) {
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

inline Config fine_tuning(const std::string& pretrained, int64_t epochs) {
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
inline Config scheduled(const std::string& pretrained, int64_t epochs) {
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

inline Config without_dropout(Config config) {
  for (const char* suffix : {"l", "a", "v"}) config.attn_dropout[suffix] = 0;
  config.relu_dropout = config.embed_dropout = config.res_dropout = 0;
  config.output_dropout = config.text_dropout = 0;
  return config;
}

inline void train(const Config& config, const Dataset& data, const TextEncoder& encoder,
                  const std::string& folder, int threads = 1) {
  RunLog log("", true);
  Trainer trainer(config, data, {}, &encoder, 7, folder, Device(Cpu{threads}), log);
  trainer.run();
}

/// The tensors' bytes, without metadata.
inline std::map<std::string, std::vector<double>> tensors_of(const std::string& path) {
  const Safetensors file(path);
  std::map<std::string, std::vector<double>> values;
  for (const auto& [name, view] : file.tensors()) values[name] = file.doubles(name);
  return values;
}

/// |a - b| / |b| of a tensor of two files.
inline double distance(const std::string& a, const std::string& b, const std::string& tensor) {
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

inline std::string message(const std::function<void()>& call) {
  try {
    call();
  } catch (const input_error& e) {
    return e.what();
  }
  return "no error";
}

inline constexpr const char* kFiles[] = {"/checkpoint.safetensors", "/state.safetensors"};

}  // namespace decalign::inline DECALIGN_REAL::test
