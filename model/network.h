// The DecAlign network for any M >= 2 modalities: weights, forward pass, loss terms.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "autograd/distribution_encoder.h"
#include "kernels/dropout_mask.h"
#include "model/batch.h"
#include "model/bert_config.h"
#include "model/config.h"
#include "model/parameters.h"

namespace decalign::inline DECALIGN_REAL {

/// A modality as the data set has it.
struct ModalitySize {
  std::string name;
  int64_t steps = 0;  ///< T
  int64_t width = 0;  ///< d_m
};

/// What one forward pass gives. Loss terms are [1]; without labels task, ct and total are empty
/// tensors.
struct Result {
  Tensor logits;     ///< [B, outputs]
  Tensor final_rep;  ///< [B, 2 M d]: h of every modality, then pooled c of every modality
  Tensor task, dec, hete, homo, ct, total;
  /// Transported mass, L1 marginal error, sweeps; empty without alignment.
  std::span<const real> transport;
};

class Network {
 public:
  /// `sizes` in the network's order: text, audio, vision, then the others by name. Throws
  /// input_error, one line that starts with `where`, if config and data do not fit: M = 1, an
  /// unknown active modality, a kernel longer than the sequence. With `encoder` batches may hold
  /// tokens for text, whose width is the encoder's; it is trained if the config says use_finetune.
  Network(const Config& config, std::vector<ModalitySize> sizes, const std::string& where,
          std::optional<BertConfig> encoder = {});

  /// Runs the network on a batch; with labels, the losses too:
  ///   total = task + dec_loss_weight dec + alpha hete + beta homo + ct_weight ct.
  /// `random`, in the device's memory: null for evaluation, without dropout; otherwise it must
  /// outlive the tape's step.
  /// The batch must outlive the step too. Throws std::invalid_argument for a batch of other sizes.
  Result forward(Tape& tape, const Batch& batch, const RandomState* random);

  /// Class weights [C] of the cross-entropy; empty: none. Set before the first forward with labels.
  void set_class_weights(std::vector<real> weights);

  /// From here on weights and gradients live on `device`, on whose tapes the network then runs: see
  /// Parameters::move_to.
  void move_to(const Device& device);

  Parameters& parameters() { return parameters_; }
  const Config& config() const { return config_; }
  const std::vector<ModalitySize>& sizes() const { return sizes_; }
  const std::optional<BertConfig>& encoder() const { return encoder_; }

 private:
  struct Step;  // the state of one forward pass
  void add_parameters();
  void losses(Step& step, const Batch& batch, Result& result);
  void align(Step& step, const Tensor& pooled_unique, const Tensor& pooled_common, Result& result);
  Distributions encode_distributions(Step& step, const Tensor& pooled_common);
  Tensor project(Step& step, const Batch& batch);
  Tensor encode(Step& step, const BatchModality& text, int64_t batch, bool packed,
                std::vector<int64_t>& lengths);
  Tensor transformers(Step& step, const Tensor& unique);
  bool projected(size_t m) const { return sizes_[m].width != config_.width(); }

  Config config_;
  std::vector<ModalitySize> sizes_;
  std::optional<BertConfig> encoder_;
  std::vector<size_t> active_;  ///< indices into sizes_
  std::vector<real> class_weights_;
  Buffer<real> device_class_weights_;
  Parameters parameters_;
};

}  // namespace decalign::inline DECALIGN_REAL
