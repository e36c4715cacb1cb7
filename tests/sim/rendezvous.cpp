// Where threads wait for each other: steps of a warp and the block's barrier.
#include <cstring>

#include "tests/sim/checker.h"
#include "tests/sim/cost_model.h"
#include "tests/sim/machine.h"
#include "tests/sim/symbols.h"

namespace sim {
namespace {

void complete(Warp& warp, uint32_t mask) {
  Lanes lanes{};
  lanes.mask = mask;
  const Thread* any = nullptr;
  for (int i = 0; i < 32; ++i) {
    if (!(mask >> i & 1)) continue;
    lanes.payload[i] = warp.lane[i]->payload;
    any = warp.lane[i];
  }
  const bool everyone = mask == warp.present && warp.exited == 0;
  if (everyone) cost_warp_step(warp);
  if (any->combine) any->combine(lanes);
  if (any->orders_memory && !warp.clocks.meet(mask, everyone))
    fail("more steps of a warp than the checker can count");
  warp.waiting &= ~mask;
  machine.spins = 0;
}

// Completes the step that `leader` waits in if all whom it waits for are there; the others but
// `self` become ready.
bool try_complete(Warp& warp, const Thread* leader, const Thread* self) {
  const uint32_t needed = leader->mask & warp.present & ~warp.exited;
  if ((warp.waiting & needed) != needed) return false;
  for (int i = 0; i < 32; ++i) {
    if (!(needed >> i & 1)) continue;
    const Thread* t = warp.lane[i];
    if (t->mask != leader->mask ||
        (t->waits_in != leader->waits_in && std::strcmp(t->waits_in, leader->waits_in) != 0))
      return false;
  }
  complete(warp, needed);
  for (int i = 0; i < 32; ++i)
    if (needed >> i & 1 && warp.lane[i] != self) make_ready(warp.lane[i]);
  return true;
}

std::string exited_report(const Block& block, Site site) {
  return std::to_string(block.threads - block.live) + " of " + std::to_string(block.threads) +
         " threads have exited, the others wait at the barrier at " + site_text(site);
}

void arrive(Site site) {
  Thread* t = machine.current;
  Barrier& barrier = machine.block.barrier;
  t->site = site;
  t->state = Thread::State::at_barrier;
  t->waits_in = "__syncthreads";
  if (barrier.arrived++ == 0) {
    barrier.site = site;
    barrier.mixed = false;
    barrier.count = 0;
  } else if (barrier.site.line != site.line || std::strcmp(barrier.site.file, site.file) != 0) {
    barrier.mixed = true;
  }
}

void release_if_complete(Site last) {
  Block& block = machine.block;
  Barrier& barrier = block.barrier;
  if (barrier.arrived != block.live) return;
  if (block.live != block.threads) fail(exited_report(block, barrier.site));
  if (barrier.mixed)
    fail("threads of the block wait at different barriers: " + site_text(barrier.site) + " and " +
         site_text(last));
  cost_barrier();
  for (Thread* t : block.thread) make_ready(t);
  barrier.arrived = 0;
  ++block.barriers;
  machine.spins = 0;
  check_interval_start(block);
  shuffle_ready();
}

}  // namespace

void warp_step(const char* kind, uint32_t mask, void* payload, Combine combine, bool orders_memory,
               Site site) {
  const Unchecked guard;
  Thread* t = machine.current;
  Warp& warp = *t->warp;
  const uint32_t bit = 1u << t->lane;
  if (!(mask & bit))
    fail(std::string(kind) + " at " + site_text(site) + ": the mask leaves out the calling lane");
  t->waits_in = kind;
  t->site = site;
  t->mask = mask;
  t->payload = payload;
  t->combine = combine;
  t->orders_memory = orders_memory;
  warp.waiting |= bit;
  if (try_complete(warp, t, t))
    make_ready(t);
  else
    t->state = Thread::State::in_warp_step;
  switch_away();
}

void leave_warp(Thread* thread) {
  Warp& warp = *thread->warp;
  warp.exited |= 1u << thread->lane;
  for (int i = 0; i < 32; ++i)
    if (warp.waiting >> i & 1) try_complete(warp, warp.lane[i], nullptr);
}

void leave_barrier() {
  const Block& block = machine.block;
  if (block.barrier.arrived > 0 && block.barrier.arrived == block.live)
    fail(exited_report(block, block.barrier.site));
}

void block_barrier(Site site) {
  const Unchecked guard;
  arrive(site);
  release_if_complete(site);
  switch_away();
}

int block_vote(int predicate, Vote vote, Site site) {
  const Unchecked guard;
  arrive(site);
  Block& block = machine.block;
  block.barrier.count += predicate;
  if (block.barrier.arrived == block.live) {
    const int count = block.barrier.count;
    for (Thread* t : block.thread)
      t->vote = vote == Vote::count ? count : vote == Vote::all ? count == block.live : count > 0;
  }
  Thread* t = machine.current;
  release_if_complete(site);
  switch_away();
  return t->vote;
}

}  // namespace sim
