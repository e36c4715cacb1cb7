// decalign replay: the network on given weights and batches, in float or double.
#include "model/replay.h"
#include "tools/cli/commands.h"

static_assert(sizeof(decalign::real) == sizeof(float), "the command is compiled in float");

// The double build of the same function.
namespace decalign::f64 {
void replay(const ReplayOptions& options);
}

namespace decalign {

void add_replay(CLI::App& app) {
  auto options = std::make_shared<ReplayOptions>();
  auto f64 = std::make_shared<bool>(false);
  CLI::App* command = app.add_subcommand(
      "replay", "outputs, losses and gradients for given weights and a given batch");
  command->add_option("--config", options->config, "JSON config")->required();
  command->add_option("--weights", options->weights, "safetensors: the parameters by their names")
      ->required();
  command->add_option("--batch", options->batch, "safetensors: modalities [B, T, d] and labels")
      ->required();
  command->add_option("--out", options->out, "safetensors to write")->required();
  command->add_flag("--f64", *f64, "compute in double");
  command
      ->add_option("--steps", options->steps,
                   "train N steps of Adam over batch0, batch1, ... instead")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--learning-rate", options->learning_rate, "for --steps");
  command->add_option("--threads", options->threads, "threads (all cores)")
      ->check(CLI::Range(0, 4096));
  command->add_option("--device", options->device, "cpu, cuda, or auto: a GPU where there is one")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  command->callback([options, f64] { *f64 ? f64::replay(*options) : replay(*options); });
}

}  // namespace decalign
