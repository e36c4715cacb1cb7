#pragma once
// what the scheduler, the checker and the runtime share
#include <cstddef>
namespace sim {
struct Alloc {
  char* p;
  size_t n;
  bool host;
  unsigned char* init;
  void* shadow;
};
Alloc* find_alloc(const void* p);
void mark_init(const void* p, size_t n);
}  // namespace sim
