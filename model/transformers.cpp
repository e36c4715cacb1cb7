// The cross-modal transformers: all modalities advance together, layer by layer.
#include <cmath>

#include "autograd/attention.h"
#include "autograd/dropout.h"
#include "autograd/layer_norm.h"
#include "model/layout.h"
#include "model/step.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

// Keys and values of every layer: [context rows, L d], layer l in columns l d ...
struct ProjectedContext {
  Tensor keys, values;
};

}  // namespace

// unique [R, d] -> [R, d]. Post-norm layers: x = LN(x + drop(MHA(x, ctx))), x = LN(x + drop(W2
// drop(relu(W1 x)))).
Tensor Network::transformers(Step& step, const Tensor& unique) {
  Tape& tape = step.tape;
  const Rows& rows = step.rows;
  const int64_t d = config_.width(), total = rows.total(), layers = config_.nlevels;
  const double scale = std::sqrt(double(d));
  const bool cross = config_.use_cross_modal_attention && rows.modalities > 1;

  const auto name = [&](size_t m, int64_t layer, const char* rest) {
    return "trans_" + modality_suffix(sizes_[active_[m]].name) + ".layers." +
           std::to_string(layer) + "." + rest;
  };
  // Rows weight_row .. of a layer's packed in_proj.
  const auto in_proj = [&](int64_t layer, int64_t weight_row) {
    return [&, layer, weight_row](size_t m) {
      MatmulPart part;
      part.weight = parameters_.on(tape, name(m, layer, "self_attn.in_proj_weight"));
      part.bias = parameters_.on(tape, name(m, layer, "self_attn.in_proj_bias"));
      part.weight_row = weight_row;
      return part;
    };
  };
  const auto linear = [&](int64_t layer, const std::string& stem) {
    return [&, layer, stem](size_t m) {
      MatmulPart part;
      part.weight = parameters_.on(tape, name(m, layer, (stem + ".weight").c_str()));
      part.bias = parameters_.on(tape, name(m, layer, (stem + ".bias").c_str()));
      return part;
    };
  };
  const auto norm = [&](int64_t layer, const std::string& stem) {
    std::vector<LayerNormPart> parts;
    for (int64_t m = 0; m < rows.modalities; ++m)
      parts.push_back({rows.modality_begin(m), rows.modality_rows(m),
                       parameters_.on(tape, name(size_t(m), layer, (stem + ".weight").c_str())),
                       parameters_.on(tape, name(size_t(m), layer, (stem + ".bias").c_str()))});
    return parts;
  };

  std::vector<RowCopy> whole{{0, 0, total}};
  Tensor x = embed(tape, unique, whole, total, scale, step.dropout(config_.embed_dropout));

  AttentionShape shape;
  shape.queries = rows;
  shape.width = d;
  shape.heads = config_.heads();
  std::vector<KeyRange> own;
  Context context;
  ProjectedContext projected;
  if (cross) {
    context = cross_context(rows);
    const int64_t context_rows = context.begin.back();
    const auto project = [&](int64_t weight_row) {
      const Tensor source = embed(tape, unique, context.copies, context_rows, scale,
                                  step.dropout(config_.embed_dropout));
      std::vector<MatmulPart> parts;
      for (size_t m = 0; m < size_t(rows.modalities); ++m) {
        for (int64_t layer = 0; layer < layers; ++layer) {
          MatmulPart part = in_proj(layer, weight_row)(m);
          part.x_row = part.y_row = context.begin[m];
          part.rows = context.begin[m + 1] - context.begin[m];
          part.y_col = layer * d;
          part.n = d;
          parts.push_back(part);
        }
      }
      return matmul(tape, source, parts, context_rows, layers * d);
    };
    if (layers > 0) projected = {project(d), project(2 * d)};
    shape.key_rows = context_rows;
    shape.key_stride = layers * d;
    shape.ranges = context.ranges;
    shape.ranges_per_sequence = rows.modalities - 1;
  } else {
    for (int64_t s = 0; s < rows.sequences(); ++s) own.push_back({rows.begin(s), rows.length(s)});
    shape.key_rows = total;
    shape.key_stride = d;
    shape.ranges = own;
    shape.causal = config_.attn_mask;
  }

  for (int64_t layer = 0; layer < layers; ++layer) {
    std::vector<Dropout> attention_dropout;
    for (size_t m : active_)
      attention_dropout.push_back(step.dropout(config_.attention_dropout(sizes_[m].name)));
    shape.dropout = attention_dropout;
    const auto project = [&](int64_t weight_row) {
      return matmul(tape, x, step.per_modality(d, in_proj(layer, weight_row)), total, d);
    };
    const Tensor q = project(0);
    const Tensor attended =
        cross ? attention(tape, shape, q, projected.keys, layer * d, projected.values, layer * d)
              : attention(tape, shape, q, project(d), 0, project(2 * d), 0);
    const Tensor mixed =
        matmul(tape, attended, step.per_modality(d, linear(layer, "self_attn.out_proj")), total, d);
    x = layer_norm(tape, x, mixed, norm(layer, "attn_layer_norm"),
                   step.dropout(config_.res_dropout));

    const MatmulEpilogue relu{true, step.dropout(config_.relu_dropout)};
    const Tensor hidden =
        matmul(tape, x, step.per_modality(4 * d, linear(layer, "fc1")), total, 4 * d, relu);
    const Tensor forward =
        matmul(tape, hidden, step.per_modality(d, linear(layer, "fc2")), total, d);
    x = layer_norm(tape, x, forward, norm(layer, "final_layer_norm"),
                   step.dropout(config_.res_dropout));
  }
  return x;
}

}  // namespace decalign::inline DECALIGN_REAL
