// Features of a pretrained encoder that is not trained: computed once for a whole data set.
#pragma once

#include "autograd/device.h"
#include "data/dataset.h"
#include "model/config.h"
#include "model/pretrained.h"

namespace decalign::inline DECALIGN_REAL {

enum class TextFeatures {
  steps,   ///< [N, T, hidden], every step
  packed,  ///< [N, T, hidden], attended tokens only, moved to the front, then zeros; lengths say
           ///< how many
  pooled   ///< [N, 1, hidden], the mean over attended tokens; the tokens are dropped
};

/// What the network reads of a frozen encoder's text: all steps, or with `mask_source` lengths the
/// attended ones.
TextFeatures frozen_features(const Config&);

/// Gives the text of every split that has tokens the last hidden states of the encoder, computed
/// without dropout; the tokens stay, as what says which steps are padding.
void encode_text(Dataset&, const Pretrained&, TextFeatures, const Device&);

}  // namespace decalign::inline DECALIGN_REAL
