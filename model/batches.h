// Batches of a split: which samples, in which order, gathered into arrays of the network's
// precision.
#pragma once

#include <cstdint>
#include <vector>

#include "data/dataset.h"
#include "model/batch.h"
#include "model/network.h"

namespace decalign::inline DECALIGN_REAL {

/// 0 .. n - 1 shuffled by (seed, epoch) alone: Fisher-Yates with Philox.
std::vector<int64_t> shuffled(int64_t n, uint64_t seed, uint64_t epoch);

/// The given samples of a split, into memory of `batch` that is reused from call to call.
void gather(const Split& split, std::span<const int64_t> samples, Batch& batch);

/// Of these samples only what the host reads: token ids and lengths. Each modality of `batch` is
/// there already.
void gather_tokens(const Split& split, std::span<const int64_t> samples, Batch& batch);

/// The sizes that a network for this split has.
std::vector<ModalitySize> modality_sizes(const Split& split);

}  // namespace decalign::inline DECALIGN_REAL
