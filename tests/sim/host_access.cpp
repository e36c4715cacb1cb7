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
bool exposed = true;
std::atomic<const char*> touched{nullptr};
struct sigaction other_handler;  // Catch's, as a rule

void protect(int access) {
  mprotect(device_begin(), kDeviceBytes, access);
  exposed = access != PROT_NONE;
}

// Lets the access pass; the next call of the runtime reports it.
void on_fault(int signal, siginfo_t* info, void* context) {
  const char* const address = static_cast<const char*>(info->si_addr);
  if (size_t(address - device_begin()) < kDeviceBytes && !exposed) {
    touched = address;
    protect(PROT_READ | PROT_WRITE);
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
  if (--depth == 0 && exposed && region.begin) {
    set_handler();
    protect(PROT_NONE);
  }
  mutex().unlock();
}

void expose_device_memory() {
  if (!exposed) protect(PROT_READ | PROT_WRITE);
}

std::string host_fault() {
  const char* const address = touched.exchange(nullptr);
  if (!address) return "";
  return "the host touched " + describe_address(address) + " outside of any call";
}

}  // namespace sim
