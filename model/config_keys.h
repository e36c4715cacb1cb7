// The table of all config keys, read by the parser, the writer and the documentation.
#pragma once

#include <limits>

#include "model/config.h"

namespace decalign {

/// Allowed values: lo <= x <= hi, without the end where it is open.
struct Range {
  static constexpr double kInfinity = std::numeric_limits<double>::infinity();
  double lo = -kInfinity, hi = kInfinity;
  bool open_lo = false, open_hi = false;

  std::string text() const;
};
inline constexpr Range kAny{}, kPositive{0, Range::kInfinity, true, false}, kNonNegative{0},
    kRate{0, 1, false, true}, kCount{1, 1 << 30}, kCountOrZero{0, 1 << 30};

/// Allowed words; none: any text.
struct Choices : std::vector<std::string> {
  using std::vector<std::string>::vector;

  std::string text() const;  ///< "a | b"
};

/// Sets the keys marked * as `config.variant` has them.
void apply_variant(Config& config);

/// Calls v(key, field, constraint, paper symbol, meaning) for every key. A key over a map stands
/// for one key per modality.
template <class C, class V>
void visit_keys(C& c, V&& v) {
  v.section("Variant and task");
  v("variant", c.variant, Choices{"release", "paper"}, "",
    "sets together the keys marked *; an explicit key wins");
  v("dataset_name", c.dataset_name, Choices{}, "",
    "whose metrics are computed; `--dataset` sets it");
  v("train_mode", c.train_mode, Choices{"regression", "classification"}, "", "kind of label");
  v("num_classes", c.num_classes, kCount, "", "classes, at least 2; counts in classification only");

  v.section("Network");
  v("dst_feature_dim_nheads", c.dst_feature_dim_nheads, kCount, "d, heads",
    "model width and attention heads; the heads divide the width");
  v("nlevels", c.nlevels, kCountOrZero, "", "transformer layers per modality");
  v("conv1d_kernel_size_", c.conv1d_kernel_size, kCount, "k_m",
    "taps of the modality's temporal projection (valid: k_m - 1 steps fewer); ignored where its "
    "width is d already");
  v("pde_dim", c.pde_dim, kCountOrZero, "", "width of the distribution encoder's output z; 0: d");
  v("use_cross_modal_attention", c.use_cross_modal_attention, kAny, "",
    "keys and values from the other modalities; false: self-attention");
  v("attn_mask", c.attn_mask, kAny, "", "causal mask; in self-attention only");
  v("active_modalities", c.active_modalities, Choices{}, "",
    "modalities that take part, by name or as t, l, a, v; empty: all. With fewer than all the "
    "alignment losses are 0");
  v("mask_source", c.mask_source, Choices{"zeros", "lengths"}, "",
    "* what padding is. zeros: audio and vision steps that are all zero as the network sees them; "
    "lengths: steps from the data set's lengths on, absent in attention too");
  v("use_sequence_mask", c.use_sequence_mask, kAny, "",
    "mask_source zeros: zero padded steps after the projection and leave them out of pooling");
  v("temporal_length", c.temporal_length, Range{-1, 1 << 30}, "T_s",
    "* steps after the projection: 0 as they are; N by averaging; \"min\" (or -1) those of the "
    "shortest modality");
  v("precision", c.precision, Choices{"fp32", "tf32", "bf16"}, "",
    "on a GPU, products of the projections, dense layers and attention (heads of more than 16 "
    "columns): in fp32, or on tensor cores, which round factors to tf32 or bf16 and add in fp32. "
    "All else, and a CPU, computes as with fp32");

  v.section("Dropout");
  v("attn_dropout", c.attn_dropout, kRate, "",
    "attention weights; text without suffix, then attn_dropout_a, attn_dropout_v, "
    "attn_dropout_<name>");
  v("relu_dropout", c.relu_dropout, kRate, "", "inside the feed-forward layer, after the ReLU");
  v("embed_dropout", c.embed_dropout, kRate, "",
    "the transformers' inputs: query, key context and value context, each with a mask of its own");
  v("res_dropout", c.res_dropout, kRate, "", "before each residual sum");
  v("output_dropout", c.output_dropout, kRate, "",
    "before the output layer and inside the distribution encoder");
  v("text_dropout", c.text_dropout, kRate, "", "the text input, before its projection");

  v.section("Decoupling");
  v("dec_loss", c.dec_loss, Choices{"cos2_mean", "cos_sum"}, "L_dec",
    "* mean over modalities of cos^2(s, c), or sum of cos(s, c)");

  v.section("Heterogeneous alignment");
  v("num_prototypes", c.num_prototypes, kCount, "K", "Gaussian components per modality");
  v("gmm_covariance", c.gmm_covariance, Choices{"diagonal", "full"}, "Sigma",
    "* covariance of the components, whose pair costs are Bures-Wasserstein distances");
  v("gmm_init", c.gmm_init, Choices{"linspace", "kmeans++"}, "",
    "start of EM: rows evenly spaced in the batch, or k-means++ seeding");
  v("gmm_em_iters", c.gmm_em_iters, kCountOrZero, "", "EM steps, each differentiated");
  v("gmm_var_floor", c.gmm_var_floor, kPositive, "",
    "smallest variance; full covariances: added to the diagonals");
  v("gmm_cov_ridge", c.gmm_cov_ridge, kNonNegative, "",
    "full covariances: this share of the batch's mean variance, and gmm_var_floor, are added to "
    "the diagonals in every EM step");
  v("lambda_ot", c.lambda_ot, kNonNegative, "lambda",
    "entropic regularisation of the transport, floored at 1e-6");
  v("ot_num_iters", c.ot_num_iters, kCountOrZero, "", "Sinkhorn sweeps, at most");
  v("ot_tolerance", c.ot_tolerance, kNonNegative, "",
    "sinkhorn log: stop at this L1 marginal error; 0: always all sweeps");
  v("sinkhorn", c.sinkhorn, Choices{"release", "log"}, "",
    "* the release's clamped kernel, which loses mass where cost / lambda_ot is large, or the log "
    "domain, which does not");
  v("ot_entropy", c.ot_entropy, Choices{"log_minus_one", "log"}, "",
    "* entropy: sum T (log T - 1), or sum T log T");
  v("ot_gradient", c.ot_gradient, Choices{"unrolled", "envelope"}, "",
    "* gradient of the transport: through every sweep, or of the converged problem");
  v("hetero_cost_reduction", c.hetero_cost_reduction, Choices{"mean", "sum"}, "",
    "* pair costs and prototype distances over the d coordinates");
  v("proto_reduction", c.proto_reduction, Choices{"mean", "sum"}, "",
    "* prototype calibration over the ordered modality pairs");
  v("local_proto_mahalanobis", c.local_proto_mahalanobis, kAny, "",
    "prototype calibration divides by the component's variances, which must be diagonal");

  v.section("Homogeneous alignment");
  v("moment_loss", c.moment_loss, Choices{"mean", "sum"}, "L_sem",
    "* moment differences: mean squares, averaged over pairs, or squared norms over M (M - 1)");
  v("mmd_bandwidth", c.mmd_bandwidth, kPositive, "", "b in the kernel exp(-\\|x - y\\|^2 / (2 b))");

  v.section("Loss");
  v("task_loss", c.task_loss, Choices{}, "L_task",
    "mse; smooth_l1 or huber; anything else is mae. Classification always takes cross-entropy");
  v("smooth_l1_beta", c.smooth_l1_beta, kNonNegative, "",
    "where smooth L1 turns from square to linear");
  v("binary_task_weight", c.binary_task_weight, kAny, "",
    "regression: weight of the cross-entropy on the label's sign, over the non-zero labels");
  v("dec_loss_weight", c.dec_loss_weight, kAny, "", "weight of the decoupling loss");
  v("alpha", c.alpha, kAny, "alpha", "weight of the heterogeneous alignment");
  v("beta", c.beta, kAny, "beta", "weight of the homogeneous alignment");
  v("ct_weight", c.ct_weight, kAny, "", "weight of the supervised contrastive loss");
  v("ct_temperature", c.ct_temperature, kPositive, "", "its temperature");
  v("class_weight", c.class_weight, Choices{"none", "balanced"}, "",
    "balanced: N / (count * classes) of the training labels");
  v("class_weights", c.class_weights, kNonNegative, "",
    "explicit weights, one per class; beats class_weight");

  v.section("Optimisation");
  v("batch_size", c.batch_size, kCount, "B", "samples per step");
  v("accumulation_steps", c.accumulation_steps, kCount, "",
    "batches whose gradients are averaged for one step");
  v("num_epochs", c.num_epochs, kCount, "", "epochs, at most");
  v("learning_rate", c.learning_rate, kNonNegative, "", "Adam's step size");
  v("weight_decay", c.weight_decay, kNonNegative, "", "coupled L2 decay");
  v("clip", c.clip, kPositive, "", "largest norm of all gradients together");
  v("average_decay", c.average_decay, kRate, "",
    "validation, checkpoint and test take an average of the trained weights, which after step t "
    "moves max(1 - average_decay, 1 / t) of the way to them. 0: off");
  v("factor", c.factor, Range{0, 1, false, true}, "",
    "what the learning rate is multiplied by on a plateau");
  v("patience", c.patience, kCountOrZero, "", "default of the next two");
  v("scheduler_patience", c.scheduler_patience, kCountOrZero, "",
    "epochs without improvement before the learning rate falls");
  v("early_stop_patience", c.early_stop_patience, kCountOrZero, "",
    "epochs after the best one at which the run stops");
  v("selection_metric", c.selection_metric, Choices{}, "",
    "metric of the validation split that chooses the best epoch and stops the run. Absent, or no "
    "metric's name: the mean task loss of its batches; absent in classification: F1_score");
  v("selection_mode", c.selection_mode, Choices{"", "min", "max"}, "",
    "absent: max for names with acc, f1 or corr, else min");
  v("scheduler_metric", c.scheduler_metric, Choices{}, "",
    "watched by the scheduler; absent: selection_metric");
  v("scheduler_mode", c.scheduler_mode, Choices{"", "min", "max"}, "", "as selection_mode");

  v.section("Text encoder");
  v("use_bert", c.use_bert, kAny, "",
    "a pretrained BERT reads the text's token ids (`text_bert`, or `raw_text` with the encoder's "
    "vocabulary); where the encoder or the ids are missing, float `text` is used, with a warning");
  v("pretrained", c.pretrained, Choices{}, "",
    "its folder (config.json, model.safetensors, vocab.txt), or a name looked up below "
    "`--model_dir` and in the Hugging Face cache");
  v("use_finetune", c.use_finetune, kAny, "",
    "train the encoder too; false: its features are computed once, without dropout");
  v("bert_learning_rate", c.bert_learning_rate, kNonNegative, "", "the encoder's step size");
  v("bert_weight_decay", c.bert_weight_decay, kNonNegative, "", "the encoder's decay");
  v("bert_warmup", c.bert_warmup, Range{0, 1}, "",
    "share of all steps over which the encoder's step size rises from 0");
  v("bert_layer_decay", c.bert_layer_decay, Range{0, 1, true, false}, "",
    "step size of an encoder layer as a multiple of the one above; the embeddings are the lowest");
  v("checkpoint_activations", c.checkpoint_activations, kAny, "",
    "keep only each encoder layer's input and compute the rest again on the way back: less memory, "
    "the same bits");

  v.section("Data");
  v("featurePath", c.featurePath, Choices{}, "",
    "the data file; absent: the data set's own below `--data_dir`");
  v("feature_T", c.feature_T, Choices{}, "", "another file to take text from");
  v("feature_A", c.feature_A, Choices{}, "", "another file to take audio from");
  v("feature_V", c.feature_V, Choices{}, "", "another file to take vision from");
  v("need_feature_standardized", c.need_feature_standardized, kAny, "",
    "clip and standardise features with statistics of the training split");
  v("feature_standardize_modalities", c.feature_standardize_modalities, Choices{}, "",
    "which modalities");
  v("feature_clip_percentiles", c.feature_clip_percentiles, Range{0, 100}, "",
    "[low, high] of each column, clipped to before standardising");
  v("need_normalized", c.need_normalized, kAny, "", "average audio and vision over time");
  v("iemocap_protocol", c.iemocap_protocol, Choices{"session_valid", "paper_count"}, "",
    "iemocap. paper_count: train on train + valid, validate on test");
}

/// Keys of the release's configs that change nothing here; accepted with any value.
inline const std::vector<std::string>& keys_without_effect() {
  static const std::vector<std::string> keys = {
      // the release's own bookkeeping
      "model_name", "mode", "device", "gpu_ids", "num_workers", "is_tune", "is_distill", "seed",
      "seeds", "cur_seed", "config_file", "log_dir", "res_save_dir", "model_save_dir",
      "model_save_path",
      // read from the data instead
      "seq_lens", "feature_dims", "train_samples", "class_counts", "need_data_aligned",
      "_feature_standardization_stats",
      // without effect in the release too
      "transformers", "when", "alpha1", "alpha2", "language"};
  return keys;
}

}  // namespace decalign
