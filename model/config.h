// Every setting of a run. The released JSON configs load unchanged: their keys are the keys.
#pragma once

#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

namespace decalign {

/// Field names are the JSON keys; docs/configuration.md lists meaning, default, range and paper
/// symbol of each (`decalign info --keys` prints that page from the same table,
/// model/config_keys.h). Defaults are the release's.
struct Config {
  std::string variant = "release";  // release | paper, which two published definitions differ
  std::string dataset_name = "generated";
  std::string train_mode = "regression";

  // Network
  std::vector<int64_t> dst_feature_dim_nheads = {40, 10};  // d, heads
  int64_t nlevels = 5;
  std::map<std::string, int64_t> conv1d_kernel_size;  // by suffix: l, a, v or a modality's name
  int64_t pde_dim = 0;                                // 0: d
  bool use_cross_modal_attention = true;
  bool attn_mask = true;
  std::vector<std::string> active_modalities;  // empty: all
  bool use_sequence_mask = false;
  std::string mask_source = "zeros";
  int64_t temporal_length = 0;  // 0: unchanged, -1: "min"
  int64_t num_classes = 1;
  std::string precision = "fp32";

  // Dropout
  std::map<std::string, double> attn_dropout;  // by suffix; text is the key without suffix, here l
  double relu_dropout = 0.1, embed_dropout = 0.25, res_dropout = 0.1, output_dropout = 0,
         text_dropout = 0;

  // Heterogeneous alignment
  int64_t num_prototypes = 8;
  std::string gmm_covariance = "diagonal", gmm_init = "linspace";
  int64_t gmm_em_iters = 5;
  double gmm_var_floor = 1e-4, gmm_cov_ridge = 1e-3;
  double lambda_ot = 0.1, ot_tolerance = 1e-6;
  int64_t ot_num_iters = 50;
  std::string sinkhorn = "release", ot_entropy = "log_minus_one", ot_gradient = "unrolled";
  std::string hetero_cost_reduction = "mean", proto_reduction = "mean";
  bool local_proto_mahalanobis = false;

  // Homogeneous alignment, decoupling
  std::string moment_loss = "mean", dec_loss = "cos2_mean";
  double mmd_bandwidth = 1;

  // Loss
  std::string task_loss = "mae";
  double smooth_l1_beta = 1, binary_task_weight = 0;
  double dec_loss_weight = 1, alpha = 0.1, beta = 0.1, ct_weight = 0, ct_temperature = 0.1;
  std::string class_weight = "none";
  std::vector<double> class_weights;  // beats class_weight

  // Optimisation
  int64_t batch_size = 24, accumulation_steps = 1, num_epochs = 100;
  double learning_rate = 1e-3, weight_decay = 0, clip = 0.8, factor = 0.1, average_decay = 0;
  int64_t patience = 20;
  std::optional<int64_t> scheduler_patience, early_stop_patience;
  std::string selection_metric, scheduler_metric;  // empty: see MetricChoice in model/selection.h
  std::string selection_mode, scheduler_mode;      // min | max | empty: inferred

  // Text encoder
  bool use_bert = false, use_finetune = true;
  std::string pretrained;  // a folder, or a name to look up: see model/pretrained.h
  std::optional<double> bert_learning_rate, bert_weight_decay;  // absent: the network's
  double bert_warmup = 0, bert_layer_decay = 1;
  bool checkpoint_activations = false;

  // Data
  bool need_feature_standardized = false, need_normalized = false;
  std::vector<std::string> feature_standardize_modalities = {"audio", "vision"};
  std::vector<double> feature_clip_percentiles = {0.5, 99.5};
  std::string feature_T, feature_A, feature_V, featurePath;
  std::string iemocap_protocol = "session_valid";

  int64_t width() const { return dst_feature_dim_nheads[0]; }
  int64_t heads() const { return dst_feature_dim_nheads[1]; }
  int64_t pde_width() const { return pde_dim > 0 ? pde_dim : width(); }
  bool classification() const { return train_mode == "classification"; }
  int64_t outputs() const { return classification() ? num_classes : 1; }
  int64_t kernel_size(const std::string& modality) const;
  double attention_dropout(const std::string& modality) const;
};

/// l, a, v for text, audio, vision; other modalities keep their name. Names parameters and keys.
std::string modality_suffix(const std::string& modality);

/// Reads a config. `where` (a file's name, say) starts every error line. null is the same as
/// absent. Throws input_error for an unknown key (naming the nearest known one), a wrong type, a
/// value out of range.
Config parse_config(const nlohmann::json& json, const std::string& where);

/// Reads a JSON file. Throws input_error naming the file.
nlohmann::json read_json(const std::string& path);

/// `key=value` of a command line into `json`; the value is JSON, or a Python literal (True, None,
/// [a, b]), or a string.
void apply_override(nlohmann::json& json, const std::string& assignment);

/// Every key with its value, such that parse_config(to_json(c)) == c.
nlohmann::ordered_json to_json(const Config& config);

/// docs/configuration.md.
std::string config_reference();

}  // namespace decalign
