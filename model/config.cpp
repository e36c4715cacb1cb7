#include "model/config.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "data/dataset.h"
#include "data/utf8.h"
#include "model/config_keys.h"

namespace decalign {
namespace {

using json = nlohmann::json;

size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t next = std::min({row[j] + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1])});
      diagonal = row[j];
      row[j] = next;
    }
  }
  return row[b.size()];
}

// A value for a one-line message.
std::string shown(const json& value) {
  if (value.is_array()) return "a list";
  if (value.is_object()) return "an object";
  return printable(value.dump());
}

class Reader {
 public:
  Reader(const json& source, std::string where) : source_(source), where_(std::move(where)) {}

  void section(const char*) {}

  template <class T, class Constraint>
  void operator()(const char* key, T& field, const Constraint& constraint, const char*,
                  const char*) {
    if constexpr (requires { typename T::mapped_type; }) {
      read_suffixed(key, field, constraint);
    } else {
      known_.insert(key);
      const auto found = source_.find(key);
      if (found != source_.end() && !found->is_null()) read(key, *found, field, constraint);
    }
  }

  /// After all keys were visited: the first key nobody asked for is an error.
  void reject_unknown() const {
    for (const auto& [key, value] : source_.items()) {
      if (known_.contains(key) || taken_.contains(key)) continue;
      std::string nearest;
      size_t best = std::numeric_limits<size_t>::max();
      for (const std::string& k : known_) {
        // No distance is below the difference in length; most keys need no table.
        if (std::max(key.size(), k.size()) - std::min(key.size(), k.size()) >= best) continue;
        const size_t distance = edit_distance(key, k);
        if (distance < best) best = distance, nearest = k;
      }
      throw input_error(where_ + ": unknown key \"" + printable(key) + "\" (nearest known key: \"" +
                        nearest + "\")");
    }
  }
  void also_known(const std::string& key) { known_.insert(key); }

 private:
  [[noreturn]] void wrong(const std::string& key, const json& value,
                          const std::string& expected) const {
    throw input_error(where_ + ": key \"" + printable(key) + "\" is " + shown(value) +
                      ", expected " + expected);
  }

  void read(const std::string& key, const json& value, bool& field, const Range&) const {
    if (!value.is_boolean()) wrong(key, value, "true or false");
    field = value.get<bool>();
  }
  void read(const std::string& key, const json& value, double& field, const Range& r) const {
    if (!value.is_number()) wrong(key, value, "a number");
    const double x = value.get<double>();
    if (!std::isfinite(x) || x < r.lo || x > r.hi || (r.open_lo && x == r.lo) ||
        (r.open_hi && x == r.hi))
      wrong(key, value, "a number in " + r.text());
    field = x;
  }
  void read(const std::string& key, const json& value, int64_t& field, const Range& r) const {
    if (key == "temporal_length" && value == "min") {
      field = -1;
      return;
    }
    double x = 0;
    read(key, value, x, r);
    if (x != std::floor(x)) wrong(key, value, "a whole number");
    field = int64_t(x);
  }
  template <class T>
  void read(const std::string& key, const json& value, std::optional<T>& field,
            const Range& r) const {
    T x = 0;
    read(key, value, x, r);
    field = x;
  }
  void read(const std::string& key, const json& value, std::string& field,
            const Choices& choices) const {
    if (!value.is_string()) wrong(key, value, choices.empty() ? "a string" : choices.text());
    std::string text = value.get<std::string>();
    if (!choices.empty() && std::find(choices.begin(), choices.end(), text) == choices.end())
      wrong(key, value, choices.text());
    field = std::move(text);
  }
  template <class T, class Constraint>
  void read(const std::string& key, const json& value, std::vector<T>& field,
            const Constraint& constraint) const {
    if (value.is_string()) {  // "text, audio" or "[text, audio]"
      if constexpr (std::is_same_v<T, std::string>) {
        field.clear();
        std::string word;
        for (char ch : value.get<std::string>() + ",") {
          if (ch == ',') {
            if (!word.empty()) field.push_back(std::exchange(word, {}));
          } else if (!std::isspace(static_cast<unsigned char>(ch)) && !std::strchr("[]'\"", ch)) {
            word += ch;
          }
        }
        return;
      }
    }
    if (!value.is_array()) wrong(key, value, "a list");
    std::vector<T> items(value.size());
    for (size_t i = 0; i < items.size(); ++i) read(key, value[i], items[i], constraint);
    field = std::move(items);
  }

  // conv1d_kernel_size_<suffix>; attn_dropout, whose text has no suffix, and attn_dropout_<suffix>.
  template <class Map>
  void read_suffixed(const std::string& stem, Map& field, const Range& r) {
    const bool bare = stem.back() != '_';
    const std::string prefix = bare ? stem + "_" : stem;
    for (const char* s : {"l", "a", "v"}) known_.insert(bare && *s == 'l' ? stem : prefix + s);
    for (const auto& [key, value] : source_.items()) {
      std::string suffix;
      if (bare && key == stem)
        suffix = "l";
      else if (key.starts_with(prefix) && key.size() > prefix.size())
        suffix = key.substr(prefix.size());
      else
        continue;
      taken_.insert(key);
      if (value.is_null()) continue;
      typename Map::mapped_type x{};
      read(key, value, x, r);
      field[suffix] = x;
    }
  }

  const json& source_;
  std::string where_;
  std::set<std::string> known_, taken_;
};

void check(Config& c, const std::string& where) {
  const auto wrong = [&](const std::string& what) { throw input_error(where + ": " + what); };
  if (c.dst_feature_dim_nheads.size() != 2)
    wrong("key \"dst_feature_dim_nheads\" must be [width, heads]");
  if (c.width() % c.heads() != 0)
    wrong("key \"dst_feature_dim_nheads\": " + std::to_string(c.heads()) +
          " heads do not divide width " + std::to_string(c.width()));
  const auto& p = c.feature_clip_percentiles;
  if (p.size() != 2 || p[0] >= p[1])
    wrong("key \"feature_clip_percentiles\" must be [low, high] with low < high");
  if (c.classification() && c.num_classes < 2)
    wrong("key \"num_classes\" must be at least 2 in classification");
  if (c.classification() && !c.class_weights.empty() &&
      std::ssize(c.class_weights) != c.num_classes)
    wrong("key \"class_weights\" has " + std::to_string(c.class_weights.size()) + " entries for " +
          std::to_string(c.num_classes) + " classes");
  if (c.gmm_covariance == "full" && c.local_proto_mahalanobis)
    wrong("key \"local_proto_mahalanobis\" divides by variances; set gmm_covariance=diagonal");
  for (std::string& name : c.active_modalities) {
    std::transform(name.begin(), name.end(), name.begin(),
                   [](unsigned char ch) { return char(std::tolower(ch)); });
    if (name == "t" || name == "l") name = "text";
    if (name == "a") name = "audio";
    if (name == "v") name = "vision";
  }
}

}  // namespace

std::string Range::text() const {
  std::ostringstream s;
  s.precision(12);
  s << (open_lo || std::isinf(lo) ? '(' : '[') << lo << ", " << hi
    << (open_hi || std::isinf(hi) ? ')' : ']');
  return s.str();
}

std::string Choices::text() const {
  std::string text;
  for (const std::string& word : *this)
    if (!word.empty()) text += (text.empty() ? "" : " | ") + word;
  return text;
}

void apply_variant(Config& c) {
  if (c.variant != "paper") return;
  c.dec_loss = "cos_sum";
  c.gmm_covariance = "full";
  c.hetero_cost_reduction = c.proto_reduction = c.moment_loss = "sum";
  c.ot_entropy = c.sinkhorn = "log";
  c.ot_gradient = "envelope";
  c.mask_source = "lengths";
  c.temporal_length = -1;
}

std::string modality_suffix(const std::string& modality) {
  if (modality == "text") return "l";
  if (modality == "audio") return "a";
  if (modality == "vision") return "v";
  return modality;
}

int64_t Config::kernel_size(const std::string& modality) const {
  const auto found = conv1d_kernel_size.find(modality_suffix(modality));
  return found == conv1d_kernel_size.end() ? 1 : found->second;
}

double Config::attention_dropout(const std::string& modality) const {
  const auto found = attn_dropout.find(modality_suffix(modality));
  if (found != attn_dropout.end()) return found->second;
  return modality == "text" ? 0.1 : 0.0;
}

Config parse_config(const json& source, const std::string& where) {
  if (!source.is_object())
    throw input_error(where + ": a config is a JSON object of keys and values");
  Config config;
  {  // the variant first: it changes defaults
    Config probe;
    const auto found = source.find("variant");
    if (found != source.end() && !found->is_null()) {
      Reader reader(source, where);
      reader("variant", probe.variant, Choices{"release", "paper"}, "", "");
      config.variant = probe.variant;
      apply_variant(config);
    }
  }
  Reader reader(source, where);
  visit_keys(config, reader);
  for (const std::string& key : keys_without_effect()) reader.also_known(key);
  reader.reject_unknown();
  check(config, where);
  return config;
}

json read_json(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw input_error(path + ": cannot be opened");
  try {
    return json::parse(file);
  } catch (const json::exception& e) {
    throw input_error(path + ": not valid JSON: " + e.what());
  }
}

void apply_override(json& target, const std::string& assignment) {
  const size_t equals = assignment.find('=');
  if (equals == std::string::npos || equals == 0)
    throw input_error("\"" + assignment + "\" is neither an option nor key=value");
  if (valid_utf8(assignment) != assignment)
    throw input_error("\"" + printable(assignment) + "\" is not UTF-8 text");
  const std::string key = assignment.substr(0, equals), text = assignment.substr(equals + 1);
  std::string lower = text;
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return char(std::tolower(c)); });
  if (lower == "true" || lower == "false") {
    target[key] = lower == "true";
  } else if (lower == "none" || lower == "null") {
    target[key] = nullptr;
  } else {
    json value = json::parse(text, nullptr, false);
    target[key] = value.is_discarded() ? json(text) : std::move(value);
  }
}

}  // namespace decalign
