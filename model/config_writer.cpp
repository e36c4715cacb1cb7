// Configs on their way out: as JSON, and as the page that lists every key.
#include <nlohmann/json.hpp>
#include <sstream>

#include "model/config_keys.h"

namespace decalign {
namespace {

using json = nlohmann::json;

class Writer {
 public:
  nlohmann::ordered_json out;
  nlohmann::ordered_json absent;  // what absent keys mean: their empty texts are left out

  void section(const char*) {}
  template <class T, class Constraint>
  void operator()(const std::string& key, const T& field, const Constraint&, const char*,
                  const char*) {
    if constexpr (requires { typename T::mapped_type; }) {
      const std::string prefix = key.back() == '_' ? key : key + "_";
      for (const auto& [suffix, value] : field)
        out[key.back() != '_' && suffix == "l" ? key : prefix + suffix] = value;
    } else if constexpr (requires { field.has_value(); }) {
      if (field) out[key] = *field;
    } else if constexpr (std::is_same_v<T, std::string>) {
      if (!field.empty() || absent.contains(key)) out[key] = field;
    } else {
      if (key == "temporal_length" && json(field) == json(-1))
        out[key] = "min";
      else
        out[key] = field;
    }
  }
};

// A Markdown table per section.
class Reference {
 public:
  explicit Reference(const Config& paper) { visit_keys(paper, paper_); }
  std::ostringstream out;

  void section(const char* title) {
    out << "\n## " << title
        << "\n\n| key | default | range | paper | meaning |\n|---|---|---|---|---|\n";
  }
  template <class T, class Constraint>
  void operator()(const std::string& key, const T& field, const Constraint& constraint,
                  const char* symbol, const char* meaning) {
    std::string value, range = escaped(constraint.text());
    Writer one;
    one(key, field, constraint, symbol, meaning);
    if (one.out.contains(key)) value = one.out[key].dump();
    if (*meaning == '*') value += ", paper " + paper_.out[key].dump();
    if constexpr (requires { typename T::mapped_type; })
      value = key == "attn_dropout" ? "0.1 for text, else 0" : "1";
    if constexpr (std::is_same_v<T, std::optional<int64_t>>) value = "`patience`";
    if constexpr (std::is_same_v<T, std::optional<double>>)
      value = "`" + key.substr(sizeof("bert_") - 1) + "`";
    if constexpr (std::is_same_v<T, bool>) range = "true, false";
    if constexpr (std::is_same_v<T, std::vector<std::string>>) range = "names";
    if (range.empty()) range = "text";
    out << "| `" << key << (key.back() == '_' ? "<modality>" : "") << "` | " << value << " | "
        << range << " | " << symbol << " | " << meaning << " |\n";
  }

 private:
  static std::string escaped(const std::string& text) {
    std::string result;
    for (char ch : text) result += ch == '|' ? std::string("\\|") : std::string(1, ch);
    return result;
  }
  Writer paper_;
};

constexpr const char* kIntroduction = R"(# Configuration

Every key of a JSON config and of `key=value` on the command line. This page is the output of
`decalign info --keys`.

The released configs load unchanged; `null` is the same as absent, and an unknown key is an error.
Keys marked * differ between `variant=release` and `variant=paper`; the default column shows both.
Keys per modality end in l, a, v for text, audio, vision and in the name of any other modality.
`paper` is the symbol of the paper (DecAlign, ICLR 2026).
)";

}  // namespace

nlohmann::ordered_json to_json(const Config& config) {
  Writer defaults, writer;
  const Config plain;
  visit_keys(plain, defaults);
  writer.absent = std::move(defaults.out);
  visit_keys(config, writer);
  return writer.out;
}

std::string config_reference() {
  Config paper;
  paper.variant = "paper";
  apply_variant(paper);
  Reference reference(paper);
  reference.out << kIntroduction;
  const Config defaults;
  visit_keys(defaults, reference);
  reference.out
      << "\n## Keys without effect\n\nKeys of the release's configs that are accepted with "
         "any value and change nothing here:\n";
  const char* separator = "";
  for (const std::string& key : keys_without_effect()) {
    reference.out << separator << "`" << key << "`";
    separator = ",\n";
  }
  reference.out << ".\n";
  return reference.out.str();
}

}  // namespace decalign
