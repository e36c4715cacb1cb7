#include "kernels/bures.h"

#include "kernels/check/bures.h"
#include "kernels/cpu/cholesky.h"
#include "kernels/cpu/polar.h"
#include "kernels/cpu/slots.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

using namespace small;

// A pair of prototypes, numbered through.
struct Pair {
  int64_t one, other;
};

Pair pair_at(const BuresShape& s, int64_t at) {
  const int64_t K = s.components, block = s.options.pairing == Pairing::all ? K * K : K;
  int64_t p = at / block, i = 0;
  for (; p >= s.modalities - 1 - i; ++i) p -= s.modalities - 1 - i;
  const int64_t j = i + 1 + p, rest = at % block;
  if (s.options.pairing == Pairing::matched) return {i * K + rest, j * K + rest};
  return {i * K + rest / K, j * K + rest % K};
}

// f(other, at, first) for the pairs of prototype `one`: cost[at]; whether it is the pair's first.
template <class F>
void for_partners(const BuresShape& s, int64_t one, F&& f) {
  const int64_t K = s.components, M = s.modalities, i = one / K, a = one % K;
  const bool all = s.options.pairing == Pairing::all;
  for (int64_t j = 0; j < M; ++j) {
    if (j == i) continue;
    const int64_t low = std::min(i, j), high = std::max(i, j);
    const int64_t p = low * M - low * (low + 1) / 2 + high - low - 1;
    for (int64_t b = all ? 0 : a; b < (all ? K : a + 1); ++b)
      f(j * K + b, all ? (p * K + (i < j ? a : b)) * K + (i < j ? b : a) : p * K + a, i < j);
  }
}

struct Layout {
  int64_t d, r, factor, square;  // elements of [d, r], [r, r]
  int64_t slot;                  // elements of a thread's work space

  explicit Layout(const BuresShape& s)
      : d(s.width),
        r(s.rank),
        factor(matrix_size(d, r)),
        square(matrix_size(r, r)),
        slot(s.options.spread == Spread::covariance
                 ? 3 * square + std::max(polar_work_size(d), cholesky_work_size(d))
                 : 2 * square + factor + polar_work_size(r)) {}
};

Slots slots(const Cpu& be, const BuresShape& s) {
  return {be, Layout(s).slot, 60.0 * double(s.rank * s.rank) * double(s.width * s.pairs())};
}

// Factors of all prototypes, [d, r] each.
void factors(const Cpu& be, const BuresShape& s, In spread, double* to, Scratch scratch) {
  const Layout z(s);
  slots(be, s).run(s.prototypes(), scratch, [&](int64_t i, double* mine) {
    const real* from = spread.data() + i * z.d * z.r;
    double* factor = to + i * z.factor;
    if (s.options.spread == Spread::covariance) {
      cholesky(z.d, from, s.options.ridge, mine, mine + z.factor);
      return transpose(z.d, z.d, mine, factor);
    }
    read(z.d, z.r, from, factor);
  });
}

// displacement = to - from q; what rounds to real of it goes to `kept`, unless that is null. Its
// squared norm.
double displace(const Layout& z, const double* from, const double* q, const double* to,
                double* displacement, real* kept) {
  product(z.d, z.r, z.r, as_is(from, z.r), q, displacement);
  for (int64_t i = 0; i < z.factor; i += kDoubles)
    vector_at(displacement + i) = vector_at(to + i) - vector_at(displacement + i);
  if (kept) write(z.d, z.r, displacement, kept);
  return square_sum(displacement, z.factor);
}

double procrustes(const Layout& z, const double* one, const double* other, real* kept,
                  double* work) {
  double *q = work, *turned = q + z.square, *displacement = turned + z.square,
         *rest = displacement + z.factor;
  product(z.r, z.d, z.r, transposed(one, z.r), other, q);
  orthogonal_factor(z.r, q, rest);
  const double cost = displace(z, one, q, other, displacement, kept ? kept + z.d * z.r : nullptr);
  if (kept) {
    transpose(z.r, z.r, q, turned);
    displace(z, other, turned, one, displacement, kept);
  }
  return cost;
}

double mean_cost(int64_t d, const real* one, const real* other) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t t = 0; t < d; ++t) {
    const double e = double(one[t]) - double(other[t]);
    sum += e * e;
  }
  return sum;
}

// sum (sqrt v - sqrt w)^2, from differences, so that close ones keep their digits
double variance_cost(int64_t d, double ridge, const real* v, const real* w) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t t = 0; t < d; ++t) {
    const double roots = std::sqrt(double(v[t]) + ridge) + std::sqrt(double(w[t]) + ridge);
    const double e = roots > 0 ? (double(v[t]) - double(w[t])) / roots : roots;
    sum += e * e;
  }
  return sum;
}

// dv += g (1 - sqrt(w / v))
void add_variance_gradient(int64_t d, double g, double ridge, const real* v, const real* w,
                           real* dv) {
#pragma omp simd
  for (int64_t t = 0; t < d; ++t) {
    const double root = std::sqrt(double(v[t]) + ridge), other = std::sqrt(double(w[t]) + ridge);
    const double slope = root > 0 ? (double(v[t]) - double(w[t])) / (root * (root + other)) : 0;
    dv[t] = real(double(dv[t]) + g * slope);
  }
}

void add_mean_gradient(const BuresShape& s, int64_t one, In means, In dcost, InOut dmeans) {
  const int64_t d = s.width;
  const double scale = bures::factor(s);
  for_partners(s, one, [&](int64_t other, int64_t at, bool) {
    const double g = 2 * scale * double(dcost[size_t(at)]);
    const real *m = means.data() + one * d, *m2 = means.data() + other * d;
    real* out = dmeans.data() + one * d;
#pragma omp simd
    for (int64_t t = 0; t < d; ++t)
      out[t] = real(double(out[t]) + g * (double(m[t]) - double(m2[t])));
  });
}

// The gradient of one prototype's factor over 2: the sum of its displacements.
void add_displacements(const BuresShape& s, int64_t one, In kept, In dcost, double* sum) {
  const Layout z(s);
  const double scale = bures::factor(s);
  std::fill_n(sum, z.factor, double(0));
  for_partners(s, one, [&](int64_t, int64_t at, bool first) {
    const double g = double(scale * double(dcost[size_t(at)]));
    const real* from = kept.data() + (2 * at + (first ? 0 : 1)) * z.d * z.r;
    for (int64_t row = 0; row < z.d; ++row)
      for (int64_t j = 0; j < z.r; ++j)
        sum[row * stride(z.r) + j] += g * double(from[row * z.r + j]);
  });
}

void add_spread_gradient(const BuresShape& s, int64_t one, In spread, In kept, In dcost, real* out,
                         double* work) {
  const Layout z(s);
  double *sum = work, *turned = sum + z.factor, *upper = turned + z.factor,
         *rest = upper + z.factor;
  add_displacements(s, one, kept, dcost, sum);
  if (s.options.spread == Spread::factor) {
    for (int64_t row = 0; row < z.d; ++row)
      for (int64_t j = 0; j < z.r; ++j)
        out[row * z.r + j] =
            real(double(out[row * z.r + j]) + 2 * double(sum[row * stride(z.r) + j]));
    return;
  }
  cholesky(z.d, spread.data() + one * z.d * z.d, s.options.ridge, upper, rest);
  transpose(z.d, z.d, sum, turned);
  solve_upper(z.d, z.d, upper, turned, rest);
  transpose(z.d, z.d, turned, sum);
  for (int64_t i = 0; i < z.d; ++i)
    for (int64_t j = 0; j < z.d; ++j)
      out[i * z.d + j] =
          real(double(out[i * z.d + j]) +
               0.5 * (double(sum[i * stride(z.r) + j]) + double(turned[i * stride(z.r) + j])));
}

}  // namespace

size_t bures_scratch_bytes(const Cpu& be, const BuresShape& s) {
  check_bures_sizes(s);
  if (s.diagonal()) return 0;
  const Layout z(s);
  return carve_bytes<double>(s.prototypes() * z.factor) + slots(be, s).bytes();
}

void bures_forward(const Cpu& be, const BuresShape& s, In means, In spread, Out cost, Out kept,
                   Scratch scratch) {
  check_bures(s, means, spread, cost, kept, scratch, bures_scratch_bytes(be, s));
  const int64_t d = s.width;
  const double scale = bures::factor(s);
  const auto cost_of = [&](int64_t at, double distance) {
    const Pair pair = pair_at(s, at);
    cost[size_t(at)] =
        real(scale *
             (mean_cost(d, means.data() + pair.one * d, means.data() + pair.other * d) + distance));
  };
  if (s.diagonal()) {
    const int64_t grain = std::max<int64_t>(1, (1 << 14) / (d + 1));
    return parallel_ranges(be, s.pairs(), grain, [&](int64_t first, int64_t last) {
      for (int64_t at = first; at < last; ++at) {
        const Pair pair = pair_at(s, at);
        cost_of(at, variance_cost(d, s.options.ridge, spread.data() + pair.one * d,
                                  spread.data() + pair.other * d));
      }
    });
  }
  const Layout z(s);
  auto* const all = carve<double>(scratch, s.prototypes() * z.factor);
  factors(be, s, spread, all, scratch);
  slots(be, s).run(s.pairs(), scratch, [&](int64_t at, double* mine) {
    const Pair pair = pair_at(s, at);
    real* keep = kept.empty() ? nullptr : kept.data() + 2 * at * d * z.r;
    cost_of(at, procrustes(z, all + pair.one * z.factor, all + pair.other * z.factor, keep, mine));
  });
}

void bures_backward(const Cpu& be, const BuresShape& s, In means, In spread, In kept, In dcost,
                    InOut dmeans, InOut dspread, Scratch scratch) {
  check_bures_backward(s, means, spread, kept, dcost, dmeans, dspread, scratch,
                       bures_scratch_bytes(be, s));
  const int64_t d = s.width;
  if (!dmeans.empty())
    parallel_for(be, s.prototypes(),
                 [&](int64_t one) { add_mean_gradient(s, one, means, dcost, dmeans); });
  if (dspread.empty()) return;
  if (s.diagonal())
    return parallel_for(be, s.prototypes(), [&](int64_t one) {
      for_partners(s, one, [&](int64_t other, int64_t at, bool) {
        add_variance_gradient(d, bures::factor(s) * double(dcost[size_t(at)]), s.options.ridge,
                              spread.data() + one * d, spread.data() + other * d,
                              dspread.data() + one * d);
      });
    });
  const Layout z(s);
  slots(be, s).run(s.prototypes(), scratch, [&](int64_t one, double* mine) {
    add_spread_gradient(s, one, spread, kept, dcost, dspread.data() + one * d * z.r, mine);
  });
}

}  // namespace decalign::inline DECALIGN_REAL
