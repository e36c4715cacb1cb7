// Atomic operations on integers. Sums of floats by atomics depend on the order of the threads,
// which no kernel here may do.
#pragma once

#include "tests/sim/sim.h"

namespace sim {

/// Checks an atomic access and holds the other checks until end_atomic(). Gives way to other
/// threads now and then, so that a loop that waits for them ends.
void begin_atomic(void* address, size_t bytes);
void end_atomic();

template <class T, class F>
T update_atomically(T* address, F f) {
  static_assert(std::is_integral_v<T>);
  begin_atomic(address, sizeof(T));
  const T old = *address;
  *address = f(old);
  end_atomic();
  return old;
}

template <class T>
using Same = std::type_identity_t<T>;

}  // namespace sim

template <class T>
T atomicAdd(T* address, sim::Same<T> value) {
  return sim::update_atomically(address, [=](T old) { return T(old + value); });
}
template <class T>
T atomicMax(T* address, sim::Same<T> value) {
  return sim::update_atomically(address, [=](T old) { return old < value ? value : old; });
}
template <class T>
T atomicMin(T* address, sim::Same<T> value) {
  return sim::update_atomically(address, [=](T old) { return value < old ? value : old; });
}
template <class T>
T atomicExch(T* address, sim::Same<T> value) {
  return sim::update_atomically(address, [=](T) { return value; });
}
template <class T>
T atomicCAS(T* address, sim::Same<T> expected, sim::Same<T> value) {
  return sim::update_atomically(address, [=](T old) { return old == expected ? value : old; });
}
inline unsigned atomicInc(unsigned* address, unsigned last) {
  return sim::update_atomically(address, [=](unsigned old) { return old >= last ? 0 : old + 1; });
}
