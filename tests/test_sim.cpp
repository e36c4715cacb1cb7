// The simulated device finds planted faults and nothing else; what it counts.
#include <catch2/catch.hpp>

#include "tests/sim/control.h"
#include "tests/sim/counters.h"
#include "tests/sim/faults.h"

using namespace decalign;
using namespace decalign::test;

namespace {

constexpr uint64_t kSeeds = 20;

std::string report_of(const Fault& fault, bool planted) {
  std::string report;
  try {
    fault.run(planted);
    CUDA_CHECK(cudaDeviceSynchronize());
  } catch (const cuda_error& error) {
    report = error.what();
  }
  sim::forget_error();
  return report;
}

void require_found(const std::vector<Fault>& faults) {
  for (const Fault& fault : faults)
    for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
      sim::set_seed(seed);
      INFO(fault.name << ", seed " << seed);
      REQUIRE_THAT(report_of(fault, true), Catch::Contains(fault.report));
      REQUIRE(report_of(fault, false) == "");
    }
}

}  // namespace

TEST_CASE("sim: finds faults of memory", "[sim]") { require_found(memory_faults()); }
TEST_CASE("sim: finds faults of order", "[sim]") { require_found(order_faults()); }
TEST_CASE("sim: finds misuse of the runtime", "[sim]") { require_found(runtime_faults()); }
