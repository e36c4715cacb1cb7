// Predictions as a CSV file: id, label, and prediction or the class scores p0, p1, ...
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/dataset.h"

namespace decalign {

/// One row per sample.
struct Predictions {
  int64_t classes = 0;  ///< 0: regression, one column `prediction`; else p0 .. p<classes-1>
  std::vector<std::string> ids;  ///< [N]
  std::vector<float> labels;     ///< [N], or empty where there are none
  std::vector<float> scores;     ///< [N] or [N, classes], row-major

  int64_t count() const { return int64_t(ids.size()); }
  int64_t columns() const { return classes > 0 ? classes : 1; }
};

enum class Labels { required, optional };

/// Writes header and rows; numbers with 9 significant digits, which read back to the same float;
/// ids quoted as in RFC 4180 where they hold a comma, a quote or a line break. The column `label`
/// is left out where there are no labels. The file appears under its name once it is complete.
/// @throws input_error if it cannot be written (a full disk, a missing folder) or a number is NaN
///   or infinite; an earlier file then stays as it was. std::invalid_argument if sizes disagree.
void write_predictions(const std::string& path, const Predictions&);

/// Reads such a file. The header names the columns, in any order: id, prediction or p0, p1, ...,
/// and label. Line ends may be LF or CRLF, the last one may be missing, a UTF-8 byte order mark is
/// skipped, blanks around numbers too. Every other deviation is an error: an unknown, missing or
/// repeated column, another number of fields, a field that is no finite number, no rows at all.
/// @throws input_error "FILE:LINE: column NAME: ...", the line being the one where the row starts
Predictions read_predictions(const std::string& path, Labels = Labels::required);

}  // namespace decalign
