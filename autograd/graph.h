// A step recorded and replayed: a CUDA graph with the index lists that it reads.
#pragma once

#include <functional>
#include <memory>

#include "autograd/device.h"

namespace decalign::inline DECALIGN_REAL {

class Graph {
 public:
  /// Records what `f` queues on the device, which must not be the host; nothing runs yet. `f` must
  /// neither allocate nor wait, nor copy from or to the host, and all memory that it uses must
  /// outlive the graph. `list_bytes`: room for its index lists, see Lists::staged. Throws
  /// cuda_error, and std::length_error where the lists need more.
  Graph(const Device& device, size_t list_bytes, const std::function<void()>& f);
  Graph(Graph&&) noexcept;
  ~Graph();

  /// Records anew what may differ in sizes and in addresses: from now on that is replayed. The host
  /// does the work of queueing it once more; the device gets it in one launch. Its lists travel
  /// through pinned memory. Throws as the constructor does; there is nothing to replay then.
  void record(const std::function<void()>& f);

  /// Queues all of it, in the stream's order.
  void replay() const;
  /// Kernels, copies and fills in it.
  size_t nodes() const;

 private:
  struct Recorded;
  std::unique_ptr<Recorded> recorded_;
};

/// Rows of reals on their way from the device to the host, without a wait: each is copied in the
/// stream's order and looked at when it has arrived.
class Readback {
 public:
  /// Room for `slots` rows of `width` values on their way.
  Readback(const Device& device, size_t slots, size_t width);
  Readback(Readback&&) noexcept;
  ~Readback();

  /// Queues the copy of a row.
  void send(In row);
  /// The oldest row that was sent and not yet received: empty if there is none or, unless `wait`,
  /// if it is still on its way. Valid until `slots` further rows are sent.
  In receive(bool wait);

 private:
  struct Rows;
  std::unique_ptr<Rows> rows_;
};

}  // namespace decalign::inline DECALIGN_REAL
