// Tests of the restricted pickle reader: every type and protocol, refusals, limits, truncation.
#include <catch2/catch.hpp>
#include <cmath>

#include "data/dataset.h"
#include "data/pickle.h"
#include "pickle_bytes.h"

namespace {

using namespace decalign;
using namespace decalign::test;

std::string seed(int numpy, int protocol, const std::string& kind = "dtypes") {
  return read_file(std::string(DECALIGN_TEST_SEEDS) + "/pickle/" + kind + "_numpy" +
                   std::to_string(numpy) + "_protocol" + std::to_string(protocol) + ".pkl");
}

std::string error_of(const std::string& text) {
  return message_of<input_error>([&] { PickleDocument document(view_of(text)); });
}

/// What the seed script puts at entry i of an array of kind `kind`.
double counted(char kind, size_t i) {
  if (kind == 'b') return double(i % 2);
  return kind == 'u' ? double(i) + 1 : double(i) - 2;
}

void check_counted(const PickleDocument& document, const std::string& key) {
  INFO(key);
  const auto handle = document.find(document.root(), key);
  REQUIRE(handle);
  const auto array = document.array(*handle);
  REQUIRE(array);
  CHECK(array->shape == std::vector<int64_t>{2, 3, 2});
  const auto doubles = read_doubles(*array, key);
  const auto floats = read_floats(*array, key);
  REQUIRE(doubles.size() == 12);
  REQUIRE(floats.values.size() == 12);
  CHECK(floats.cleaned == 0);
  for (size_t i = 0; i < 12; ++i) {
    CHECK(doubles[i] == counted(array->dtype.kind, i));
    CHECK(floats.values[i] == float(doubles[i]));
  }
}

TEST_CASE("data: every dtype, order and byte order of numpy 1 and 2, protocols 2 to 5",
          "[data][pickle]") {
  const int numpy = GENERATE(1, 2);
  const int protocol = GENERATE(2, 3, 4, 5);
  INFO("numpy " << numpy << " protocol " << protocol);
  const std::string text = seed(numpy, protocol);
  const PickleDocument document(view_of(text));
  for (const char* name : {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1",
                           ">f2", ">f4", ">f8", ">i2", ">i4", ">u8"}) {
    check_counted(document, name);
    check_counted(document, std::string(name) + "_F");
  }
}

TEST_CASE("data: text, object and scalar values come as written", "[data][pickle]") {
  const int numpy = GENERATE(1, 2);
  const int protocol = GENERATE(2, 3, 4, 5);
  INFO("numpy " << numpy << " protocol " << protocol);
  const std::string text = seed(numpy, protocol);
  const PickleDocument document(view_of(text));
  const auto at = [&](const char* key) { return document.find(document.root(), key).value(); };
  const std::vector<std::string> words{"one", "zw\xc3\xb6lf", "\xe4\xb8\x89"};
  CHECK(read_texts(*document.array(at("U")), "U") == words);
  CHECK(read_texts(*document.array(at(">U")), ">U") == words);
  CHECK(read_texts(*document.array(at("S")), "S") ==
        std::vector<std::string>{"one", "t\xc3\xa9o", ""});
  const auto objects = document.items(at("O"));
  REQUIRE(objects);
  REQUIRE(objects->size() == 3);
  CHECK(document.text((*objects)[2]) == "\xc3\xa9");
  CHECK(document.number(at("scalar")) == 2.5);
  CHECK(document.number(at("int_scalar")) == -7.0);
  CHECK(document.text(at("text_scalar")) == "word");
  CHECK(read_doubles(*document.array(at("strided")), "strided") ==
        std::vector<double>{-2, -1, 0, 4, 5, 6});
  CHECK(document.text(at("bytes")) == std::string("\0\xc3\xbf", 3));
  CHECK_FALSE(document.find(document.root(), "7"));
}

TEST_CASE("data: types nobody can use do no harm until asked for", "[data][pickle]") {
  const std::string text = seed(2, 4);
  const PickleDocument document(view_of(text));
  for (const char* key : {"complex", "record", "date"}) {
    INFO(key);
    const auto array = document.array(*document.find(document.root(), key));
    REQUIRE(array);
    CHECK_THROWS_AS(read_floats(*array, key), input_error);
    CHECK_THROWS_AS(read_texts(*array, key), input_error);
  }
}

TEST_CASE("data: every truncation of a pickle is an input error", "[data][pickle]") {
  const int protocol = GENERATE(2, 5);
  const std::string text = seed(1, protocol, "mmsa");
  for (size_t length = 0; length < text.size(); length += 1 + length / 200) {
    const std::string message = error_of(text.substr(0, length));
    INFO("length " << length << ": " << message);
    CHECK(message.starts_with("file.pkl: "));
    CHECK(message.find("(at byte ") != std::string::npos);
  }
}

TEST_CASE("data: callables other than numpy's constructors are refused by name", "[data][pickle]") {
  const std::string call = tuple({str("true")}) + "R";
  const std::string refusal = "; only numpy arrays are read";
  CHECK(error_of(pickled(global("os", "system") + call)) ==
        "file.pkl: names the callable os.system" + refusal);
  CHECK(error_of(pickled(str("posix") + str("system") + "\x93" + call)) ==
        "file.pkl: names the callable posix.system" + refusal);
  CHECK(error_of(pickled("(ios\nsystem\n")) == "file.pkl: names the callable os.system" + refusal);
  // Naming it is enough, used or not; and the numpy namespace is no free pass.
  CHECK(error_of(pickled(global("builtins", "eval") + "0N")) ==
        "file.pkl: names the callable builtins.eval" + refusal);
  CHECK(error_of(pickled(global("numpy", "load"))) ==
        "file.pkl: names the callable numpy.load" + refusal);
  CHECK(error_of(pickled(global("a\x1b", "b"))) == "file.pkl: names the callable a?.b" + refusal);
  const std::string zip = global("_codecs", "encode") + tuple({str("x"), str("zip")}) + "R";
  CHECK(error_of(pickled(zip)).find("codec zip; only latin1") != std::string::npos);
  // Opcodes that would make objects of classes or reach outside the file.
  for (const char* op : {"\x81", "\x92", "o", "Q", "P1\n", "\x82\x01", "\x97", "\x98"}) {
    CHECK(error_of(pickled(std::string("((N") + op)).find("which is not read") !=
          std::string::npos);
  }
}

TEST_CASE("data: constructors with wrong arguments are refused", "[data][pickle]") {
  const std::string encode = global("_codecs", "encode");
  const std::string ndarray = global("numpy", "ndarray");
  const std::string make = global("numpy.core.multiarray", "_reconstruct");
  const std::string scalar = global("numpy.core.multiarray", "scalar");
  const std::string buffer = global("numpy.core.numeric", "_frombuffer");
  const std::string f4 = dtype("f4");
  for (const std::string& body :
       {ndarray + tuple({}) + "R",
        make + tuple({}) + "R",
        make + tuple({encode, tuple({}), bytes("b")}) + "R",
        encode + tuple({bytes("x")}) + "R",
        integer(1) + tuple({}) + "R",
        make + integer(1) + "R",
        scalar + tuple({f4}) + "R",
        scalar + tuple({integer(1), bytes("1234")}) + "R",
        scalar + tuple({f4, bytes("1")}) + "R",
        buffer + tuple({bytes("1234"), f4, tuple({integer(1)})}) + "R",
        buffer + tuple({bytes("1234"), f4, integer(1), str("K")}) + "R",
        buffer + tuple({bytes("1234"), f4, tuple({str("1")}), str("C")}) + "R",
        buffer + tuple({bytes("1234"), f4, tuple({integer(-1)}), str("C")}) + "R",
        global("numpy", "dtype") + tuple({}) + "R",
        f4 + tuple({integer(3)}) + "b",
        integer(1) + tuple({}) + "b",
        floats({1}, {1}) + tuple({}) + "b",
        array_of(integer(1), {1}, bytes("1234")),
        array_of(f4, {1}, str("1234")),
        array_of(f4, {1}, list({})),
        array_of(dtype("O8"), {2}, list({str("a")})),
        array_of(dtype("O8"), {2}, bytes("a")),
        array_of(dtype("U0"), {1 << 20}, bytes("")),
        array_of(f4, std::vector<int64_t>(65, 1), bytes("1234"))}) {
    const std::string message = error_of(pickled(body));
    INFO(message);
    CHECK(message.starts_with("file.pkl: "));
  }
}

TEST_CASE("data: arrays must have the bytes of their shape", "[data][pickle]") {
  const std::string four(16, 'x');
  CHECK(error_of(pickled(array_of(dtype("f4"), {4}, bytes(four)))) == "no error");
  for (const std::vector<int64_t>& shape :
       {std::vector<int64_t>{3}, {5}, {-4}, {4, -1}, {int64_t(1) << 62, 4}, {int64_t(1) << 40}}) {
    CHECK(error_of(pickled(array_of(dtype("f4"), shape, bytes(four)))) != "no error");
  }
  CHECK(error_of(pickled(array_of(dtype("f4"), {0, int64_t(1) << 40}, bytes("")))) == "no error");
}

TEST_CASE("data: latin1 text that does not hold the bytes is found when read", "[data][pickle]") {
  const auto encoded = [](const std::string& text) {
    return global("_codecs", "encode") + tuple({str(text), str("latin1")}) + "R";
  };
  const auto read = [&](const std::string& text) {
    const std::string file = pickled(array_of(dtype("u1"), {3}, encoded(text)));
    return message_of<input_error>([&] {
      const PickleDocument document(view_of(file));
      const auto values = read_doubles(*document.array(document.root()), "a");
      REQUIRE(values == std::vector<double>{0x41, 0xff, 0x80});
    });
  };
  CHECK(read("A\xc3\xbf\xc2\x80") == "no error");
  CHECK(read("A\xc3\xbf\xc2") == "a: its bytes are not latin1 text");
  CHECK(read("A\xc4\x80"
             "B")
            .find("not latin1") != std::string::npos);
  CHECK(read("A\xc3\xbf") == "a: holds fewer bytes than its shape [3] needs");
  CHECK(read("ABCD") == "a: holds more bytes than its shape [3] needs");
}

TEST_CASE("data: older opcodes of protocol 2 are read", "[data][pickle]") {
  // What Python 2 wrote: short strings, decimal numbers, PUT and GET, DICT and LIST with marks.
  const std::string text =
      "\x80\x02(U\x01"
      "a(I7\nL-8L\nF2.5\nI01\np3\nlU\x01"
      "b2U\x01"
      "c"
      "g3\nd.";
  const PickleDocument document(view_of(text));
  const auto items = document.items(document.find(document.root(), "a").value());
  REQUIRE(items);
  REQUIRE(items->size() == 4);
  CHECK(document.number((*items)[0]) == 7.0);
  CHECK(document.number((*items)[1]) == -8.0);
  CHECK(document.number((*items)[2]) == 2.5);
  CHECK(document.integer((*items)[3]) == 1);
  CHECK(document.text(document.find(document.root(), "b").value()) == "b");
  CHECK(document.number(document.find(document.root(), "c").value()) == 1.0);
}

TEST_CASE("data: integers of every length, too long ones unreadable", "[data][pickle]") {
  const std::string text =
      pickled(list({"\x8a\x01\xff", std::string("\x8a\x00", 2), "J\xfe\xff\xff\xff",
                    std::string("\x8b\x02\x00\x00\x00\x00\x01", 7), "M\x01\x02",
                    "\x8a\x09"
                    "123456789"}));
  const PickleDocument document(view_of(text));
  const auto items = *document.items(document.root());
  CHECK(document.integer(items[0]) == -1);
  CHECK(document.integer(items[1]) == 0);
  CHECK(document.integer(items[2]) == -2);
  CHECK(document.integer(items[3]) == 256);
  CHECK(document.integer(items[4]) == 513);
  CHECK_FALSE(document.number(items[5]));
}

TEST_CASE("data: misuse of stack, marks and memo is an input error", "[data][pickle]") {
  for (const std::string& body : {std::string(""),
                                  std::string("0"),
                                  std::string("t"),
                                  std::string("(0"),
                                  std::string("a"),
                                  std::string("Na"),
                                  std::string("]Ne"),
                                  std::string("}N"),
                                  std::string("NNs"),
                                  std::string("}(Nu"),
                                  std::string("(Nd"),
                                  std::string("h\x05"),
                                  std::string("j\x05\0\0\0", 5),
                                  std::string("Nr\xff\xff\xff\x7f"),
                                  std::string("gx\n"),
                                  std::string("Ix\n"),
                                  std::string("Fx\n"),
                                  std::string("R"),
                                  std::string("b"),
                                  std::string("NN\x93"),
                                  std::string("\x8b\xff\xff\xff\xff"),
                                  std::string("\x95\xff\xff\xff\xff\xff\xff\xff\xff"),
                                  std::string("c") + std::string(5000, 'm'),
                                  std::string(2000, '(')}) {
    const std::string message = error_of(pickled(body) + (body == "}N" ? "s" : ""));
    INFO(body << ": " << message);
    CHECK((message.starts_with("file.pkl: ") || body == "}N"));
  }
  CHECK(error_of("no pickle") != "no error");
  CHECK(error_of("\x80\x01N.").find("protocol 1; 2 to 5 are read") != std::string::npos);
}

TEST_CASE("data: deep and self-containing values end", "[data][pickle]") {
  std::string deep = "]";
  for (int i = 0; i < 200000; ++i) deep += "\x85";
  CHECK(error_of(pickled(deep)) == "no error");
  const std::string loop = pickled("]\x94h" + std::string(1, '\0') + "a");
  const PickleDocument document(view_of(loop));
  CHECK(document.items(document.root())->front() == document.root());
}

}  // namespace
