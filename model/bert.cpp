#include "model/bert.h"

#include <memory>

#include "autograd/attention.h"
#include "autograd/dropout.h"
#include "autograd/embedding.h"
#include "autograd/gelu.h"
#include "autograd/layer_norm.h"
#include "autograd/matmul.h"
#include "autograd/recomputed.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

/// One forward pass: parameters as inputs of the step, dense layers and norms on all rows.
struct Encoder {
  Parameters& parameters;
  const BertConfig& config;
  const TokenRows& tokens;
  bool trained;

  Tensor on(Tape& tape, const std::string& name) const {
    Tensor t = parameters.on(tape, kEncoderPrefix + name);
    if (!trained) t.node = -1;
    return t;
  }
  MatmulPart part(Tape& tape, const std::string& stem, int64_t column = 0) const {
    MatmulPart p;
    p.rows = tokens.rows.total();
    p.y_col = column;
    p.weight = on(tape, stem + ".weight");
    p.bias = on(tape, stem + ".bias");
    return p;
  }
  Tensor dense(Tape& tape, const Tensor& x, const std::string& stem) const {
    const MatmulPart p = part(tape, stem);
    return matmul(tape, x, std::span(&p, 1), x.shape[0], p.weight.shape[0]);
  }
  Tensor norm(Tape& tape, const Tensor& x, const Tensor& z, const std::string& stem,
              const Dropout& dropout) const {
    const LayerNormPart p{0, x.shape[0], on(tape, stem + ".weight"), on(tape, stem + ".bias")};
    return layer_norm(tape, x, z, std::span(&p, 1), dropout, config.layer_norm_eps);
  }

  Tensor embeddings(Tape& tape, const Dropout& dropped) const {
    const std::vector<EmbeddingPart> tables{
        {tokens.ids, on(tape, "embeddings.word_embeddings.weight"), int32_t(config.pad_token_id)},
        {tokens.segments, on(tape, "embeddings.token_type_embeddings.weight")},
        {tokens.positions, on(tape, "embeddings.position_embeddings.weight")}};
    const Tensor sum = embedding(tape, tables);
    return dropout(tape, norm(tape, sum, {}, "embeddings.LayerNorm", {}), dropped);
  }

  struct LayerDropout {
    Dropout weights, attended, dense;
  };
  Tensor layer(Tape& tape, const Tensor& x, int64_t index, const LayerDropout& dropout) const {
    const std::string stem = "encoder.layer." + std::to_string(index) + ".";
    const std::string self = stem + "attention.self.", output = stem + "attention.output.";
    const int64_t width = config.hidden_size;
    const std::vector<MatmulPart> projections{part(tape, self + "query", 0),
                                              part(tape, self + "key", width),
                                              part(tape, self + "value", 2 * width)};
    const Tensor qkv = matmul(tape, x, projections, x.shape[0], 3 * width);
    AttentionShape shape;
    shape.queries = tokens.rows;
    shape.width = width;
    shape.heads = config.num_attention_heads;
    shape.ranges = tokens.keys;
    shape.ranges_per_sequence = tokens.ranges_per_sequence;
    shape.dropout = std::span(&dropout.weights, 1);
    const Tensor attended = attention(tape, shape, qkv, qkv, width, qkv, 2 * width);
    const Tensor mixed = norm(tape, x, dense(tape, attended, output + "dense"),
                              output + "LayerNorm", dropout.attended);
    const Tensor hidden = gelu(tape, dense(tape, mixed, stem + "intermediate.dense"));
    return norm(tape, mixed, dense(tape, hidden, stem + "output.dense"), stem + "output.LayerNorm",
                dropout.dense);
  }
};

void check_ids(std::span<const int32_t> ids, int64_t entries, const char* what) {
  for (const int32_t id : ids)
    if (id < 0 || id >= entries)
      throw input_error(std::string("text encoder: ") + what + " " + std::to_string(id) +
                        " is outside [0, " + std::to_string(entries) + ")");
}

}  // namespace

Tensor bert(Tape& tape, Parameters& parameters, const BertConfig& config, const TokenRows& tokens,
            const BertOptions& options) {
  check_ids(tokens.ids, config.vocab_size, "token id");
  check_ids(tokens.segments, config.type_vocab_size, "segment id");
  check_ids(tokens.positions, config.max_position_embeddings, "position");
  const auto next = [&](double rate) {
    return options.dropout ? options.dropout(rate) : Dropout{};
  };
  const Encoder encoder{parameters, config, tokens, options.trained};
  Tensor x = encoder.embeddings(tape, next(config.hidden_dropout_prob));
  // What outlives this call for the way back.
  const auto later = options.recompute && tape.recording()
                         ? std::make_shared<const std::pair<BertConfig, TokenRows>>(config, tokens)
                         : nullptr;
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
    const Encoder::LayerDropout dropout{next(config.attention_probs_dropout_prob),
                                        next(config.hidden_dropout_prob),
                                        next(config.hidden_dropout_prob)};
    if (!later || !options.trained) {
      x = encoder.layer(tape, x, i, dropout);
      continue;
    }
    x = recomputed(tape, x, [&parameters, later, i, dropout](Tape& inner, const Tensor& in) {
      return Encoder{parameters, later->first, later->second, true}.layer(inner, in, i, dropout);
    });
  }
  return x;
}

}  // namespace decalign::inline DECALIGN_REAL
