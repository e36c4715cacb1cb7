#include "model/checkpoint.h"

#include <algorithm>

#include "model/bert.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

std::string shape_text(const Shape& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

}  // namespace

std::vector<TensorOut> weight_tensors(Parameters& parameters) {
  std::vector<TensorOut> tensors;
  parameters.fetch();
  for (const Parameter& p : parameters.list())
    tensors.push_back(tensor_out<real>(p.name, p.shape, parameters.values(p)));
  return tensors;
}

void check_weight(const Parameter& p, const Safetensors& file, const std::string& name) {
  const ArrayView& view = file.view(name);
  if (view.shape != p.shape)
    throw input_error(file.file() + ": tensor \"" + name + "\" is " + view.shape_text() +
                      ", the network's is " + shape_text(p.shape));
}

void load_weight(Parameters& parameters, const Parameter& p, const Safetensors& file,
                 const std::string& name) {
  check_weight(p, file, name);
  const ArrayView& view = file.view(name);
  if (view.fortran) throw std::invalid_argument("load_weight: row-major tensors only");
  const Out values = parameters.values(p);
  read_doubles(view, file.file() + ": tensor \"" + name + "\"",
               [&](int64_t first, std::span<const double> block) {
                 std::transform(block.begin(), block.end(), values.begin() + first,
                                [](double x) { return real(x); });
               });
}

void load_weights(Parameters& parameters, const Safetensors& file, bool with_encoder) {
  for (const auto& [name, view] : file.tensors()) {
    const bool foreign = name.starts_with("text_model.") || name.starts_with("stats.") ||
                         name.starts_with("optimizer.");
    if (!foreign && !parameters.find(name))
      throw input_error(file.file() + ": tensor \"" + name +
                        "\" is not a parameter of this network");
  }
  for (const Parameter& p : parameters.list()) {
    if (with_encoder || !p.name.starts_with(kEncoderPrefix))
      load_weight(parameters, p, file, p.name);
  }
  parameters.push();
}

}  // namespace decalign::inline DECALIGN_REAL
