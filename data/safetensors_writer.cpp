// safetensors files: the writer.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "data/atomic_file.h"
#include "data/safetensors.h"
#include "data/safetensors_types.h"

namespace decalign {
namespace {

int64_t element_size(const TensorOut& tensor) { return safetensors_dtype(tensor.dtype).size; }

void check(const TensorOut& tensor) {
  const int64_t size = element_size(tensor);
  const auto count = element_count(tensor.shape, INT64_MAX);
  if (size == 0 || !count || *count != int64_t(tensor.bytes.size()) / size ||
      int64_t(tensor.bytes.size()) % size != 0) {
    throw std::invalid_argument("save_safetensors: tensor " + tensor.name +
                                ": shape, type and bytes disagree");
  }
}

std::string header_of(const std::vector<TensorOut>& tensors,
                      const std::map<std::string, std::string>& metadata) {
  nlohmann::json header = nlohmann::json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  size_t offset = 0;
  for (const TensorOut& tensor : tensors) {
    check(tensor);
    if (header.contains(tensor.name)) {
      throw std::invalid_argument("save_safetensors: two tensors are named " + tensor.name);
    }
    const size_t end = offset + tensor.bytes.size();
    header[tensor.name] = {
        {"dtype", tensor.dtype}, {"shape", tensor.shape}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return text;
}

}  // namespace

void save_safetensors(const std::string& path, std::vector<TensorOut> tensors,
                      const std::map<std::string, std::string>& metadata) {
  // Wide elements first keep every tensor aligned.
  std::stable_sort(tensors.begin(), tensors.end(), [](const TensorOut& a, const TensorOut& b) {
    return element_size(a) > element_size(b);
  });
  const std::string header = header_of(tensors, metadata);
  AtomicFile file(path);
  const uint64_t length = header.size();
  file.write(std::as_bytes(std::span(&length, 1)));
  file.write(header);
  for (const TensorOut& tensor : tensors) file.write(tensor.bytes);
  file.commit();
}

}  // namespace decalign
