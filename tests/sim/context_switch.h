// Switching between stacks: a thread of the simulated device is one.
#pragma once

#include <cstddef>

#ifndef __x86_64__
#include <ucontext.h>
#endif

namespace sim {

struct Context {
#ifdef __x86_64__
  void* stack_pointer = nullptr;
#else
  ucontext_t registers;
#endif
};

/// Makes `context` start in `entry`, which must not return, on the stack [low, low + bytes).
void prepare(Context& context, char* low, size_t bytes, void (*entry)());
/// Goes on in `to`; returns when something switches back to `from`.
void switch_context(Context& from, Context& to);

}  // namespace sim
