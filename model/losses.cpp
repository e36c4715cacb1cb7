// The loss terms: heterogeneous and homogeneous alignment, task, contrastive, and their sum.
#include "autograd/bures.h"
#include "autograd/contrastive.h"
#include "autograd/distribution_encoder.h"
#include "autograd/gaussian_cost.h"
#include "autograd/gmm.h"
#include "autograd/mmd.h"
#include "autograd/moments.h"
#include "autograd/prototype.h"
#include "autograd/sinkhorn.h"
#include "autograd/task_loss.h"
#include "autograd/weighted_sum.h"
#include "model/step.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

Reduction reduction(const std::string& name) {
  return name == "sum" ? Reduction::sum : Reduction::mean;
}

Tensor sum_of(Tape& tape, std::initializer_list<Tensor> terms) {
  const std::vector<Tensor> list(terms);
  return weighted_sum(tape, list, std::vector<double>(list.size(), 1.0));
}

TaskLoss task_kind(const Config& c) {
  if (c.classification()) return TaskLoss::cross_entropy;
  if (c.task_loss == "mse") return TaskLoss::mse;
  return c.task_loss == "smooth_l1" || c.task_loss == "huber" ? TaskLoss::smooth_l1 : TaskLoss::mae;
}

}  // namespace

// z_m = Linear(drop(relu(Linear(c_m)))) -> [M, B, pde_dim], with what rounding took
Distributions Network::encode_distributions(Step& step, const Tensor& pooled_common) {
  std::vector<DistributionEncoderPart> parts;
  for (size_t m : active_) {
    const std::string stem = "pde_" + modality_suffix(sizes_[m].name) + ".net.";
    const auto get = [&](const char* name) { return parameters_.on(step.tape, stem + name); };
    parts.push_back({get("0.weight"), get("0.bias"), get("3.weight"), get("3.bias")});
  }
  return distribution_encoder(step.tape, pooled_common, parts,
                              step.dropout(config_.output_dropout));
}

// L_hete = L_OT + L_proto on the pooled unique features, L_homo = L_sem + L_MMD on the encoded
// common ones.
void Network::align(Step& step, const Tensor& pooled_unique, const Tensor& pooled_common,
                    Result& result) {
  Tape& tape = step.tape;
  const Config& c = config_;
  GmmOptions gmm_options;
  gmm_options.components = c.num_prototypes;
  gmm_options.iterations = c.gmm_em_iters;
  gmm_options.variance_floor = c.gmm_var_floor;
  gmm_options.init = c.gmm_init == "kmeans++" ? GmmInit::kmeanspp : GmmInit::linspace;
  gmm_options.random = step.random;
  gmm_options.ridge = c.gmm_cov_ridge;
  const bool full = c.gmm_covariance == "full";
  if (full) gmm_options.covariance = GmmCovariance::full;
  const Mixture mixture = gmm(tape, pooled_unique, gmm_options);

  SinkhornOptions ot;
  ot.log_domain = c.sinkhorn == "log";
  ot.entropy = c.ot_entropy == "log" ? OtEntropy::log : OtEntropy::log_minus_one;
  ot.gradient = c.ot_gradient == "envelope" ? OtGradient::envelope : OtGradient::unrolled;
  ot.epsilon = c.lambda_ot;
  ot.max_sweeps = c.ot_num_iters;
  ot.tolerance = c.ot_tolerance;
  const Reduction over_width = reduction(c.hetero_cost_reduction);
  const Tensor cost =
      full ? bures(tape, mixture.means, mixture.covariances, {.reduction = over_width})
           : gaussian_cost(tape, mixture.means, mixture.covariances, over_width);
  const Transport transport = sinkhorn(tape, cost, mixture.marginals, ot);
  result.transport = transport.report;

  PrototypeOptions prototype;
  prototype.feature = over_width;
  prototype.pairs = reduction(c.proto_reduction);
  prototype.mahalanobis = c.local_proto_mahalanobis;
  prototype.variance_floor = c.gmm_var_floor;
  result.hete = sum_of(
      tape, {transport.value, prototype_calibration(tape, pooled_unique, mixture, prototype)});

  const auto [z, rest] = encode_distributions(step, pooled_common);
  result.homo = sum_of(tape, {moment_matching(tape, z, reduction(c.moment_loss), rest),
                              mmd(tape, z, c.mmd_bandwidth, rest)});
}

void Network::losses(Step& step, const Batch& batch, Result& result) {
  Tape& tape = step.tape;
  const In labels = on_device(tape, batch.device_labels, In(batch.labels));
  expect(std::ssize(labels) == batch.count, "Network::forward: one label per sample");
  TaskLossOptions task;
  task.kind = task_kind(config_);
  task.smooth_l1_beta = config_.smooth_l1_beta;
  task.binary_task_weight = config_.classification() ? 0 : config_.binary_task_weight;
  result.task = task_loss(tape, result.logits, labels, device_class_weights_.span(), task);

  std::vector<int32_t> host_classes;
  if (batch.device_classes.empty())
    for (real y : batch.labels)
      host_classes.push_back(config_.classification() ? int32_t(y) : sentiment_class(double(y)));
  const auto classes =
      on_device(tape, batch.device_classes, std::span<const int32_t>(host_classes));
  result.ct = contrastive(tape, result.final_rep, classes, config_.ct_temperature);
  result.total = weighted_sum(
      tape, std::vector<Tensor>{result.task, result.dec, result.hete, result.homo, result.ct},
      std::vector<double>{1, config_.dec_loss_weight, config_.alpha, config_.beta,
                          config_.ct_weight});
}

}  // namespace decalign::inline DECALIGN_REAL
