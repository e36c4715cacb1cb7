// The table of all config keys: one line each, read by the parser, the writer and the documentation.
#pragma once

#include <limits>

#include "model/config.h"

namespace decalign {

/// Allowed values: lo <= x <= hi, without the end where it is open.
struct Range {
  double lo = -std::numeric_limits<double>::infinity(), hi = std::numeric_limits<double>::infinity();
  bool open_lo = false, open_hi = false;
};
inline constexpr Range kAny{}, kPositive{0, Range{}.hi, true, false}, kNonNegative{0}, kRate{0, 1, false, true},
    kCount{1, 1 << 30}, kCountOrZero{0, 1 << 30};

using Choices = std::vector<std::string>;

/// Calls v(key, field, constraint, paper symbol, meaning) for every key. The fields of a map take a suffix.
template <class C, class V>
void visit_keys(C& c, V&& v) {
  v.section("Variant and task");
  v("variant", c.variant, Choices{"release", "paper"}, "",
    "sets together the keys marked *; an explicit key wins");
  v("dataset_name", c.dataset_name, Choices{}, "", "chooses metrics and file names");
  v("train_mode", c.train_mode, Choices{"regression", "classification"}, "", "task");
  v("num_classes", c.num_classes, kCount, "", "classes; counts only in classification");

  v.section("Network");
  v("dst_feature_dim_nheads", c.dst_feature_dim_nheads, kCount, "d, heads", "model width and attention heads");
  v("nlevels", c.nlevels, kCountOrZero, "L", "transformer layers per modality");
  v("conv1d_kernel_size_", c.conv1d_kernel_size, kCount, "k_m", "taps of a modality's projection; default 1");
  v("pde_dim", c.pde_dim, kCountOrZero, "", "width of the distribution encoder's output; 0: d");
  v("use_cross_modal_attention", c.use_cross_modal_attention, kAny, "",
    "keys and values from the other modalities; false: self-attention");
  v("attn_mask", c.attn_mask, kAny, "", "causal mask in self-attention");
  v("active_modalities", c.active_modalities, Choices{}, "",
    "modalities that take part (names or t, l, a, v); default: all");
  v("use_sequence_mask", c.use_sequence_mask, kAny, "", "leave padded steps out of pooling (mask_source zeros)");
  v("mask_source", c.mask_source, Choices{"zeros", "lengths"}, "",
    "* padding: all-zero audio and vision steps, or the data set's lengths");
  v("temporal_length", c.temporal_length, Range{-1, 1 << 30}, "T_s",
    "* steps after the projection: 0 unchanged, N, or \"min\" of all modalities");

  v.section("Dropout");
  v("attn_dropout", c.attn_dropout, kRate, "", "on attention weights; text without suffix, then _a, _v, _<name>");
  v("relu_dropout", c.relu_dropout, kRate, "", "inside the feed-forward layer");
  v("embed_dropout", c.embed_dropout, kRate, "", "on the transformers' inputs");
  v("res_dropout", c.res_dropout, kRate, "", "before each residual sum");
  v("output_dropout", c.output_dropout, kRate, "", "before the output layer and in the distribution encoder");
  v("text_dropout", c.text_dropout, kRate, "", "on the text input");

  v.section("Heterogeneous alignment");
  v("num_prototypes", c.num_prototypes, kCount, "K", "Gaussian components per modality");
  v("gmm_covariance", c.gmm_covariance, Choices{"diagonal", "full"}, "Sigma", "* covariance of the components");
  v("gmm_init", c.gmm_init, Choices{"linspace", "kmeans++"}, "", "start of EM");
  v("gmm_em_iters", c.gmm_em_iters, kCountOrZero, "", "EM steps, each differentiated");
  v("gmm_var_floor", c.gmm_var_floor, kPositive, "", "smallest variance");
  v("gmm_cov_ridge", c.gmm_cov_ridge, kNonNegative, "",
    "full covariances: share of the mean variance added to the diagonal");
  v("lambda_ot", c.lambda_ot, kNonNegative, "lambda", "entropic regularisation of the transport");
  v("ot_num_iters", c.ot_num_iters, kCountOrZero, "", "most Sinkhorn sweeps");
  v("ot_tolerance", c.ot_tolerance, kNonNegative, "", "log domain: stop at this L1 marginal error");
  v("sinkhorn", c.sinkhorn, Choices{"release", "log"}, "", "* clamped kernel or stable log domain");
  v("ot_entropy", c.ot_entropy, Choices{"log_minus_one", "log"}, "", "* entropy: sum T (log T - 1) or sum T log T");
  v("ot_gradient", c.ot_gradient, Choices{"unrolled", "envelope"}, "", "* gradient of the transport loss");
  v("hetero_cost_reduction", c.hetero_cost_reduction, Choices{"mean", "sum"}, "", "* pair costs over the d coordinates");
  v("proto_reduction", c.proto_reduction, Choices{"mean", "sum"}, "", "* prototype calibration over modality pairs");
  v("local_proto_mahalanobis", c.local_proto_mahalanobis, kAny, "",
    "prototype calibration divides by the component's variance");

  v.section("Decoupling and homogeneous alignment");
  v("dec_loss", c.dec_loss, Choices{"cos2_mean", "cos_sum"}, "L_dec", "* mean of cos^2 or sum of cos");
  v("moment_loss", c.moment_loss, Choices{"mean", "sum"}, "L_sem", "* mean of squares per pair or squared norms");
  v("mmd_bandwidth", c.mmd_bandwidth, kPositive, "sigma^2", "k = exp(-|x - y|^2 / (2 bandwidth))");

  v.section("Loss");
  v("task_loss", c.task_loss, Choices{}, "L_task", "mse, smooth_l1 = huber; anything else is mae");
  v("smooth_l1_beta", c.smooth_l1_beta, kNonNegative, "", "where smooth L1 turns from square to linear");
  v("binary_task_weight", c.binary_task_weight, kAny, "", "weight of the cross-entropy on the label's sign");
  v("dec_loss_weight", c.dec_loss_weight, kAny, "", "weight of the decoupling loss");
  v("alpha", c.alpha, kAny, "alpha", "weight of the heterogeneous alignment");
  v("beta", c.beta, kAny, "beta", "weight of the homogeneous alignment");
  v("ct_weight", c.ct_weight, kAny, "", "weight of the supervised contrastive loss");
  v("ct_temperature", c.ct_temperature, kPositive, "tau", "its temperature");
  v("class_weight", c.class_weight, Choices{"none", "balanced"}, "", "balanced: N / (count * classes)");
  v("class_weights", c.class_weights, kNonNegative, "", "explicit weights, one per class; beats class_weight");

  v.section("Optimisation");
  v("batch_size", c.batch_size, kCount, "B", "samples per step");
  v("num_epochs", c.num_epochs, kCount, "", "most epochs");
  v("learning_rate", c.learning_rate, kNonNegative, "", "Adam's step size");
  v("weight_decay", c.weight_decay, kNonNegative, "", "coupled L2 decay");
  v("clip", c.clip, kPositive, "", "largest global gradient norm");
  v("factor", c.factor, Range{0, 1, false, true}, "", "learning rate factor on a plateau");
  v("patience", c.patience, kCountOrZero, "", "epochs without improvement; used where a specific key is absent");
  v("scheduler_patience", c.scheduler_patience, kCountOrZero, "", "before the learning rate falls");
  v("early_stop_patience", c.early_stop_patience, kCountOrZero, "", "before the run stops");
  v("selection_metric", c.selection_metric, Choices{}, "",
    "chooses the best epoch on the validation split; default: the task loss, in classification weighted F1");
  v("scheduler_metric", c.scheduler_metric, Choices{}, "", "watched by the scheduler; default: selection_metric");
  v("selection_mode", c.selection_mode, Choices{"", "min", "max"}, "", "default: max for acc, f1, corr");
  v("scheduler_mode", c.scheduler_mode, Choices{"", "min", "max"}, "", "likewise");

  v.section("Data");
  v("use_bert", c.use_bert, kAny, "", "fine-tune a text encoder; until there is one, float text is used");
  v("need_feature_standardized", c.need_feature_standardized, kAny, "", "clip and standardise with training statistics");
  v("feature_standardize_modalities", c.feature_standardize_modalities, Choices{}, "", "which modalities");
  v("feature_clip_percentiles", c.feature_clip_percentiles, Range{0, 100}, "", "clipping before that");
  v("need_normalized", c.need_normalized, kAny, "", "average audio and vision over time");
  v("featurePath", c.featurePath, Choices{}, "", "the data file; default: the data set's name below --data_dir");
  v("feature_T", c.feature_T, Choices{}, "", "another file for text");
  v("feature_A", c.feature_A, Choices{}, "", "another file for audio");
  v("feature_V", c.feature_V, Choices{}, "", "another file for vision");
  v("iemocap_protocol", c.iemocap_protocol, Choices{"session_valid", "paper_count"}, "",
    "paper_count: train on train + valid, validate on test");
}

/// Keys of the release's namespace that change nothing here; accepted with any value.
inline const std::vector<std::string>& keys_without_effect() {
  static const std::vector<std::string> keys = {
      "model_name",  "transformers",  "need_data_aligned", "when",          "alpha1",          "alpha2",
      "language",    "train_samples", "seq_lens",          "feature_dims",  "class_counts",    "is_distill",
      "mode",        "device",        "model_save_path",   "cur_seed",      "use_finetune",    "pretrained",
      "is_tune",     "gpu_ids",       "num_workers",       "res_save_dir",  "log_dir",         "model_save_dir",
      "seeds",       "seed",          "bert_learning_rate", "_feature_standardization_stats", "config_file"};
  return keys;
}

}  // namespace decalign
