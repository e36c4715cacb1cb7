// Tests of the safetensors reader and writer: every type, every violation, round trips, a full
// disk.
#include <sys/resource.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <limits>

#include "data/safetensors.h"
#include "pickle_bytes.h"

namespace {

using namespace decalign;
using namespace decalign::test;

std::string file_of(const std::string& header, const std::string& data) {
  return raw(uint64_t(header.size())) + header + data;
}

std::string error_of(const std::string& text) {
  return message_of<input_error>([&] { Safetensors file(view_of(text, "f.safetensors")); });
}

std::string error_with(const std::string& header, size_t bytes = 8) {
  return error_of(file_of(header, std::string(bytes, 'x')));
}

TEST_CASE("data: every safetensors type is converted", "[data][safetensors]") {
  const Safetensors file(std::string(DECALIGN_TEST_SEEDS) + "/safetensors/dtypes.safetensors");
  for (const char* name : {"F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U64", "U32",
                           "U16", "U8", "BOOL"}) {
    INFO(name);
    const bool is_bool = name[0] == 'B' && name[1] == 'O';
    CHECK(file.view(name).shape == std::vector<int64_t>{2, 3});
    const auto doubles = file.doubles(name);
    const auto floats = file.floats(name);
    REQUIRE(doubles.size() == 6);
    REQUIRE(floats.size() == 6);
    for (size_t i = 0; i < 6; ++i) {
      const double expected = is_bool ? double(i % 2) : double(i) + (name[0] == 'U' ? 1 : -2);
      CHECK(doubles[i] == expected);
      CHECK(floats[i] == float(expected));
    }
    if (name[0] == 'F' || (name[0] == 'B' && !is_bool)) {
      CHECK_THROWS_AS(file.integers(name), input_error);
    } else {
      const auto integers = file.integers(name);
      for (size_t i = 0; i < 6; ++i) CHECK(double(integers[i]) == doubles[i]);
    }
  }
  CHECK(file.doubles("scalar") == std::vector<double>{2.5});
  CHECK(file.floats("empty").empty());
  CHECK(file.metadata().at("note") == "z\xc3\xa4hlen");
  CHECK(message_of<input_error>([&] {
          file.view("nothing");
        }).ends_with("dtypes.safetensors: has no tensor 'nothing'"));
}

TEST_CASE("data: what a strict safetensors reader must refuse", "[data][safetensors]") {
  const std::string one = R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]})";
  CHECK(error_with("{" + one + "}") == "no error");
  CHECK(error_with("{" + one + "}   ") == "no error");
  CHECK(error_of("").find("truncated") != std::string::npos);
  CHECK(error_of("1234567").find("truncated") != std::string::npos);
  CHECK(error_of(raw(uint64_t(200'000'000))).find("exceeds 100 MB") != std::string::npos);
  CHECK(error_of(raw(uint64_t(100)) + "{}").find("truncated in its header") != std::string::npos);
  CHECK(error_with(" {" + one + "}").find("no JSON object") != std::string::npos);
  CHECK(error_with("{" + one).find("not valid JSON") != std::string::npos);
  CHECK(error_with("{" + one + "," + one + "}").find("has 'a' twice") != std::string::npos);
  CHECK(error_with("{" + one + "}", 4).find("not within the file") != std::string::npos);
  CHECK(error_with("{" + one + "}", 9).find("belong to no tensor") != std::string::npos);
  const auto tensor = [](const std::string& body) { return error_with("{\"a\":{" + body + "}}"); };
  CHECK(tensor(R"("dtype":"F32","shape":[2])").find("exactly dtype") != std::string::npos);
  CHECK(tensor(R"("dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1)").find("exactly dtype") !=
        std::string::npos);
  CHECK(tensor(R"("dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8])").find("twice") !=
        std::string::npos);
  for (const char* dtype : {"\"F8\"", "\"C64\"", "\"\"", "\"F32x\"", "3"}) {
    CHECK(tensor(std::string("\"dtype\":") + dtype + R"(,"shape":[2],"data_offsets":[0,8])") !=
          "no error");
  }
  for (const char* shape : {"[3]", "[-2]", "[2.0]", "2", "[[2]]", "[4611686018427387904,4]",
                            "[18446744073709551615]", "[]", "[\"2\"]"}) {
    INFO(shape);
    CHECK(tensor(std::string(R"("dtype":"F32","shape":)") + shape + R"(,"data_offsets":[0,8])") !=
          "no error");
  }
  for (const char* offsets :
       {"[0,16]", "[8,0]", "[0]", "[0,8,8]", "[-8,8]", "8", "[0,7]", "[4,8]"}) {
    INFO(offsets);
    CHECK(tensor(std::string(R"("dtype":"F32","shape":[2],"data_offsets":)") + offsets) !=
          "no error");
  }
  std::string many = "[1";
  for (int i = 0; i < 100; ++i) many += ",1";
  CHECK(tensor(R"("dtype":"U8","data_offsets":[0,8],"shape":)" + many + "]").find("64 dim") !=
        std::string::npos);
  CHECK(error_with(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                   R"("b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})")
            .find("overlap") != std::string::npos);
  CHECK(error_with(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                   R"("b":{"dtype":"U8","shape":[6],"data_offsets":[2,8]}})")
            .find("leave a gap") != std::string::npos);
  CHECK(error_with(R"({"__metadata__":{"a":1},)" + one + "}").find("must be text") !=
        std::string::npos);
  CHECK(error_with(R"({"__metadata__":[],)" + one + "}").find("must be an object") !=
        std::string::npos);
  CHECK(error_with(std::string("{\"a\":") + std::string(10000, '[')).find("nested too deeply") !=
        std::string::npos);
}

TEST_CASE("data: tensors and metadata survive the safetensors round trip bit by bit",
          "[data][safetensors]") {
  const std::string path = "test_round.safetensors";
  const std::vector<float> f{1.5f, -0.0f, std::numeric_limits<float>::infinity(), 1e-42f, NAN, 3};
  const std::vector<double> d{0.1, 1e300};
  const std::vector<int64_t> q{INT64_MIN, INT64_MAX, -1};
  const std::vector<int32_t> i{-5};
  const std::vector<uint8_t> u{1, 2, 255};
  const std::map<std::string, std::string> metadata{{"config", "{\"a\": 1}"}, {"\xff", "bad \xfe"}};
  save_safetensors(path,
                   {tensor_out<uint8_t>("u", {3}, u), tensor_out<float>("f", {2, 3}, f),
                    tensor_out<int32_t>("i", {}, i), tensor_out<double>("d", {1, 2}, d),
                    tensor_out<int64_t>("q", {3}, q), tensor_out<float>("none", {0, 4}, {})},
                   metadata);
  const Safetensors file(path);
  CHECK(file.doubles("d") == d);
  CHECK(file.integers("q") == q);
  CHECK(file.integers("i") == std::vector<int64_t>{-5});
  CHECK(file.integers("u") == std::vector<int64_t>{1, 2, 255});
  const auto floats = file.floats("f");
  REQUIRE(floats.size() == 6);
  for (size_t k = 0; k < 6; ++k) {
    CHECK((floats[k] == f[k] || (std::isnan(floats[k]) && std::isnan(f[k]))));
  }
  CHECK(std::signbit(floats[1]));
  CHECK(file.floats("none").empty());
  CHECK(file.metadata().at("config") == "{\"a\": 1}");
  const auto* start = file.source().bytes.data();
  for (const auto& [name, view] : file.tensors()) {
    if (view.bytes.empty()) continue;
    CHECK((view.bytes.data() - start) % view.dtype.size == 0);
  }
  std::remove(path.c_str());
}

TEST_CASE("data: the writer refuses tensors that cannot be", "[data][safetensors]") {
  const std::vector<float> f{1, 2};
  const std::string path = "test_refused.safetensors";
  CHECK_THROWS_AS(save_safetensors(path, {tensor_out<float>("f", {3}, f)}), std::invalid_argument);
  CHECK_THROWS_AS(save_safetensors(path, {{"f", "F99", {2}, std::as_bytes(std::span(f))}}),
                  std::invalid_argument);
  const auto tensor = tensor_out<float>("f", {2}, f);
  CHECK_THROWS_AS(save_safetensors(path, {tensor, tensor}), std::invalid_argument);
  CHECK(read_file(path).empty());
}

TEST_CASE("data: a full disk leaves the previous file and names the path", "[data][safetensors]") {
  const std::string path = "test_full.safetensors";
  const std::vector<float> before{1, 2, 3};
  save_safetensors(path, {tensor_out<float>("f", {3}, before)});
  const std::vector<float> big(1 << 20, 7.0f);
  const auto save_big = [&](const std::string& to) {
    return message_of<input_error>(
        [&] { save_safetensors(to, {tensor_out<float>("f", {1 << 20}, big)}); });
  };
  rlimit limit{};
  REQUIRE(getrlimit(RLIMIT_FSIZE, &limit) == 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit small = limit;
  small.rlim_cur = 100'000;
  REQUIRE(setrlimit(RLIMIT_FSIZE, &small) == 0);
  const std::string message = save_big(path);
  setrlimit(RLIMIT_FSIZE, &limit);
  std::signal(SIGXFSZ, handler);
  CHECK(message.starts_with(path + ": cannot be written"));
  CHECK(Safetensors(path).floats("f") == before);
  CHECK(read_file(path + ".tmp").empty());
  CHECK(save_big("/dev/full").starts_with("/dev/full: cannot be written"));
  CHECK(save_big("/nonexistent/f").starts_with("/nonexistent/f: cannot be written"));
  CHECK(save_big(path) == "no error");
  CHECK(Safetensors(path).floats("f") == big);
  std::remove(path.c_str());
}

}  // namespace
