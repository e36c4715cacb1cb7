#include "tests/sim/context_switch.h"

#include <cstdint>

namespace sim {

#ifdef __x86_64__

// Saves the registers that a call preserves and the stack pointer, and restores another set.
extern "C" void sim_switch_stacks(void** save, void* load);
asm(R"(
.text
.globl sim_switch_stacks
.type sim_switch_stacks,@function
sim_switch_stacks:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp,(%rdi)
  movq %rsi,%rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size sim_switch_stacks,.-sim_switch_stacks
)");

void prepare(Context& context, char* low, size_t bytes, void (*entry)()) {
  const uintptr_t top = reinterpret_cast<uintptr_t>(low + bytes) & ~uintptr_t(15);
  void** sp = reinterpret_cast<void**>(top - 8);
  *sp = nullptr;  // the return address of entry: the end of the call chain
  *--sp = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; ++i) *--sp = nullptr;
  context.stack_pointer = sp;
}

void switch_context(Context& from, Context& to) {
  sim_switch_stacks(&from.stack_pointer, to.stack_pointer);
}

#else

void prepare(Context& context, char* low, size_t bytes, void (*entry)()) {
  getcontext(&context.registers);
  context.registers.uc_stack.ss_sp = low;
  context.registers.uc_stack.ss_size = bytes;
  context.registers.uc_link = nullptr;
  makecontext(&context.registers, entry, 0);
}

void switch_context(Context& from, Context& to) { swapcontext(&from.registers, &to.registers); }

#endif

}  // namespace sim
