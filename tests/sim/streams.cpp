#include "tests/sim/streams.h"

#include <algorithm>
#include <chrono>

#include "tests/sim/control.h"

namespace sim {
namespace {

// The order of the streams, drawn anew for a new seed.
Random& order() {
  static uint64_t seeded = 0;
  static Random random;
  if (seeded != seeds()) random.start(seed());
  seeded = seeds();
  return random;
}
Clock& host_clock() {
  static auto* clock = new Clock;  // never destroyed: device memory of static life is released late
  return *clock;
}
std::vector<CUstream_st*>& all_streams() {
  static auto* all = new std::vector<CUstream_st*>;
  return *all;
}
CUstream_st& null_stream() {
  static CUstream_st* stream = new_stream(true, true);
  return *stream;
}
cudaError_t broken = cudaSuccess;  // by a fault: every later call returns it

// Whether there was a fault, one of the host included.
bool broken_now() {
  const std::string fault = host_fault();
  if (!fault.empty()) broken = set_error(cudaErrorLaunchFailure, "sim: " + fault);
  return broken != cudaSuccess;
}

uint64_t at(const Clock& clock, int stream) {
  return size_t(stream) < clock.size() ? clock[size_t(stream)] : 0;
}

void join(Clock& clock, const Clock& other) {
  if (clock.size() < other.size()) clock.resize(other.size());
  for (size_t i = 0; i < other.size(); ++i) clock[i] = std::max(clock[i], other[i]);
}

bool runnable(const CUstream_st* stream) {
  if (stream->queue.empty()) return false;
  const StreamEntry& first = stream->queue.front();
  return first.kind != StreamEntry::Kind::wait || first.event->done >= first.sequence;
}

void run_first(CUstream_st* stream) {
  expose_device_memory();
  StreamEntry entry = std::move(stream->queue.front());
  stream->queue.pop_front();
  if (entry.kind == StreamEntry::Kind::work && broken == cudaSuccess) try {
      check_operation_start({entry.work.what, entry.work.function, stream->number, entry.position,
                             std::move(entry.before)});
      const Work::Kind kind = entry.work.kind;
      if (execution() || (kind != Work::Kind::kernel && kind != Work::Kind::blas)) entry.work.run();
    } catch (const Error& error) {
      broken = set_error(cudaErrorLaunchFailure, error.what());
    }
  if (entry.kind == StreamEntry::Kind::record) {
    entry.event->done = entry.sequence;
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    entry.event->milliseconds = std::chrono::duration<double, std::milli>(now).count();
  }
}

// Runs entries until `done`. Half of the times nothing else runs than what `wanted` needs.
template <class Done>
cudaError_t run_until(Done done, CUstream_st* wanted = nullptr) {
  const bool lazy = order().coin();
  while (!done()) {
    if (lazy && wanted && runnable(wanted)) {
      run_first(wanted);
      continue;
    }
    std::vector<CUstream_st*> ready;
    for (CUstream_st* s : all_streams())
      if (runnable(s)) ready.push_back(s);
    if (ready.empty()) return set_error(cudaErrorUnknown, "streams wait for each other for ever");
    run_first(ready[order().below(ready.size())]);
  }
  return broken_now() ? set_error(broken) : cudaSuccess;
}

// Whoever asks whether something is done sees it make progress, now and then.
void run_a_little() {
  size_t steps = order().below(4);
  (void)run_until([&] {
    const auto& all = all_streams();
    return steps-- == 0 || std::none_of(all.begin(), all.end(), runnable);
  });
}

// If nothing is left that the host has not waited for, the checker may forget the past.
void forget_past() {
  for (const CUstream_st* s : all_streams())
    if (!s->queue.empty() || at(host_clock(), s->number) < s->submitted) return;
  check_all_ordered();
}

// Whether two streams keep order although nothing asks them to: the null stream with blocking ones.
bool in_step(const CUstream_st* a, const CUstream_st* b) {
  const CUstream_st* null = &null_stream();
  return (a == null && b->blocking) || (b == null && a->blocking);
}

cudaError_t append(CUstream_st* stream, StreamEntry entry) {
  if (broken_now()) return set_error(broken);
  join(stream->clock, host_clock());
  for (const CUstream_st* other : all_streams())
    if (other != stream && in_step(stream, other)) join(stream->clock, other->clock);
  if (entry.kind == StreamEntry::Kind::wait) join(stream->clock, entry.event->clock);
  if (entry.kind == StreamEntry::Kind::record) entry.event->clock = stream->clock;
  if (entry.kind == StreamEntry::Kind::work) {
    entry.before = stream->clock;
    entry.position = ++stream->submitted;
    if (stream->clock.size() <= size_t(stream->number))
      stream->clock.resize(size_t(stream->number) + 1);
    stream->clock[size_t(stream->number)] = entry.position;
  }
  stream->queue.push_back(std::move(entry));
  if (stream != &null_stream()) return cudaSuccess;
  // Runs at once, after what blocking streams hold.
  return run_until([] {
    return std::none_of(all_streams().begin(), all_streams().end(),
                        [](const CUstream_st* s) { return s->blocking && !s->queue.empty(); });
  });
}

}  // namespace

Counters& count() {
  static Counters all;
  return all;
}
const Counters& counters() { return count(); }

const std::vector<CUstream_st*>& streams() { return all_streams(); }

CUstream_st* new_stream(bool blocking, bool internal) {
  static int numbers = 0;
  auto* stream = new CUstream_st;
  stream->number = numbers++;
  stream->blocking = blocking;
  stream->internal = internal;
  all_streams().push_back(stream);
  return stream;
}

CUstream_st* find_stream(cudaStream_t handle) {
  if (!handle || handle == cudaStreamLegacy) return &null_stream();
  const auto& all = all_streams();
  if (std::find(all.begin(), all.end(), handle) != all.end() && !handle->internal) return handle;
  set_error(cudaErrorInvalidResourceHandle, "no such stream, or it was destroyed");
  return nullptr;
}

cudaError_t submit(cudaStream_t handle, Work work) {
  CUstream_st* stream = find_stream(handle);
  if (!stream) return cudaErrorInvalidResourceHandle;
  if (stream->capture) return capture_work(stream, std::move(work));
  if (stream == &null_stream())
    for (const CUstream_st* s : all_streams())
      if (s->capture && s->blocking)
        return spoil(*s->capture, cudaErrorStreamCaptureImplicit,
                     "the null stream, while a stream that waits for it is captured");
  return submit_work(stream, std::move(work));
}

cudaError_t submit_work(CUstream_st* stream, Work work) {
  StreamEntry entry;
  entry.kind = StreamEntry::Kind::work;
  entry.work = std::move(work);
  return append(stream, std::move(entry));
}

cudaError_t submit_record(CUstream_st* stream, const std::shared_ptr<EventState>& event) {
  StreamEntry entry;
  entry.kind = StreamEntry::Kind::record;
  entry.event = event;
  entry.sequence = ++event->recorded;
  return append(stream, std::move(entry));
}

cudaError_t submit_wait(CUstream_st* stream, const std::shared_ptr<EventState>& event) {
  if (event->recorded == 0) return cudaSuccess;  // as CUDA has it: nothing to wait for
  StreamEntry entry;
  entry.kind = StreamEntry::Kind::wait;
  entry.event = event;
  entry.sequence = event->recorded;
  return append(stream, std::move(entry));
}

cudaError_t wait_for_stream(CUstream_st* stream) {
  const cudaError_t status = run_until([=] { return stream->queue.empty(); }, stream);
  join(host_clock(), stream->clock);
  if (stream == &null_stream())
    for (const CUstream_st* s : all_streams())
      if (s->blocking) join(host_clock(), s->clock);
  forget_past();
  return status;
}

cudaError_t wait_for_device() {
  const cudaError_t status = run_until([] {
    return std::all_of(all_streams().begin(), all_streams().end(),
                       [](const CUstream_st* s) { return s->queue.empty(); });
  });
  for (const CUstream_st* s : all_streams()) join(host_clock(), s->clock);
  forget_past();
  return status;
}

void forget_error() {
  const RuntimeLock lock;
  (void)host_fault();
  broken = cudaSuccess;
  for (CUstream_st* s : all_streams()) {
    s->capture = nullptr;
    for (const StreamEntry& entry : s->queue)
      if (entry.kind == StreamEntry::Kind::record) entry.event->done = entry.sequence;
    s->queue.clear();
    join(host_clock(), s->clock);
  }
  check_all_ordered();
  (void)cudaGetLastError();
}

}  // namespace sim

using namespace sim;

extern "C" {

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  const RuntimeLock lock;
  *stream = new_stream(!(flags & cudaStreamNonBlocking), false);
  return cudaSuccess;
}

cudaError_t cudaStreamCreate(cudaStream_t* stream) { return cudaStreamCreateWithFlags(stream, 0); }

cudaError_t cudaStreamDestroy(cudaStream_t handle) {
  const RuntimeLock lock;
  CUstream_st* stream = find_stream(handle);
  if (!stream || !handle) return set_error(cudaErrorInvalidResourceHandle, "no such stream");
  if (stream->capture)
    return spoil(*stream->capture, cudaErrorStreamCaptureUnsupported, "destroyed");
  const cudaError_t status = run_until([=] { return stream->queue.empty(); }, stream);
  auto& all = all_streams();
  all.erase(std::find(all.begin(), all.end(), stream));
  delete stream;
  return status;
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  const RuntimeLock lock;
  CUstream_st* stream = find_stream(handle);
  if (!stream) return cudaErrorInvalidResourceHandle;
  if (stream->capture)
    return spoil(*stream->capture, cudaErrorStreamCaptureUnsupported, "cudaStreamSynchronize");
  ++count().synchronisations;
  return wait_for_stream(stream);
}

cudaError_t cudaDeviceSynchronize() {
  const RuntimeLock lock;
  if (cudaError_t status = forbid_in_capture("cudaDeviceSynchronize")) return status;
  ++count().synchronisations;
  return wait_for_device();
}

cudaError_t cudaStreamQuery(cudaStream_t handle) {
  const RuntimeLock lock;
  CUstream_st* stream = find_stream(handle);
  if (!stream) return cudaErrorInvalidResourceHandle;
  run_a_little();
  if (!stream->queue.empty()) return cudaErrorNotReady;
  join(host_clock(), stream->clock);
  return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned) {
  const RuntimeLock lock;
  CUstream_st* stream = find_stream(handle);
  if (!stream) return cudaErrorInvalidResourceHandle;
  if (stream->capture || captured(event)) return capture_wait(stream, event);
  return submit_wait(stream, event->state);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new CUevent_st;
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, 0); }
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;  // streams keep its state for as long as they wait for it
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t handle) {
  const RuntimeLock lock;
  CUstream_st* stream = find_stream(handle);
  if (!stream) return cudaErrorInvalidResourceHandle;
  if (stream->capture) return capture_record(stream, event);
  event->capture.reset();
  return submit_record(stream, event->state);
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  const RuntimeLock lock;
  if (captured(event)) return set_error(cudaErrorCapturedEvent, "cudaEventSynchronize");
  ++count().synchronisations;
  const auto state = event->state;
  const uint64_t sequence = state->recorded;
  const cudaError_t status = run_until([=] { return state->done >= sequence; });
  join(host_clock(), state->clock);
  forget_past();
  return status;
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  const RuntimeLock lock;
  if (captured(event)) return set_error(cudaErrorCapturedEvent, "cudaEventQuery");
  run_a_little();
  if (event->state->done < event->state->recorded) return cudaErrorNotReady;
  join(host_clock(), event->state->clock);
  return cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t from, cudaEvent_t to) {
  const RuntimeLock lock;
  for (const cudaEvent_t event : {from, to})
    if (event->state->done < event->state->recorded) return cudaErrorNotReady;
  *milliseconds = float(to->state->milliseconds - from->state->milliseconds);
  return cudaSuccess;
}
}
