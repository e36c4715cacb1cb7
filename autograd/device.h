// Device: a cheap handle to a backend, chosen at run time.
#pragma once

#include <utility>
#include <variant>

#include "kernels/backend.h"

namespace decalign::inline DECALIGN_REAL {

class Device {
 public:
  using Backend = std::variant<Cpu>;
  Device(Backend backend = Cpu{}) : backend_(backend) {}

  /// Calls f(backend). The only place where run time chooses a backend.
  template <class F>
  decltype(auto) run(F&& f) const {
    return std::visit(std::forward<F>(f), backend_);
  }

 private:
  Backend backend_;
};

}  // namespace decalign::inline DECALIGN_REAL
