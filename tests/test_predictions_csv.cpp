// Predictions as CSV: round trips, RFC 4180, and what each kind of damage is called.
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>

#include "model/predictions_csv.h"

using namespace decalign;

namespace {

// A file in the temporary folder, removed at the end of the test.
struct Scratch {
  std::string path = (std::filesystem::temp_directory_path() /
                      ("decalign_predictions_" + std::to_string(getpid()) + ".csv"))
                         .string();
  Scratch() = default;
  explicit Scratch(const std::string& text) { std::ofstream(path, std::ios::binary) << text; }
  ~Scratch() { std::filesystem::remove(path); }

  std::string text() const {
    std::ostringstream out;
    out << std::ifstream(path, std::ios::binary).rdbuf();
    return out.str();
  }
};

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

std::string error_of(const std::string& text, Labels labels = Labels::required) {
  const Scratch file(text);
  try {
    read_predictions(file.path, labels);
  } catch (const input_error& error) {
    const std::string what = error.what();
    REQUIRE(what.starts_with(file.path + ":"));
    return what.substr(file.path.size() + 1);
  }
  return "no error";
}

}  // namespace

TEST_CASE("predictions_csv: a file reads back to the same bits", "[model][predictions_csv]") {
  const Scratch file;
  const float tiny = std::numeric_limits<float>::denorm_min();
  const float huge = std::numeric_limits<float>::max();
  const Predictions p{0,
                      {"a", "", "x,y", "say \"hi\"", "two\r\nlines", " blank "},
                      {0.1f, -0.0f, 1.f / 3, 3, -2.7f, 16777217.f},
                      {tiny, -huge, 1e-38f, 0.7f, 1.00000012f, 123456.789f}};
  write_predictions(file.path, p);
  const Predictions q = read_predictions(file.path);
  CHECK(q.classes == 0);
  CHECK(q.ids == p.ids);
  CHECK(same_bits(q.labels, p.labels));
  CHECK(same_bits(q.scores, p.scores));
}

TEST_CASE("predictions_csv: the text is plain", "[model][predictions_csv]") {
  const Scratch file;
  write_predictions(file.path, {0, {"a,1", "b\"2"}, {1, -0.25f}, {0.1f, 2}});
  CHECK(file.text() == "id,label,prediction\n\"a,1\",1,0.100000001\n\"b\"\"2\",-0.25,2\n");
  write_predictions(file.path, {2, {"a"}, {}, {1.5f, -1e-20f}});
  CHECK(file.text() == "id,p0,p1\na,1.5,-9.99999968e-21\n");
  CHECK_FALSE(std::filesystem::exists(file.path + ".tmp"));
}

TEST_CASE("predictions_csv: class scores and missing labels read back",
          "[model][predictions_csv]") {
  const Scratch file;
  Predictions p{12, {"a", "b"}, {}, {}};
  for (int i = 0; i < 24; ++i) p.scores.push_back(float(i) / 7);
  write_predictions(file.path, p);
  const Predictions q = read_predictions(file.path, Labels::optional);
  CHECK(q.classes == 12);
  CHECK(q.labels.empty());
  CHECK(same_bits(q.scores, p.scores));
  CHECK_THROWS_WITH(read_predictions(file.path), Catch::Contains("column label is missing"));
}

TEST_CASE("predictions_csv: other writers' files are read", "[model][predictions_csv]") {
  const Scratch file(
      "\xEF\xBB\xBF"
      "\"p1\", label,id,p0\r\n 1e-60,\"2\" ,,-0.5\r\n4,3,\"a\nb\",5");
  // A blank after a closing quote is no RFC 4180.
  CHECK_THROWS_AS(read_predictions(file.path), input_error);
  const Scratch good(
      "\xEF\xBB\xBF"
      "\"p1\", label,id,p0\r\n 1e-60,\"2\",,-0.5\r\n4,3,\"a\nb\",5");
  const Predictions p = read_predictions(good.path);
  CHECK(p.classes == 2);
  CHECK(p.ids == std::vector<std::string>{"", "a\nb"});
  CHECK(p.labels == std::vector<float>{2, 3});
  CHECK(p.scores == std::vector<float>{-0.5f, 0, 5, 4});
}

TEST_CASE("predictions_csv: damage is named with line and column",
          "[model][predictions_csv][errors]") {
  const std::string head = "id,label,prediction\n";
  const auto contains = [](const std::string& s) { return Catch::StartsWith(s); };
  CHECK_THAT(error_of(""), contains(" cannot be read or is empty"));
  CHECK_THAT(error_of(head), contains("2: no row"));
  CHECK_THAT(error_of(head + "a,1,x\n"), contains("2: column prediction: 'x' is not a finite"));
  CHECK_THAT(error_of(head + "a,,1\n"), contains("2: column label: '' is not"));
  CHECK_THAT(error_of(head + "a,1,1\nb,nan,1\n"), contains("3: column label: 'nan'"));
  CHECK_THAT(error_of(head + "a,1,inf\n"), contains("2: column prediction: 'inf'"));
  CHECK_THAT(error_of(head + "a,1,1e39\n"), contains("2: column prediction: '1e39'"));
  CHECK_THAT(error_of(head + "a,1,1e999\n"), contains("2: column prediction: '1e999'"));
  CHECK_THAT(error_of(head + "a,1,1.5z\n"), contains("2: column prediction: '1.5z'"));
  CHECK_THAT(error_of(head + "\"a\n\n\",1,2\nb,1\n"), contains("5: 2 fields, expected 3"));
  CHECK_THAT(error_of(head + "a,1,2\n\n"), contains("3: 1 fields, expected 3"));
  CHECK_THAT(error_of(head + "a,1,2,\n"), contains("2: 4 fields, expected 3"));
  CHECK_THAT(error_of(head + "a,1,2\n\"b,1,2\n"), contains("3: a quoted field never ends"));
  CHECK_THAT(error_of(head + "a\"b,1,2\n"), contains("2: a quote inside"));
  CHECK_THAT(error_of(head + "\"a\"b,1,2\n"), contains("2: text after the end"));
  CHECK_THAT(error_of(head + "a,1,2\rb,1,2\n"), contains("2: a carriage return"));
}

TEST_CASE("predictions_csv: a wrong header is named", "[model][predictions_csv][errors]") {
  const auto says = [](const std::string& header, const std::string& what) {
    INFO(header);
    CHECK_THAT(error_of(header + "\n"), Catch::StartsWith("1: " + what));
  };
  says("label,prediction", "column id is missing");
  says("id,prediction", "column label is missing");
  says("id,label", "column prediction (or p0");
  says("id,label,prediction,x", "column x is unknown");
  says("id,label,id,prediction", "column id occurs twice");
  says("id,label,prediction,p0,p1", "both prediction");
  says("id,label,p0", "column p1 is missing");
  says("id,label,p0,p2", "column p1 is missing");
  says("id,label,p01,p1", "column p01 is unknown");
  says("id,label,p0,p99999999999999999999", "column p99999999999999999999 is unknown");
}

TEST_CASE("predictions_csv: a failed write leaves the earlier file",
          "[model][predictions_csv][errors]") {
  const Scratch file("kept");
  const float nan = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS_AS(write_predictions(file.path, {0, {"a"}, {1}, {nan}}), input_error);
  CHECK_THROWS_AS(write_predictions(file.path, {0, {"a"}, {1}, {}}), std::invalid_argument);
  CHECK_THROWS_AS(write_predictions(file.path, {0, {"a"}, {1, 2}, {1}}), std::invalid_argument);
  CHECK(file.text() == "kept");
  CHECK_THROWS_WITH(write_predictions(file.path + ".d/p.csv", {0, {"a"}, {1}, {1}}),
                    Catch::Contains("cannot be written"));
  CHECK_THROWS_AS(read_predictions(file.path + ".none"), input_error);
  CHECK_THROWS_AS(read_predictions("/"), input_error);
  if (std::filesystem::exists("/dev/full")) {  // stands for a full disk
    std::filesystem::create_symlink("/dev/full", file.path + ".tmp");
    CHECK_THROWS_AS(write_predictions(file.path, {0, {"a"}, {1}, {1}}), input_error);
    REQUIRE_FALSE(std::filesystem::is_symlink(file.path));
    CHECK(file.text() == "kept");
    CHECK_FALSE(std::filesystem::is_symlink(file.path + ".tmp"));
  }
}
