// Order of modalities and other small things of a data set.
#include "data/dataset.h"

#include <algorithm>
#include <tuple>

namespace decalign {
namespace {

int rank_of(const std::string& name) {
  if (name == "text") return 0;
  if (name == "audio") return 1;
  if (name == "vision") return 2;
  return 3;
}

}  // namespace

bool modality_before(const std::string& a, const std::string& b) {
  const int rank_a = rank_of(a);
  const int rank_b = rank_of(b);
  return std::tie(rank_a, a) < std::tie(rank_b, b);
}

void sort_modalities(std::vector<Sequences>& modalities) {
  std::sort(modalities.begin(), modalities.end(),
            [](const Sequences& a, const Sequences& b) { return modality_before(a.name, b.name); });
}

}  // namespace decalign
