#include "model/replay.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <list>
#include <nlohmann/json.hpp>

#include "autograd/cuda_device.h"
#include "model/bert.h"
#include "model/checkpoint.h"
#include "model/parameter_groups.h"
#include "model/pretrained.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

bool is_tokens(const std::string& key, const ArrayView& view) {
  return key == "text" && view.shape.size() == 3 && view.shape[1] == 3 &&
         (view.dtype.kind == 'i' || view.dtype.kind == 'u');
}

// The modalities of the first batch: every tensor [B, T, d] under `prefix` but labels and lengths;
// token ids [B, 3, T] have width 0.
std::vector<ModalitySize> batch_sizes(const Safetensors& file, const std::string& prefix) {
  std::vector<Sequences> found;
  for (const auto& [name, view] : file.tensors()) {
    if (!name.starts_with(prefix)) continue;
    const std::string key = name.substr(prefix.size());
    if (key == "labels" || key.ends_with("_lengths") || key.find('.') != std::string::npos)
      continue;
    if (view.shape.size() != 3)
      throw input_error(file.file() + ": tensor \"" + name + "\" is " + view.shape_text() +
                        ", expected [B, T, d]");
    Sequences s;
    s.name = key;
    const bool tokens = is_tokens(key, view);
    s.steps = view.shape[tokens ? 2 : 1];
    s.width = tokens ? 0 : view.shape[2];
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

std::vector<int32_t> token_ids(const Safetensors& file, const std::string& name) {
  std::vector<int32_t> ids;
  for (const int64_t id : file.integers(name)) {
    if (id < 0 || id > INT32_MAX)
      throw input_error(file.file() + ": tensor \"" + name + "\" holds " + std::to_string(id) +
                        ", which is no token id");
    ids.push_back(int32_t(id));
  }
  return ids;
}

Batch read_batch(const Safetensors& file, const std::string& prefix, const Network& network) {
  Batch batch;
  for (const ModalitySize& size : network.sizes()) {
    const std::string name = prefix + size.name;
    const ArrayView& view = file.view(name);
    const bool tokens = network.encoder() && size.name == "text";
    const bool fits =
        tokens ? is_tokens("text", view) : view.shape.size() == 3 && view.shape[2] == size.width;
    if (!fits || view.shape[0] < 1 || (batch.count > 0 && view.shape[0] != batch.count))
      throw input_error(
          file.file() + ": tensor \"" + name + "\" is " + view.shape_text() + ", expected " +
          (tokens ? "integers [B, 3, T]" : "[B, T, " + std::to_string(size.width) + "]") +
          " with one B for all");
    batch.count = view.shape[0];
    BatchModality m;
    m.steps = view.shape[tokens ? 2 : 1];
    m.width = size.width;
    if (tokens)
      m.tokens = token_ids(file, name);
    else
      m.x = reals(file, name);
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

// The encoder beside the config, if the text is token ids.
std::optional<Pretrained> text_encoder(const Config& config, const std::string& config_file,
                                       std::vector<ModalitySize>& sizes) {
  for (ModalitySize& size : sizes) {
    if (size.width > 0 || size.name != "text") continue;
    if (!config.use_bert || config.pretrained.empty())
      throw input_error(config_file +
                        ": text is token ids, which need use_bert and the key \"pretrained\"");
    const auto places = pretrained_places(
        config.pretrained, {}, std::filesystem::path(config_file).parent_path().string());
    const std::string folder = find_pretrained(places);
    if (folder.empty())
      throw input_error(config_file + ": " + not_found(config.pretrained, places));
    const Pretrained encoder = open_pretrained(folder);
    size.width = encoder.config.hidden_size;
    return encoder;
  }
  return std::nullopt;
}

void write_results(const ReplayOptions& options, Network& network, const Result& result,
                   const Device& device) {
  std::vector<TensorOut> tensors;
  std::list<std::vector<real>> values;  // what the tensors refer to
  const auto add = [&](const std::string& name, const Tensor& t) {
    values.push_back(device.read(t.value));
    tensors.push_back(tensor_out<real>(name, t.shape, In(values.back())));
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
  parameters.fetch();
  for (const Parameter& p : parameters.list())
    tensors.push_back(tensor_out<real>("grad." + p.name, p.shape, In(parameters.grads(p))));
  // The release's model has the pooler too, and nothing reads it.
  const int64_t hidden = network.encoder() ? network.encoder()->hidden_size : 0;
  const std::vector<real> zeros(size_t(hidden * hidden), real(0));
  if (hidden > 0) {
    const std::string pooler = std::string("grad.") + kEncoderPrefix + "pooler.dense.";
    tensors.push_back(tensor_out<real>(pooler + "weight", {hidden, hidden}, zeros));
    tensors.push_back(tensor_out<real>(pooler + "bias", {hidden}, In(zeros).first(size_t(hidden))));
  }
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
  std::vector<ModalitySize> sizes = batch_sizes(batches, prefixes[0]);
  if (sizes.size() < 2)
    throw input_error(options.batch + ": " + std::to_string(sizes.size()) +
                      " modalities [B, T, d] found, at least 2 are needed");
  const Config config =
      fit_config(parse_config(read_json(options.config), options.config), weights, sizes);
  const std::optional<Pretrained> encoder = text_encoder(config, options.config, sizes);
  const bool given = std::any_of(weights.tensors().begin(), weights.tensors().end(),
                                 [](auto& t) { return t.first.starts_with(kEncoderPrefix); });
  if (encoder)
    check_bert(encoder->config, given ? weights : Safetensors(encoder->weights()), given);
  Network network(config, sizes, options.config,
                  encoder ? std::optional(encoder->config) : std::nullopt);
  if (encoder && !given) load_bert(network.parameters(), Safetensors(encoder->weights()));
  load_weights(network.parameters(), weights, given);
  const std::vector<float> class_weights(config.class_weights.begin(),
                                         config.class_weights.end());  // as the release
  network.set_class_weights(std::vector<real>(class_weights.begin(), class_weights.end()));
  std::vector<Batch> inputs;
  for (const std::string& prefix : prefixes) inputs.push_back(read_batch(batches, prefix, network));

  const OpenDevice opened = open_device(options.device, options.threads, config.precision);
  const Device& device = opened.device;
  network.move_to(device);
  Tape tape(device);
  Buffer<RandomState> random(device, 1);
  const auto at_step = [&](uint64_t step) {
    const RandomState state{1, step};
    random.upload({&state, 1});
    return random.data();
  };
  if (options.steps == 0) {
    const Result result = network.forward(tape, inputs[0], at_step(0));
    tape.backward(result.total);
    return write_results(options, network, result, device);
  }
  Optimizer optimizer(network.parameters(),
                      parameter_groups(config, network.encoder(), options.learning_rate));
  std::vector<real> curve;
  for (int64_t step = 0; step < options.steps; ++step) {
    tape.reset();
    optimizer.zero_grad();
    const Result result =
        network.forward(tape, inputs[size_t(step) % inputs.size()], at_step(uint64_t(step)));
    curve.push_back(device.read(result.total.value, 0));
    tape.backward(result.total);
    optimizer.step();
  }
  const Shape shape{options.steps};
  save_safetensors(options.out, {tensor_out<real>("curve.total_loss", shape, In(curve))});
}

}  // namespace decalign::inline DECALIGN_REAL
