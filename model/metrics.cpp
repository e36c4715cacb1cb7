// Metrics of the field's protocols: regression (MOSI, MOSEI), CH-SIMS, classification (IEMOCAP).
#include "model/metrics.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cmath>

namespace decalign {
namespace {

using Values = std::span<const float>;

void require_finite(Values x, const char* what, int64_t columns) {
  for (size_t i = 0; i < x.size(); ++i)
    if (!std::isfinite(x[i]))
      throw input_error("metrics: " + std::string(what) + " of sample " +
                        std::to_string(int64_t(i) / columns + 1) +
                        " is NaN or infinite, a finite number was expected");
}

void require_samples(Values scores, Values labels, int64_t columns) {
  if (scores.size() != labels.size() * size_t(columns))
    throw std::invalid_argument("metrics: predictions and labels differ in size");
  if (labels.empty()) throw input_error("metrics: no sample, at least one was expected");
  require_finite(scores, columns == 1 ? "the prediction" : "a score", columns);
  require_finite(labels, "the label", 1);
}

std::vector<float> clipped(Values x, float limit) {
  std::vector<float> y(x.begin(), x.end());
  for (float& v : y) v = std::clamp(v, -limit, limit);
  return y;
}

// Share of samples whose clipped values round to the same integer.
double rounded_accuracy(Values predictions, Values labels, float limit) {
  const auto grade = [limit](float x) { return std::nearbyint(std::clamp(x, -limit, limit)); };
  int64_t hits = 0;
  for (size_t n = 0; n < labels.size(); ++n) hits += grade(predictions[n]) == grade(labels[n]);
  return double(hits) / double(labels.size());
}

// Which of the intervals (.., s_0], (s_0, s_1], ... holds x.
int64_t interval(float x, Values splits) {
  return std::lower_bound(splits.begin(), splits.end(), x) - splits.begin();
}

Confusion by_interval(Values predictions, Values labels, Values splits) {
  Confusion confusion(int64_t(splits.size()) + 1);
  for (size_t n = 0; n < labels.size(); ++n)
    ++confusion.at(interval(labels[n], splits), interval(predictions[n], splits));
  return confusion;
}

double mean(Values x) {
  double sum = 0;
  for (const float v : x) sum += v;
  return sum / double(x.size());
}

// Python's round(x, 4): the nearest decimal to the exact value of the double.
double rounded_as_python(double x) {
  std::array<char, 400> text;
  const auto end = std::to_chars(text.begin(), text.end(), x, std::chars_format::fixed, 4).ptr;
  double y = x;
  std::from_chars(text.begin(), end, y);
  return y;
}

double rounded_as_numpy(double x) { return std::nearbyint(x * 1e4) / 1e4; }

bool from_numpy(std::string_view name) {
  constexpr std::array<std::string_view, 8> names{
      "MAE", "Corr", "Acc_7", "Acc_5", "Acc_3", "Mult_acc_2", "Mult_acc_3", "Mult_acc_5"};
  return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace

int64_t Confusion::truths(int64_t k) const {
  int64_t sum = 0;
  for (int64_t p = 0; p < classes; ++p) sum += at(k, p);
  return sum;
}

int64_t Confusion::predictions(int64_t k) const {
  int64_t sum = 0;
  for (int64_t t = 0; t < classes; ++t) sum += at(t, k);
  return sum;
}

int64_t Confusion::total() const {
  int64_t sum = 0;
  for (const int64_t n : counts) sum += n;
  return sum;
}

double accuracy(const Confusion& confusion) {
  int64_t hits = 0;
  for (int64_t k = 0; k < confusion.classes; ++k) hits += confusion.at(k, k);
  const int64_t total = confusion.total();
  return total == 0 ? 0 : double(hits) / double(total);
}

double f1_score(const Confusion& confusion, int64_t k) {
  const int64_t both = confusion.truths(k) + confusion.predictions(k);
  return both == 0 ? 0 : 2 * double(confusion.at(k, k)) / double(both);
}

double weighted_f1(const Confusion& confusion) {
  double sum = 0;
  for (int64_t k = 0; k < confusion.classes; ++k)
    sum += double(confusion.truths(k)) * f1_score(confusion, k);
  const int64_t total = confusion.total();
  return total == 0 ? 0 : sum / double(total);
}

double macro_f1(const Confusion& confusion) {
  double sum = 0;
  int64_t present = 0;
  for (int64_t k = 0; k < confusion.classes; ++k) {
    if (confusion.truths(k) + confusion.predictions(k) == 0) continue;
    sum += f1_score(confusion, k);
    ++present;
  }
  return present == 0 ? 0 : sum / double(present);
}

double mean_absolute_error(Values a, Values b) {
  if (a.size() != b.size()) throw std::invalid_argument("mean_absolute_error: sizes differ");
  double sum = 0;
  for (size_t n = 0; n < a.size(); ++n) sum += std::abs(double(a[n]) - double(b[n]));
  return a.empty() ? 0 : sum / double(a.size());
}

double correlation(Values a, Values b) {
  if (a.size() != b.size()) throw std::invalid_argument("correlation: sizes differ");
  if (a.size() < 2) return 0;
  const double mean_a = mean(a), mean_b = mean(b);
  double aa = 0, bb = 0, ab = 0;
  for (size_t n = 0; n < a.size(); ++n) {
    const double x = a[n] - mean_a, y = b[n] - mean_b;
    aa += x * x;
    bb += y * y;
    ab += x * y;
  }
  // A constant side leaves exactly 0 here: sums of equal floats do not round in double.
  const double r = ab / (std::sqrt(aa) * std::sqrt(bb));
  return std::isfinite(r) ? std::clamp(r, -1.0, 1.0) : 0;
}

Metrics regression_metrics(Values predictions, Values labels) {
  require_samples(predictions, labels, 1);
  Confusion non0(2), has0(2);
  for (size_t n = 0; n < labels.size(); ++n) {
    ++has0.at(labels[n] >= 0, predictions[n] >= 0);
    if (labels[n] != 0) ++non0.at(labels[n] > 0, predictions[n] > 0);
  }
  return {{"Acc_2", accuracy(non0)},
          {"F1_score", weighted_f1(non0)},
          {"MAE", mean_absolute_error(predictions, labels)},
          {"Corr", correlation(predictions, labels)},
          {"Acc_7", rounded_accuracy(predictions, labels, 3)},
          {"Acc_5", rounded_accuracy(predictions, labels, 2)},
          {"Acc_3", rounded_accuracy(predictions, labels, 1)},
          {"Has0_acc_2", accuracy(has0)},
          {"Has0_F1_score", weighted_f1(has0)},
          {"Non0_acc_2", accuracy(non0)},
          {"Non0_F1_score", weighted_f1(non0)}};
}

Metrics sims_metrics(Values predictions, Values labels) {
  require_samples(predictions, labels, 1);
  const std::vector<float> p = clipped(predictions, 1), t = clipped(labels, 1);
  const Confusion two = by_interval(p, t, std::array{0.0f});
  const Confusion three = by_interval(p, t, std::array{-0.1f, 0.1f});
  const Confusion five = by_interval(p, t, std::array{-0.7f, -0.1f, 0.1f, 0.7f});
  return {{"Mult_acc_2", accuracy(two)},      {"Mult_acc_3", accuracy(three)},
          {"Mult_acc_5", accuracy(five)},     {"F1_score", weighted_f1(two)},
          {"MAE", mean_absolute_error(p, t)}, {"Corr", correlation(p, t)}};
}

Confusion confusion_matrix(Values scores, Values labels, int64_t classes) {
  if (classes < 2) throw std::invalid_argument("confusion_matrix: fewer than 2 classes");
  require_samples(scores, labels, classes);
  Confusion confusion(classes);
  for (size_t n = 0; n < labels.size(); ++n) {
    if (!(labels[n] >= 0 && labels[n] < float(classes) && labels[n] == std::floor(labels[n])))
      throw input_error("metrics: the label of sample " + std::to_string(n + 1) + " is " +
                        std::to_string(labels[n]) + ", a whole number from 0 to " +
                        std::to_string(classes - 1) + " was expected");
    const Values row = scores.subspan(n * size_t(classes), size_t(classes));
    ++confusion.at(int64_t(labels[n]), std::max_element(row.begin(), row.end()) - row.begin());
  }
  return confusion;
}

Metrics classification_metrics(Values scores, Values labels, int64_t classes) {
  const Confusion confusion = confusion_matrix(scores, labels, classes);
  const double acc = accuracy(confusion), f1 = weighted_f1(confusion);
  return {{"WAcc", acc},
          {"WAF1", f1},
          {"Acc", acc},
          {"F1_score", f1},
          {"Macro_F1", macro_f1(confusion)}};
}

Metrics evaluate(std::string_view dataset, int64_t classes, Values scores, Values labels) {
  if (classes > 0) return classification_metrics(scores, labels, classes);
  std::string name(dataset);
  for (char& c : name) c = char(std::tolower(static_cast<unsigned char>(c)));
  return name == "sims" ? sims_metrics(scores, labels) : regression_metrics(scores, labels);
}

Metrics rounded(const Metrics& metrics) {
  Metrics result = metrics;
  for (auto& [name, value] : result)
    value = from_numpy(name) ? rounded_as_numpy(value) : rounded_as_python(value);
  return result;
}

std::optional<double> find_metric(const Metrics& metrics, std::string_view name) {
  const auto find = [&metrics](std::string_view key) -> std::optional<double> {
    for (const auto& [known, value] : metrics)
      if (known == key) return value;
    return std::nullopt;
  };
  if (name != "F1Acc_score" && name != "F1_Acc_score" && name != "F1Acc") return find(name);
  const auto f1 = find("F1_score"), acc = find("Acc_2");
  if (!f1 || !acc)
    throw input_error(std::string(name) + " needs F1_score and Acc_2, this protocol has not both");
  return 0.55 * *f1 + 0.45 * *acc;
}

}  // namespace decalign
