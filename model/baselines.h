// What every result table shows beside the model: mean predictor and ridge regression.
#pragma once

#include <cstdint>
#include <vector>

#include "data/dataset.h"

namespace decalign {

/// The best constant: the mean of the training labels; in classification the share of each class
/// among them, so that the predicted class is the most frequent one (the first of equals).
/// @param count samples to predict for
/// @param classes 0 in regression, else >= 2
/// @returns [count] or [count, classes]
/// @throws input_error if there is no training label, one is NaN or infinite, or no class
std::vector<float> predict_mean(const Split& train, int64_t count, int64_t classes);

/// Width of the pooled features: the sum of the modalities' widths.
int64_t pooled_width(const Split&);

/// Mean over time of every modality, one after the other: over the first `length` steps where the
/// file gives lengths, else over the steps that are not all zero; zeros where there are none.
/// @param first, count samples [first, first + count) of the split
/// @returns [count, pooled_width], row-major
std::vector<double> pooled_features(const Split&, int64_t first, int64_t count);

/// A fitted ridge regression: score_c(x) = intercept_c + sum_j x_j weights_jc on pooled features.
struct Ridge {
  int64_t width = 0;              ///< D
  int64_t classes = 0;            ///< 0: regression
  double lambda = 0;              ///< the chosen penalty, as a multiple of N
  double valid_score = 0;         ///< MAE or weighted F1 on the validation split; 0 without one
  std::vector<double> weights;    ///< [D, max(1, classes)], for features that are not standardised
  std::vector<double> intercept;  ///< [max(1, classes)]

  int64_t outputs() const { return classes > 0 ? classes : 1; }
};

/// Minimises sum_n |y_n - b - z_n W|^2 + lambda N |W|^2, z being the pooled features standardised
/// with training statistics (a constant one counts as 0), the intercept b unpenalised, y the label
/// or, in classification, 1 for the sample's class and 0 for the others. lambda is the one of
/// 10^-4, 10^-3.5, ..., 10^3 that is best on the validation split, by MAE or weighted F1, the
/// largest of equals; 1 where that split is empty.
///
/// Solved in double by Cholesky factors of the smaller of the two normal equations, D x D or N x N,
/// one per lambda: O(N D min(N, D) + 15 min(N, D)^3) time, O(D min(N, D)) memory beyond the data.
/// The result does not depend on the number of threads.
/// @param classes 0 in regression, else >= 2
/// @throws input_error if there is no training sample, a label is NaN or infinite, or no class;
///   std::invalid_argument if the two splits differ in width
Ridge fit_ridge(const Split& train, const Split& valid, int64_t classes);

/// The scores of every sample of a split: [N] or [N, classes].
/// @throws std::invalid_argument if the split's width is not the one fitted
std::vector<float> predict_ridge(const Ridge&, const Split&);

}  // namespace decalign
