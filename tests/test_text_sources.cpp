// Where text comes from: a frozen encoder, raw text, and encoders that do not fit.
#include "data/dataset_file.h"
#include "data/file_hash.h"
#include "model/frozen_text.h"
#include "text_encoder_files.h"
#include "training_files.h"

using namespace decalign;
using namespace decalign::test;
using decalign::testing::TemporaryFolder;

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
