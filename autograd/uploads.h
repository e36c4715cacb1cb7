// Batches of host values on their way to a device, two at a time, beside what it computes.
#pragma once

#include <memory>

#include "autograd/device.h"

namespace decalign::inline DECALIGN_REAL {

/// For every batch: host(), which the caller fills, then send(). The copy runs on a stream of its
/// own while the device still computes on the batch before.
class Uploads {
 public:
  /// Of batches of at most `values` floats. The device must not be the host.
  Uploads(const Device& device, size_t values);
  Uploads(Uploads&&) noexcept;
  ~Uploads();

  /// Pinned memory for the next batch. Waits until the last but one has left it.
  std::span<float> host();
  /// What the device reads: what was sent last, for all that is queued before the next send().
  std::span<const float> there() const;
  /// Sends the first `count` values of host().
  void send(size_t count);

 private:
  struct Slots;
  std::unique_ptr<Slots> slots_;
};

}  // namespace decalign::inline DECALIGN_REAL
