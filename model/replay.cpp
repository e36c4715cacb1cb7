#include "model/replay.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "model/checkpoint.h"
#include "model/optimizer.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

// The modalities of the first batch: every tensor [B, T, d] under `prefix` but labels and lengths.
std::vector<ModalitySize> batch_sizes(const Safetensors& file, const std::string& prefix) {
  std::vector<Sequences> found;
  for (const auto& [name, view] : file.tensors()) {
    if (!name.starts_with(prefix)) continue;
    const std::string key = name.substr(prefix.size());
    if (key == "labels" || key.ends_with("_lengths") || key.find('.') != std::string::npos)
      continue;
    if (key == "text" && view.shape.size() == 3 && view.shape[1] == 3 && view.dtype.kind == 'i')
      throw input_error(file.file() + ": tensor \"" + name +
                        "\" holds token ids; the text encoder is not available yet");
    if (view.shape.size() != 3)
      throw input_error(file.file() + ": tensor \"" + name + "\" is " + view.shape_text() +
                        ", expected [B, T, d]");
    Sequences s;
    s.name = key;
    s.steps = view.shape[1];
    s.width = view.shape[2];
    found.push_back(std::move(s));
  }
  sort_modalities(found);
  std::vector<ModalitySize> sizes;
  for (const Sequences& s : found) sizes.push_back({s.name, s.steps, s.width});
  return sizes;
}

std::vector<real> reals(const Safetensors& file, const std::string& name) {
  const std::vector<double> values = file.doubles(name);
  return std::vector<real>(values.begin(), values.end());
}

Batch read_batch(const Safetensors& file, const std::string& prefix, const Network& network) {
  Batch batch;
  for (const ModalitySize& size : network.sizes()) {
    const std::string name = prefix + size.name;
    const ArrayView& view = file.view(name);
    if (view.shape.size() != 3 || view.shape[2] != size.width || view.shape[0] < 1 ||
        (batch.count > 0 && view.shape[0] != batch.count))
      throw input_error(file.file() + ": tensor \"" + name + "\" is " + view.shape_text() +
                        ", expected [B, T, " + std::to_string(size.width) + "] with one B for all");
    batch.count = view.shape[0];
    BatchModality m;
    m.x = reals(file, name);
    m.steps = view.shape[1];
    m.width = view.shape[2];
    m.lengths.assign(size_t(batch.count), int32_t(m.steps));
    if (file.has(name + "_lengths")) {
      const auto lengths = file.integers(name + "_lengths");
      if (std::ssize(lengths) != batch.count ||
          std::any_of(lengths.begin(), lengths.end(),
                      [&](int64_t n) { return n < 0 || n > m.steps; }))
        throw input_error(file.file() + ": tensor \"" + name +
                          "_lengths\" must hold B lengths in [0, T]");
      m.lengths.assign(lengths.begin(), lengths.end());
    }
    batch.modalities.push_back(std::move(m));
  }
  batch.labels = reals(file, prefix + "labels");
  if (std::ssize(batch.labels) != batch.count)
    throw input_error(file.file() + ": tensor \"" + prefix +
                      "labels\" must hold one label per sample");
  for (real y : batch.labels)
    if (network.config().classification() &&
        !(y >= 0 && y < network.config().num_classes && y == std::floor(y)))
      throw input_error(file.file() + ": tensor \"" + prefix + "labels\" holds " +
                        std::to_string(y) + ", which is no class in [0, " +
                        std::to_string(network.config().num_classes) + ")");
  return batch;
}

// What only the weights know: taps of the projections, width of z, number of classes.
Config fit_config(Config config, const Safetensors& weights,
                  const std::vector<ModalitySize>& sizes) {
  const auto dimension = [&](const std::string& name, size_t axis) {
    const ArrayView& view = weights.view(name);
    if (view.shape.size() <= axis)
      throw input_error(weights.file() + ": tensor \"" + name + "\" is " + view.shape_text());
    return view.shape[axis];
  };
  for (const ModalitySize& s : sizes) {
    const std::string suffix = modality_suffix(s.name);
    config.conv1d_kernel_size[suffix] = dimension("proj_" + suffix + ".weight", 2);
  }
  if (!sizes.empty())
    config.pde_dim = dimension("pde_" + modality_suffix(sizes[0].name) + ".net.3.weight", 0);
  if (config.classification()) config.num_classes = dimension("out_layer.weight", 0);
  return config;
}

void write_results(const ReplayOptions& options, Network& network, const Result& result) {
  std::vector<TensorOut> tensors;
  const auto add = [&](const std::string& name, const Tensor& t) {
    tensors.push_back(tensor_out<real>(name, t.shape, In(t.value)));
  };
  add("output_logit", result.logits);
  add("final_rep", result.final_rep);
  add("task_loss", result.task);
  add("dec_loss", result.dec);
  add("hete_loss", result.hete);
  add("homo_loss", result.homo);
  add("ct_loss", result.ct);
  add("total_loss", result.total);
  Parameters& parameters = network.parameters();
  for (const Parameter& p : parameters.list())
    tensors.push_back(tensor_out<real>("grad." + p.name, p.shape, In(parameters.grads(p))));
  save_safetensors(options.out, std::move(tensors));
}

}  // namespace

void replay(const ReplayOptions& options) {
  const Safetensors weights(options.weights), batches(options.batch);
  std::vector<std::string> prefixes{""};
  if (options.steps > 0) {
    prefixes.clear();
    for (int64_t i = 0; batches.has("batch" + std::to_string(i) + ".labels"); ++i)
      prefixes.push_back("batch" + std::to_string(i) + ".");
    if (prefixes.empty())
      throw input_error(options.batch +
                        ": no tensor \"batch0.labels\"; --steps needs numbered batches");
  }
  const std::vector<ModalitySize> sizes = batch_sizes(batches, prefixes[0]);
  if (sizes.size() < 2)
    throw input_error(options.batch + ": " + std::to_string(sizes.size()) +
                      " modalities [B, T, d] found, at least 2 are needed");
  const Config config =
      fit_config(parse_config(read_json(options.config), options.config), weights, sizes);
  Network network(config, sizes, options.config);
  load_weights(network.parameters(), weights);
  const std::vector<float> class_weights(config.class_weights.begin(),
                                         config.class_weights.end());  // as the release
  network.set_class_weights(std::vector<real>(class_weights.begin(), class_weights.end()));
  std::vector<Batch> inputs;
  for (const std::string& prefix : prefixes) inputs.push_back(read_batch(batches, prefix, network));

  const Device device(Cpu{options.threads});
  Tape tape(device);
  RandomState random{1, 0};
  if (options.steps == 0) {
    const Result result = network.forward(tape, inputs[0], &random);
    tape.backward(result.total);
    return write_results(options, network, result);
  }
  AdamOptions adam;
  adam.weight_decay = config.weight_decay;
  adam.clip = config.clip;
  Optimizer optimizer(network.parameters(), adam, options.learning_rate);
  std::vector<real> curve;
  for (int64_t step = 0; step < options.steps; ++step) {
    tape.reset();
    optimizer.zero_grad(device);
    random.step = uint64_t(step);
    const Result result = network.forward(tape, inputs[size_t(step) % inputs.size()], &random);
    curve.push_back(result.total.value[0]);
    tape.backward(result.total);
    optimizer.step(device);
  }
  const Shape shape{options.steps};
  save_safetensors(options.out, {tensor_out<real>("curve.total_loss", shape, In(curve))});
}

}  // namespace decalign::inline DECALIGN_REAL
