#include "model/checkpoint.h"

#include <algorithm>

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
  for (const Parameter& p : parameters.list())
    tensors.push_back(tensor_out<real>(p.name, p.shape, parameters.values(p)));
  return tensors;
}

void load_weights(Parameters& parameters, const Safetensors& file) {
  for (const auto& [name, view] : file.tensors()) {
    const bool foreign = name.starts_with("text_model.") || name.starts_with("stats.") ||
                         name.starts_with("optimizer.");
    if (!foreign && !parameters.find(name))
      throw input_error(file.file() + ": tensor \"" + name +
                        "\" is not a parameter of this network");
  }
  for (const Parameter& p : parameters.list()) {
    const ArrayView& view = file.view(p.name);
    if (view.shape != p.shape)
      throw input_error(file.file() + ": tensor \"" + p.name + "\" is " + view.shape_text() +
                        ", the network's is " + shape_text(p.shape));
    const std::vector<double> values = file.doubles(p.name);
    std::transform(values.begin(), values.end(), parameters.values(p).begin(),
                   [](double x) { return real(x); });
  }
}

}  // namespace decalign::inline DECALIGN_REAL
