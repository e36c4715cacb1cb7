// What every result table shows beside the model: mean predictor and ridge regression.
#define EIGEN_DONT_PARALLELIZE  // the same bits for every number of threads
#if defined(__GNUC__) && !defined(__clang__)
// g++ 12 takes the deliberately undefined operand of AVX-512 intrinsics for a mistake (PR105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include "model/baselines.h"

#include <Eigen/Cholesky>
#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <string>

#include "model/metrics.h"

namespace decalign {
namespace {

using Matrix = Eigen::MatrixXd;
using Vector = Eigen::VectorXd;
using Row = Eigen::RowVectorXd;
using RowMajor = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

constexpr int64_t kBlock = 256;  // samples pooled at a time

// Calls visit(first, [count, D] pooled features) for consecutive blocks of samples.
template <class Visit>
void for_blocks(const Split& split, const Visit& visit) {
  for (int64_t first = 0; first < split.count(); first += kBlock) {
    const int64_t count = std::min(kBlock, split.count() - first);
    const std::vector<double> rows = pooled_features(split, first, count);
    visit(first, Eigen::Map<const RowMajor>(rows.data(), count, pooled_width(split)));
  }
}

void check_labels(const Split& split, const char* name, int64_t classes) {
  if (classes < 0 || classes == 1) throw std::invalid_argument("baselines: fewer than 2 classes");
  if (int64_t(split.labels.size()) != split.count())
    throw input_error("baselines: the " + std::string(name) + " split has " +
                      std::to_string(split.labels.size()) + " labels for " +
                      std::to_string(split.count()) + " samples");
  for (size_t n = 0; n < split.labels.size(); ++n) {
    const float y = split.labels[n];
    const bool ok =
        std::isfinite(y) && (classes == 0 || (y >= 0 && y < float(classes) && y == std::floor(y)));
    if (!ok)
      throw input_error("baselines: label " + std::to_string(y) + " of sample " +
                        std::to_string(n + 1) + " of the " + name + " split, expected " +
                        (classes == 0 ? "a finite number"
                                      : "a whole number from 0 to " + std::to_string(classes - 1)));
  }
}

// [N, 1], or one-hot [N, classes].
Matrix targets(const Split& split, int64_t classes) {
  Matrix y = Matrix::Zero(split.count(), std::max<int64_t>(1, classes));
  for (int64_t n = 0; n < split.count(); ++n) {
    const float label = split.labels[size_t(n)];
    if (classes > 0)
      y(n, int64_t(label)) = 1;
    else
      y(n, 0) = label;
  }
  return y;
}

// The penalties, as multiples of N, from the strongest to the weakest.
std::vector<double> penalties() {
  std::vector<double> grid;
  for (int halves = 6; halves >= -8; --halves) grid.push_back(std::pow(10., halves / 2.));
  return grid;
}

Row feature_means(const Split& split) {
  Row sum = Row::Zero(pooled_width(split));
  for_blocks(split, [&](int64_t, const auto& x) { sum += x.colwise().sum(); });
  return sum / double(split.count());
}

// 1 / deviation, 0 where the deviation is no more than the rounding of the mean.
Row inverse_deviations(const Row& squares, const Row& means, double count) {
  Row scale(squares.size());
  for (int64_t j = 0; j < scale.size(); ++j) {
    const double deviation = std::sqrt(squares[j] / count);
    scale[j] = deviation > 1e-10 * std::abs(means[j]) ? 1 / deviation : 0;
  }
  return scale;
}

// Weights [D, C] for centred, unscaled features, one matrix per penalty.
using Path = std::vector<Matrix>;

// (A + lambda N I)^-1 right, for every penalty; A is symmetric, positive semidefinite.
std::vector<Matrix> solve_all(const Matrix& a, const Matrix& right, double count,
                              const std::vector<double>& grid) {
  std::vector<Matrix> solutions;
  for (const double lambda : grid) {
    Matrix penalised = a;
    penalised.diagonal().array() += lambda * count;
    const Eigen::LLT<Eigen::Ref<Matrix>> factor(penalised);
    solutions.push_back(factor.solve(right));
  }
  return solutions;
}

// D <= N: (Z^T Z + lambda N I) W = Z^T Y, accumulated block by block.
Path solve_primal(const Split& train, const Row& means, const Matrix& y,
                  const std::vector<double>& grid) {
  const int64_t width = means.size();
  Matrix gram = Matrix::Zero(width, width), right = Matrix::Zero(width, y.cols());
  for_blocks(train, [&](int64_t first, const auto& x) {
    const Matrix centred = x.rowwise() - means;
    gram.template selfadjointView<Eigen::Lower>().rankUpdate(centred.transpose());
    right.noalias() += centred.transpose() * y.middleRows(first, x.rows());
  });
  const double count = double(train.count());
  const Row scale = inverse_deviations(gram.diagonal().transpose(), means, count);
  gram = scale.asDiagonal() * gram * scale.asDiagonal();
  right = scale.asDiagonal() * right;
  Path path = solve_all(gram, right, count, grid);
  for (Matrix& weights : path) weights = scale.asDiagonal() * weights;
  return path;
}

// N < D: W = Z^T (Z Z^T + lambda N I)^-1 Y.
Path solve_dual(const Split& train, const Row& means, const Matrix& y,
                const std::vector<double>& grid) {
  Matrix z(train.count(), means.size());
  for_blocks(train, [&](int64_t first, const auto& x) {
    z.middleRows(first, x.rows()) = x.rowwise() - means;
  });
  const double count = double(train.count());
  const Row scale = inverse_deviations(z.colwise().squaredNorm(), means, count);
  z = z * scale.asDiagonal();
  Matrix kernel = Matrix::Zero(train.count(), train.count());
  kernel.selfadjointView<Eigen::Lower>().rankUpdate(z);
  Path path = solve_all(kernel, y, count, grid);
  for (Matrix& weights : path) weights = scale.asDiagonal() * (z.transpose() * weights);
  return path;
}

// [N, C] scores of every penalty on one split, pooled once.
std::vector<std::vector<float>> scores_of(const Path& path, const Row& means, const Row& intercept,
                                          const Split& split) {
  const int64_t outputs = intercept.size();
  Matrix all(means.size(), outputs * int64_t(path.size()));
  for (size_t l = 0; l < path.size(); ++l) all.middleCols(int64_t(l) * outputs, outputs) = path[l];
  std::vector<std::vector<float>> scores(path.size());
  for_blocks(split, [&](int64_t, const auto& x) {
    const Matrix y = (x.rowwise() - means) * all;
    for (size_t l = 0; l < path.size(); ++l)
      for (int64_t n = 0; n < y.rows(); ++n)
        for (int64_t c = 0; c < outputs; ++c)
          scores[l].push_back(float(intercept[c] + y(n, int64_t(l) * outputs + c)));
  });
  return scores;
}

}  // namespace

std::vector<float> predict_mean(const Split& train, int64_t count, int64_t classes) {
  check_labels(train, "train", classes);
  if (train.labels.empty()) throw input_error("baselines: the train split has no sample");
  const Row mean = targets(train, classes).colwise().mean();
  std::vector<float> scores;
  scores.reserve(size_t(count * mean.size()));
  for (int64_t n = 0; n < count; ++n)
    for (int64_t c = 0; c < mean.size(); ++c) scores.push_back(float(mean[c]));
  return scores;
}

int64_t pooled_width(const Split& split) {
  int64_t width = 0;
  for (const Sequences& m : split.modalities) width += m.width;
  return width;
}

std::vector<double> pooled_features(const Split& split, int64_t first, int64_t count) {
  const int64_t width = pooled_width(split);
  std::vector<double> pooled(size_t(count * width), 0.0);
  int64_t column = 0;
  for (const Sequences& m : split.modalities) {
    for (int64_t n = 0; n < count; ++n) {
      const std::span<const float> x = m.sample(first + n);
      double* const sum = pooled.data() + n * width + column;
      const int64_t length = m.lengths.empty() ? m.steps : m.lengths[size_t(first + n)];
      int64_t used = 0;
      for (int64_t t = 0; t < length; ++t) {
        const auto step = x.subspan(size_t(t * m.width), size_t(m.width));
        const auto is_zero = [](float v) { return v == 0; };
        if (m.lengths.empty() && std::all_of(step.begin(), step.end(), is_zero)) continue;
        for (int64_t j = 0; j < m.width; ++j) sum[j] += step[size_t(j)];
        ++used;
      }
      for (int64_t j = 0; j < m.width && used > 0; ++j) sum[j] /= double(used);
    }
    column += m.width;
  }
  return pooled;
}

Ridge fit_ridge(const Split& train, const Split& valid, int64_t classes) {
  check_labels(train, "train", classes);
  check_labels(valid, "valid", classes);
  if (train.count() == 0) throw input_error("baselines: the train split has no sample");
  Ridge ridge;
  ridge.width = pooled_width(train);
  ridge.classes = classes;
  if (valid.count() > 0 && pooled_width(valid) != ridge.width)
    throw std::invalid_argument("fit_ridge: train and valid differ in width");

  Matrix y = targets(train, classes);
  const Row intercept = y.colwise().mean();
  y.rowwise() -= intercept;
  const Row means = feature_means(train);
  const std::vector<double> grid = valid.count() > 0 ? penalties() : std::vector<double>{1.0};
  const Path path = ridge.width == 0               ? Path(grid.size(), Matrix(0, y.cols()))
                    : ridge.width <= train.count() ? solve_primal(train, means, y, grid)
                                                   : solve_dual(train, means, y, grid);
  size_t best = 0;
  if (valid.count() > 0) {
    const auto scores = scores_of(path, means, intercept, valid);
    for (size_t l = 0; l < grid.size(); ++l) {
      const double score = classes > 0
                               ? weighted_f1(confusion_matrix(scores[l], valid.labels, classes))
                               : mean_absolute_error(scores[l], valid.labels);
      const bool better = classes > 0 ? score > ridge.valid_score : score < ridge.valid_score;
      if (l > 0 && !better) continue;
      ridge.valid_score = score;
      best = l;
    }
  }
  ridge.lambda = grid[best];
  const RowMajor weights = path[best];
  const Row shifted = intercept - means * path[best];
  ridge.weights.assign(weights.data(), weights.data() + weights.size());
  ridge.intercept.assign(shifted.data(), shifted.data() + shifted.size());
  return ridge;
}

std::vector<float> predict_ridge(const Ridge& ridge, const Split& split) {
  if (split.count() > 0 && pooled_width(split) != ridge.width)
    throw std::invalid_argument("predict_ridge: the split has another width");
  const Eigen::Map<const RowMajor> weights(ridge.weights.data(), ridge.width, ridge.outputs());
  const Eigen::Map<const Row> intercept(ridge.intercept.data(), ridge.outputs());
  std::vector<float> scores;
  for_blocks(split, [&](int64_t, const auto& x) {
    const RowMajor y = (x * weights).rowwise() + intercept;
    for (int64_t i = 0; i < y.size(); ++i) scores.push_back(float(y.data()[i]));
  });
  return scores;
}

}  // namespace decalign
