// Fine-tuning a text encoder: it learns, its files come back to the bit.
#include <set>

#include "text_encoder_files.h"
#include "training_files.h"

using namespace decalign;
using namespace decalign::test;
using decalign::testing::TemporaryFolder;

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
