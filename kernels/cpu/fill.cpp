#include "kernels/fill.h"

#include <algorithm>

namespace decalign::inline DECALIGN_REAL {

void fill(const Cpu&, real value, Out x) { std::fill(x.begin(), x.end(), value); }

}  // namespace decalign::inline DECALIGN_REAL
