// The text of a split: float features, token ids, raw text.
#include "data/text_modality.h"

#include <algorithm>
#include <cmath>

#include "data/field_values.h"
#include "data/tokens.h"

namespace decalign {
namespace {

bool is_token_id(double value) {
  return value >= 0.0 && value <= double(INT32_MAX) && value == std::floor(value);
}

bool whole_numbers(const ArrayView& array, const std::string& what) {
  bool whole = true;
  read_doubles(array, what, [&](int64_t, std::span<const double> block) {
    whole = whole && std::all_of(block.begin(), block.end(), is_token_id);
  });
  return whole;
}

enum class TextBert { kAbsent, kFeatures, kTokens };

/// What `text_bert` is; broken arrays count as tokens, so that reading them says what is wrong.
TextBert kind_of_text_bert(const SplitFields& fields) {
  const Field* field = fields.find("text_bert");
  if (field == nullptr) return TextBert::kAbsent;
  const bool features =
      field->array && field->array->dtype.kind == 'f' && field->array->shape.size() == 3;
  return features ? TextBert::kFeatures : TextBert::kTokens;
}

/// The same where tokens are wanted: whole floats [N, 3, T] are token ids.
TextBert kind_with_tokens(const SplitFields& fields) {
  const TextBert kind = kind_of_text_bert(fields);
  if (kind != TextBert::kFeatures) return kind;
  const ArrayView& array = *fields.find("text_bert")->array;
  return array.shape[1] == 3 && whole_numbers(array, fields.place() + "text_bert")
             ? TextBert::kTokens
             : kind;
}

/// `text_bert` as count, steps and tokens of `sequences`.
void read_tokens(const SplitFields& fields, Sequences& sequences) {
  const Field& field = *fields.find("text_bert");
  const std::string what = fields.place() + "text_bert";
  const bool fits = field.array && field.array->dtype.numeric() && field.array->dtype.kind != 'b' &&
                    field.array->shape.size() == 3 && field.array->shape[1] == 3;
  if (!fits) {
    throw input_error(what + ": token ids [N, 3, T] are expected, the file has " +
                      field.description);
  }
  const ArrayView& array = *field.array;
  const int64_t steps = array.shape[2];
  if (array.count() == 0 || steps > INT32_MAX) {
    throw input_error(what + ": the array " + array.shape_text() + " is empty or too long");
  }
  std::vector<int32_t> tokens(size_t(array.count()));
  visit_doubles(array, what, [&](int64_t place, double value) {
    if (!is_token_id(value)) {
      throw input_error(what + ": clip " + std::to_string(place / steps / 3) + ", row " +
                        std::to_string(place / steps % 3) + ", position " +
                        std::to_string(place % steps) + " is " + short_number(value) +
                        ", a whole number from 0 to 2147483647 is expected");
    }
    tokens[size_t(place)] = int32_t(value);
  });
  sequences.count = array.shape[0];
  sequences.steps = steps;
  sequences.tokens = std::move(tokens);
}

/// `raw_text` through the tokenizer, as count, steps and tokens of `sequences`.
void read_tokenized(const SplitFields& fields, const LoadOptions& options, Sequences& sequences) {
  const std::vector<std::string> texts = read_raw_text(fields);
  if (texts.empty()) throw input_error(fields.place() + "raw_text is empty");
  sequences.count = int64_t(texts.size());
  sequences.steps = options.token_steps;
  sequences.tokens = tokenize(*options.tokenizer, texts, options.token_steps);
}

[[noreturn]] void refuse(const SplitFields& fields, const LoadOptions& options) {
  const std::string why = options.no_tokens.empty() ? "" : ": " + options.no_tokens;
  if (fields.find("text_bert") != nullptr) {
    throw input_error(fields.place() +
                      "has only text_bert (token ids); float 'text' [N, T, d] is needed" + why);
  }
  const bool raw = fields.find("raw_text") != nullptr;
  if (options.token_ids && raw) {
    throw input_error(fields.place() +
                      "has only raw_text; a vocabulary, 'text_bert' or float 'text' is needed");
  }
  if (!why.empty() && raw) {
    throw input_error(fields.place() + "has only raw_text; float 'text' [N, T, d] is needed" + why);
  }
  throw input_error(fields.place() + "has no array 'text'");
}

/// Float features without lengths.
Sequences read_float_text(const SplitFields& fields, const LoadOptions& options) {
  if (fields.find("text") != nullptr) return read_features(fields, "text", "text");
  if (kind_of_text_bert(fields) != TextBert::kFeatures) refuse(fields, options);
  return read_features(fields, "text_bert", "text");
}

/// Features and tokens side by side.
Sequences read_everything(const SplitFields& fields, const LoadOptions& options) {
  Sequences tokens;
  const TextBert kind = kind_with_tokens(fields);
  if (options.tokenizer != nullptr) {
    read_tokenized(fields, options, tokens);
  } else if (kind == TextBert::kTokens) {
    read_tokens(fields, tokens);
  }
  const bool features = fields.find("text") != nullptr || kind == TextBert::kFeatures;
  if (!features && tokens.tokens.empty()) refuse(fields, options);
  Sequences sequences;
  if (features) {
    sequences = read_float_text(fields, options);
    if (!tokens.tokens.empty() && tokens.count != sequences.count) {
      throw input_error(fields.place() + (options.tokenizer ? "raw_text" : "text_bert") + " has " +
                        std::to_string(tokens.count) + " samples, text has " +
                        std::to_string(sequences.count));
    }
    sequences.tokens = std::move(tokens.tokens);
  } else {
    sequences = std::move(tokens);
  }
  return sequences;
}

}  // namespace

bool offers_text(const SplitFields& fields, const LoadOptions& options) {
  if (fields.find("text") != nullptr) return true;
  const TextBert kind = kind_of_text_bert(fields);
  if (!options.token_ids && !options.keep_text) return kind == TextBert::kFeatures;
  // Without a vocabulary raw text is asked for all the same, to say so.
  if (options.keep_text) return options.tokenizer != nullptr || kind != TextBert::kAbsent;
  return kind != TextBert::kAbsent || fields.find("raw_text") != nullptr;
}

Sequences read_text(const SplitFields& fields, const LoadOptions& options) {
  Sequences sequences;
  if (options.keep_text) {
    sequences = read_everything(fields, options);
    sequences.name = "text";
    sequences.lengths = read_lengths(fields, sequences);
    return sequences;
  }
  const TextBert kind = options.token_ids ? kind_with_tokens(fields) : TextBert::kAbsent;
  const bool raw = options.token_ids && kind == TextBert::kAbsent && options.tokenizer != nullptr &&
                   fields.find("raw_text") != nullptr;
  if (kind == TextBert::kTokens) {
    read_tokens(fields, sequences);
  } else if (raw) {
    read_tokenized(fields, options, sequences);
  } else {
    sequences = kind == TextBert::kFeatures ? read_features(fields, "text_bert", "text")
                                            : read_float_text(fields, options);
    sequences.lengths = read_lengths(fields, sequences);
    return sequences;
  }
  sequences.name = "text";
  sequences.lengths = token_lengths(sequences.tokens, sequences.steps);
  return sequences;
}

std::vector<std::string> read_raw_text(const SplitFields& fields) {
  const Field* field = fields.find("raw_text");
  if (field == nullptr) throw input_error(fields.place() + "has no raw_text");
  return field_texts(*field, fields.place() + "raw_text", fields.file_bytes);
}

}  // namespace decalign
