// The opcodes of plain values: constants, numbers, text, bytes, containers, memo.
#include <bit>
#include <charconv>

#include "data/pickle_machine.h"

namespace decalign {
namespace {

constexpr size_t kMaxMarks = 1024;

}  // namespace

bool PickleMachine::run_constant(int op) {
  switch (op) {
    case 0x95: {  // FRAME: only a hint for buffered readers
      const uint64_t length = number(8);
      if (length > document_.source_.bytes.size() - position_) {
        fail("is truncated within a frame of " + std::to_string(length) + " bytes");
      }
      return true;
    }
    case 'N':  // NONE
      push({});
      return true;
    case 0x88:  // NEWTRUE
    case 0x89:  // NEWFALSE
      push({PickleKind::kBoolean, false, 0, uint64_t(op == 0x88), 0});
      return true;
    case 'K':  // BININT1
      push_integer(int64_t(number(1)));
      return true;
    case 'M':  // BININT2
      push_integer(int64_t(number(2)));
      return true;
    case 'J':  // BININT
      push_integer(int32_t(uint32_t(number(4))));
      return true;
    case 0x8a:  // LONG1
      push_long(take(number(1)));
      return true;
    case 0x8b: {  // LONG4
      const auto length = int32_t(uint32_t(number(4)));
      if (length < 0) fail("has an integer of negative length");
      push_long(take(uint64_t(length)));
      return true;
    }
    case 'G':  // BINFLOAT, big-endian
      push({PickleKind::kReal, false, 0, __builtin_bswap64(number(8)), 0});
      return true;
    default:
      return false;
  }
}

bool PickleMachine::run_number_text(int op) {
  if (op != 'I' && op != 'L' && op != 'F') return false;
  std::string_view text = line();
  if (op == 'I' && (text == "00" || text == "01")) {
    push({PickleKind::kBoolean, false, 0, uint64_t(text == "01"), 0});
    return true;
  }
  if (op == 'L' && text.ends_with('L')) text.remove_suffix(1);
  const char* end = text.data() + text.size();
  if (op == 'F') {
    double value = 0.0;
    const auto [stop, error] = std::from_chars(text.data(), end, value);
    if (error != std::errc() || stop != end) fail("has a malformed number");
    push({PickleKind::kReal, false, 0, std::bit_cast<uint64_t>(value), 0});
    return true;
  }
  int64_t value = 0;
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stop != end) fail("has a malformed number");
  push_integer(value);
  return true;
}

bool PickleMachine::run_bytes(int op) {
  auto push_bytes = [&](PickleKind kind, int length_bytes) {
    const uint64_t length = number(length_bytes);
    push_span(kind, take(length));
    return true;
  };
  switch (op) {
    case 0x8c:  // SHORT_BINUNICODE
      return push_bytes(PickleKind::kText, 1);
    case 'X':  // BINUNICODE
      return push_bytes(PickleKind::kText, 4);
    case 0x8d:  // BINUNICODE8
      return push_bytes(PickleKind::kText, 8);
    case 'U':  // SHORT_BINSTRING
    case 'C':  // SHORT_BINBYTES
      return push_bytes(PickleKind::kBytes, 1);
    case 'T':  // BINSTRING
    case 'B':  // BINBYTES
      return push_bytes(PickleKind::kBytes, 4);
    case 0x8e:  // BINBYTES8
    case 0x96:  // BYTEARRAY8
      return push_bytes(PickleKind::kBytes, 8);
    default:
      return false;
  }
}

bool PickleMachine::run_container(int op) {
  switch (op) {
    case '(':  // MARK
      if (marks_.size() >= kMaxMarks) fail("is nested deeper than 1024");
      marks_.push_back(stack_.size());
      return true;
    case ')':   // EMPTY_TUPLE
    case ']':   // EMPTY_LIST
    case 0x8f:  // EMPTY_SET
      push_list(PickleKind::kList, {});
      return true;
    case '}':  // EMPTY_DICT
      push_list(PickleKind::kDict, {});
      return true;
    case 't':   // TUPLE
    case 'l':   // LIST
    case 0x91:  // FROZENSET
      push_list(PickleKind::kList, pop_mark());
      return true;
    case 'd': {  // DICT
      std::vector<Handle> items = pop_mark();
      if (items.size() % 2 != 0) fail("has a key without a value");
      push_list(PickleKind::kDict, std::move(items));
      return true;
    }
    case 0x85:    // TUPLE1
    case 0x86:    // TUPLE2
    case 0x87: {  // TUPLE3
      std::vector<Handle> items(size_t(op - 0x84));
      for (size_t i = items.size(); i-- > 0;) items[i] = pop();
      push_list(PickleKind::kList, std::move(items));
      return true;
    }
    case 'a': {  // APPEND
      const Handle item = pop();
      append(PickleKind::kList, {item});
      return true;
    }
    case 'e':   // APPENDS
    case 0x90:  // ADDITEMS
      append(PickleKind::kList, pop_mark());
      return true;
    case 's': {  // SETITEM
      const Handle value = pop();
      const Handle key = pop();
      append(PickleKind::kDict, {key, value});
      return true;
    }
    case 'u':  // SETITEMS
      append(PickleKind::kDict, pop_mark());
      return true;
    default:
      return false;
  }
}

bool PickleMachine::run_memo(int op) {
  switch (op) {
    case 0x94:  // MEMOIZE
      memo_put(memo_.size());
      return true;
    case 'q':  // BINPUT
      memo_put(number(1));
      return true;
    case 'r':  // LONG_BINPUT
      memo_put(number(4));
      return true;
    case 'h':  // BINGET
      memo_get(number(1));
      return true;
    case 'j':  // LONG_BINGET
      memo_get(number(4));
      return true;
    case 'p':    // PUT
    case 'g': {  // GET
      const std::string_view text = line();
      uint64_t index = 0;
      const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), index);
      if (error != std::errc() || stop != text.data() + text.size()) fail("has a malformed memo");
      op == 'p' ? memo_put(index) : memo_get(index);
      return true;
    }
    case '2':  // DUP
      stack_.push_back(top());
      return true;
    case '0':  // POP
      pop();
      return true;
    case '1':  // POP_MARK
      pop_mark();
      return true;
    default:
      return false;
  }
}

}  // namespace decalign
