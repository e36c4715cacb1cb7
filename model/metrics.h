// Metrics of the field's protocols: regression (MOSI, MOSEI), CH-SIMS, classification (IEMOCAP).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "data/dataset.h"

namespace decalign {

/// Names and values in the order in which they are printed. The names are those of the published
/// code; accuracies, F1 scores in [0, 1], Corr in [-1, 1], MAE >= 0.
using Metrics = std::vector<std::pair<std::string, double>>;

/// How often a sample of class `truth` was predicted as `predicted`.
struct Confusion {
  explicit Confusion(int64_t classes) : classes(classes), counts(size_t(classes * classes)) {}

  int64_t classes;
  std::vector<int64_t> counts;  ///< [classes, classes]: row = truth, column = prediction

  int64_t& at(int64_t truth, int64_t predicted) { return counts[truth * classes + predicted]; }
  int64_t at(int64_t truth, int64_t predicted) const { return counts[truth * classes + predicted]; }
  int64_t truths(int64_t k) const;       ///< samples of class k
  int64_t predictions(int64_t k) const;  ///< samples predicted as class k
  int64_t total() const;
};

/// sum_k n_kk / N; 0 if there is no sample.
double accuracy(const Confusion&);

/// F1 of one class, 2 n_kk / (truths + predictions); 0 where both are 0.
double f1_score(const Confusion&, int64_t k);

/// sum_k truths_k F1_k / N, scikit-learn's average="weighted"; 0 if there is no sample.
double weighted_f1(const Confusion&);

/// Mean F1 of the classes that occur in the truth or in the predictions, scikit-learn's
/// average="macro"; 0 if there is no sample.
double macro_f1(const Confusion&);

/// Mean of |a_n - b_n|, summed in double. Same size; 0 if empty.
double mean_absolute_error(std::span<const float> a, std::span<const float> b);

/// Pearson's correlation in [-1, 1], two passes in double. 0 where it is not defined: fewer than
/// two samples, or one side constant.
double correlation(std::span<const float> a, std::span<const float> b);

/// MOSI, MOSEI and every other regression: Acc_2, F1_score, MAE, Corr, Acc_7, Acc_5, Acc_3,
/// Has0_acc_2, Has0_F1_score, Non0_acc_2, Non0_F1_score.
///
/// Acc_7, Acc_5, Acc_3: both sides clipped to +-3, +-2, +-1 and rounded, halves to even.
/// Non0: samples with truth != 0, sign "> 0" (0 where no such sample exists); Has0: every sample,
/// sign ">= 0". Acc_2 and F1_score are the Non0 pair; F1 is weighted. MAE and Corr are not clipped.
/// Comparisons are made on the float values, sums in double.
/// @param predictions [N], N >= 1
/// @param labels [N]
/// @throws input_error if N = 0 or an entry is NaN or infinite; std::invalid_argument if the
///   sizes differ
Metrics regression_metrics(std::span<const float> predictions, std::span<const float> labels);

/// CH-SIMS: Mult_acc_2, Mult_acc_3, Mult_acc_5, F1_score, MAE, Corr, all of them after clipping
/// both sides to [-1, 1].
///
/// The classes are intervals (lo, hi], split at {0}, {-.1, .1} and {-.7, -.1, .1, .7} as floats, so
/// 0 is negative and 0.1f neutral; F1_score is the weighted one of the two classes.
/// Arguments and errors as in regression_metrics.
Metrics sims_metrics(std::span<const float> predictions, std::span<const float> labels);

/// Truth against the class of the largest score, the first one of equals.
/// @param scores [N, classes] row-major: logits, probabilities, any order-preserving score
/// @param labels [N], whole numbers in [0, classes)
/// @param classes >= 2
/// @throws input_error if N = 0, a score is NaN or infinite, or a label is not a class;
///   std::invalid_argument if the sizes do not agree
Confusion confusion_matrix(std::span<const float> scores, std::span<const float> labels,
                           int64_t classes);

/// IEMOCAP and every other classification: WAcc, WAF1, Acc, F1_score, Macro_F1. WAcc and Acc both
/// are the accuracy, WAF1 and F1_score both the weighted F1. Arguments as in confusion_matrix.
Metrics classification_metrics(std::span<const float> scores, std::span<const float> labels,
                               int64_t classes);

/// The metrics of one protocol: classification if `classes` > 0, else CH-SIMS for `dataset` "sims"
/// (in any case), else regression. `scores` is [N] or [N, classes].
Metrics evaluate(std::string_view dataset, int64_t classes, std::span<const float> scores,
                 std::span<const float> labels);

/// The values as they are printed and as model selection compares them: four decimals. Ties and
/// the digits near them are settled as in the published code: names that it takes from numpy by
/// rint(10^4 x) / 10^4, those from scikit-learn by the correctly rounded decimal of the double.
Metrics rounded(const Metrics&);

/// The value called `name`, nothing if there is none. "F1Acc_score" (also "F1_Acc_score", "F1Acc")
/// stands for .55 F1_score + .45 Acc_2.
/// @throws input_error if the F1Acc score is asked for where Acc_2 or F1_score does not exist
std::optional<double> find_metric(const Metrics&, std::string_view name);

}  // namespace decalign
