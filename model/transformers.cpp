// The cross-modal transformers: all modalities advance together, layer by layer.
#include <cmath>

#include "autograd/attention.h"
#include "autograd/dropout.h"
#include "autograd/feed_forward.h"
#include "autograd/layer_norm.h"
#include "model/layout.h"
#include "model/step.h"

namespace decalign::inline DECALIGN_REAL {
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

  const auto dense = [&](int64_t layer) {
    std::vector<FeedForwardPart> parts;
    for (int64_t m = 0; m < rows.modalities; ++m) {
      const auto on = [&](const char* rest) {
        return parameters_.on(tape, name(size_t(m), layer, rest));
      };
      parts.push_back({rows.modality_begin(m), rows.modality_rows(m), on("fc1.weight"),
                       on("fc1.bias"), on("fc2.weight"), on("fc2.bias")});
    }
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
  Tensor key_source, value_source;  // every transformer's context, with dropout masks of their own
  if (cross) {
    context = cross_context(rows);
    for (Tensor* source : {&key_source, &value_source})
      *source = embed(tape, unique, context.copies, context.begin.back(), scale,
                      step.dropout(config_.embed_dropout));
    shape.ranges = context.ranges;
    shape.ranges_per_sequence = rows.modalities - 1;
  } else {
    for (int64_t s = 0; s < rows.sequences(); ++s) own.push_back({rows.begin(s), rows.length(s)});
    shape.ranges = own;
    shape.causal = config_.attn_mask;
  }

  // Rows weight_row .. of layers first .. last on the context: [rows, (last - first) d].
  const auto project_context = [&](const Tensor& source, int64_t first, int64_t last,
                                   int64_t weight_row) {
    std::vector<MatmulPart> all;
    for (int64_t layer = first; layer < last; ++layer) {
      std::vector<MatmulPart> parts = step.per_modality(d, in_proj(layer, weight_row));
      for (size_t m = 0; m < parts.size(); ++m) {
        parts[m].x_row = parts[m].y_row = context.begin[m];
        parts[m].rows = context.begin[m + 1] - context.begin[m];
        parts[m].y_col = (layer - first) * d;
      }
      all.insert(all.end(), parts.begin(), parts.end());
    }
    return matmul(tape, source, all, source.shape[0], (last - first) * d);
  };
  // On the host layer by layer, so that keys, values and their gradients are used while they are in
  // cache; on a GPU all layers in one launch.
  const bool at_once = cross && !tape.device().on_host();
  Tensor keys, values;
  if (at_once) {
    keys = project_context(key_source, 0, layers, d);
    values = project_context(value_source, 0, layers, 2 * d);
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
    const int64_t column = at_once ? layer * d : 0;
    if (cross && !at_once) {
      keys = project_context(key_source, layer, layer + 1, d);
      values = project_context(value_source, layer, layer + 1, 2 * d);
    }
    const Tensor k = cross ? keys : project(d), v = cross ? values : project(2 * d);
    const Tensor attended = attention(tape, shape, q, k, column, v, column);
    const Tensor mixed =
        matmul(tape, attended, step.per_modality(d, linear(layer, "self_attn.out_proj")), total, d);
    x = layer_norm(tape, x, mixed, norm(layer, "attn_layer_norm"),
                   step.dropout(config_.res_dropout));

    const Tensor forward = feed_forward(tape, x, dense(layer), step.dropout(config_.relu_dropout));
    x = layer_norm(tape, x, forward, norm(layer, "final_layer_norm"),
                   step.dropout(config_.res_dropout));
  }
  return x;
}

}  // namespace decalign::inline DECALIGN_REAL
