#include <algorithm>

#include "kernels/check/weighted_sum.h"
#include "kernels/cuda/launch.h"
#include "kernels/weighted_sum.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

constexpr int kThreads = 32;

template <class T>
struct Term {
  T* value;
  double weight;
};
template <class T>
using Terms = ParameterList<Term<T>, kWeightedSumTerms>;

// One thread: the terms' loads are in flight together.
__global__ void __launch_bounds__(1)
    forward_kernel(const __grid_constant__ Terms<const real> terms, real* value) {
  double sum = 0;
#pragma unroll
  for (int i = 0; i < kWeightedSumTerms; ++i)
    if (i < terms.count) sum += terms.item[i].weight * double(terms.item[i].value[0]);
  value[0] = real(sum);
}

// A thread per gradient.
__global__ void __launch_bounds__(kThreads)
    backward_kernel(const __grid_constant__ Terms<real> terms, const real* dvalue) {
  const int i = threadIdx.x;
  if (i >= terms.count) return;
  // scattered: single numbers of several arrays
  terms.item[i].value[0] += real(terms.item[i].weight * double(dvalue[0]));
}

}  // namespace

void weighted_sum_forward(const Cuda& be, std::span<const In> terms,
                          std::span<const double> weights, Out value) {
  check_weighted_sum_forward(terms, weights, value);
  Terms<const real> list;
  for (size_t i = 0; i < terms.size(); ++i)
    if (weights[i] != 0) list.item[list.count++] = {terms[i].data(), weights[i]};
  launch(be, forward_kernel, 1, 1, 0, list, value.data());
}

void weighted_sum_backward(const Cuda& be, std::span<const double> weights, In dvalue,
                           std::span<const InOut> dterms) {
  check_weighted_sum_backward(weights, dvalue, dterms);
  Terms<real> list;
  for (size_t i = 0; i < dterms.size(); ++i) {
    if (weights[i] == 0 || dterms[i].empty()) continue;
    // A gradient that stands twice in the list belongs to one thread.
    Term<real>* const end = list.item + list.count;
    Term<real>* const term = std::find_if(
        list.item, end, [&](const Term<real>& t) { return t.value == dterms[i].data(); });
    if (term == end)
      list.item[list.count++] = {dterms[i].data(), weights[i]};
    else
      term->weight += weights[i];
  }
  if (list.count > 0) launch(be, backward_kernel, 1, kThreads, 0, list, dvalue.data());
}

}  // namespace decalign::inline DECALIGN_REAL
