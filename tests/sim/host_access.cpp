#include "tests/sim/host_access.h"

#include <signal.h>
#include <sys/mman.h>

#include <atomic>
#include <mutex>

#include "tests/sim/memory.h"

namespace sim {
namespace {

std::recursive_mutex& mutex() {
  static auto* m = new std::recursive_mutex;  // of use until the last object of static life is gone
  return *m;
}
int depth = 0;
size_t exposed = 0;  // bytes from device_begin()
std::atomic<const char*> touched{nullptr};
struct sigaction other_handler;  // Catch's, as a rule

void expose() {
  exposed = device_bytes_used();
  mprotect(device_begin(), exposed, PROT_READ | PROT_WRITE);
}

// Lets the access pass; the next call of the runtime reports it.
void on_fault(int signal, siginfo_t* info, void* context) {
  const char* const address = static_cast<const char*>(info->si_addr);
  const size_t offset = size_t(address - device_begin());
  if (exposed == 0 && offset < device_bytes_used()) {
    touched = address;
    expose();
    return;
  }
  sigaction(SIGSEGV, &other_handler, nullptr);
  if (other_handler.sa_flags & SA_SIGINFO)
    other_handler.sa_sigaction(signal, info, context);
  else if (other_handler.sa_handler != SIG_DFL && other_handler.sa_handler != SIG_IGN)
    other_handler.sa_handler(signal);
  // Else the access happens again and ends the program.
}

// Catch sets its handler for every test case.
void set_handler() {
  struct sigaction now = {};
  sigaction(SIGSEGV, nullptr, &now);
  if ((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == on_fault) return;
  other_handler = now;
  struct sigaction ours = {};
  ours.sa_sigaction = on_fault;
  ours.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigaction(SIGSEGV, &ours, nullptr);
}

}  // namespace

RuntimeLock::RuntimeLock() {
  mutex().lock();
  ++depth;
}

RuntimeLock::~RuntimeLock() {
  if (--depth == 0 && exposed > 0) {
    mprotect(device_begin(), exposed, PROT_NONE);
    exposed = 0;
    set_handler();
  }
  mutex().unlock();
}

void expose_device_memory() {
  if (exposed < device_bytes_used()) expose();
}

std::string host_fault() {
  const char* const address = touched.exchange(nullptr);
  if (!address) return "";
  return "the host touched " + describe_address(address) + " outside of any call";
}

}  // namespace sim
