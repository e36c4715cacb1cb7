// The opcode machine behind PickleDocument: the loop, the source, stack and memo.
#include "data/pickle_machine.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "data/dataset.h"

namespace decalign {
namespace {

constexpr size_t kMaxValues = size_t(1) << 24;
constexpr size_t kLongestLine = 4096;
constexpr uint32_t kNothing = UINT32_MAX;

}  // namespace

void PickleMachine::run() {
  if (document_.source_.bytes.size() < 2) fail("is no pickle");
  if (number(1) != 0x80) {
    position_ = 0;
    fail("is no pickle of protocol 2 to 5");
  }
  const uint64_t protocol = number(1);
  if (protocol < 2 || protocol > 5) {
    fail("has pickle protocol " + std::to_string(protocol) + "; 2 to 5 are read");
  }
  for (;;) {
    const int op = int(number(1));
    if (op == '.') break;
    const bool known = run_constant(op) || run_bytes(op) || run_container(op) || run_memo(op) ||
                       run_object(op) || run_number_text(op);
    if (!known) fail("uses the pickle opcode " + std::to_string(op) + ", which is not read");
  }
  document_.root_ = pop();
}

void PickleMachine::fail(const std::string& what) const {
  throw input_error(document_.source_.name + ": " + what + " (at byte " +
                    std::to_string(position_) + ")");
}

uint64_t PickleMachine::number(int bytes) {
  const std::string_view part = take(uint64_t(bytes));
  uint64_t value = 0;
  std::memcpy(&value, part.data(), part.size());
  return value;
}

std::string_view PickleMachine::take(uint64_t bytes) {
  const uint64_t left = document_.source_.bytes.size() - position_;
  if (bytes > left) {
    fail("is truncated: " + std::to_string(bytes) + " more bytes are needed, " +
         std::to_string(left) + " are left");
  }
  const auto* begin = reinterpret_cast<const char*>(document_.source_.bytes.data()) + position_;
  position_ += bytes;
  return {begin, size_t(bytes)};
}

std::string_view PickleMachine::line() {
  const size_t left = document_.source_.bytes.size() - position_;
  const auto* begin = reinterpret_cast<const char*>(document_.source_.bytes.data()) + position_;
  const std::string_view window(begin, std::min(left, kLongestLine));
  const size_t end = window.find('\n');
  if (end == std::string_view::npos) {
    fail(left < kLongestLine ? "is truncated within a line" : "has an overlong line");
  }
  position_ += end + 1;
  return window.substr(0, end);
}

PickleMachine::Handle PickleMachine::add(Node node) {
  auto& nodes = document_.nodes_;
  if (nodes.size() >= kMaxValues) fail("holds more than 16777216 values");
  nodes.push_back(node);
  return Handle(nodes.size() - 1);
}

void PickleMachine::push_integer(int64_t value) {
  push({PickleKind::kInteger, false, 0, std::bit_cast<uint64_t>(value), 0});
}

void PickleMachine::push_span(PickleKind kind, std::string_view part) {
  const auto* base = reinterpret_cast<const char*>(document_.source_.bytes.data());
  push({kind, false, 0, uint64_t(part.data() - base), part.size()});
}

void PickleMachine::push_list(PickleKind kind, std::vector<Handle> items) {
  document_.lists_.push_back(std::move(items));
  push({kind, false, uint32_t(document_.lists_.size() - 1), 0, 0});
}

void PickleMachine::push_long(std::string_view digits) {
  if (digits.size() > 8) return push({PickleKind::kOther, false, 0, 0, 0});
  const bool negative = !digits.empty() && (uint8_t(digits.back()) & 0x80) != 0;
  uint64_t bits = negative ? ~uint64_t(0) : 0;
  if (!digits.empty()) std::memcpy(&bits, digits.data(), digits.size());
  push_integer(std::bit_cast<int64_t>(bits));
}

PickleMachine::Handle PickleMachine::top() {
  const size_t floor = marks_.empty() ? 0 : marks_.back();
  if (stack_.size() <= floor) fail("takes a value from an empty stack");
  return stack_.back();
}

PickleMachine::Handle PickleMachine::pop() {
  const Handle handle = top();
  stack_.pop_back();
  return handle;
}

std::vector<PickleMachine::Handle> PickleMachine::pop_mark() {
  if (marks_.empty()) fail("closes a mark that is not open");
  const auto begin = stack_.begin() + std::ptrdiff_t(marks_.back());
  std::vector<Handle> items(begin, stack_.end());
  stack_.erase(begin, stack_.end());
  marks_.pop_back();
  return items;
}

void PickleMachine::append(PickleKind kind, const std::vector<Handle>& items) {
  const Node& node = document_.nodes_[top()];
  if (node.kind != kind) fail("adds to something that is no list or dict");
  if (kind == PickleKind::kDict && items.size() % 2 != 0) fail("has a key without a value");
  auto& list = document_.lists_[node.index];
  list.insert(list.end(), items.begin(), items.end());
}

void PickleMachine::memo_put(uint64_t index) {
  // Picklers count up, so an honest index is far below the offset; this bounds the table by the
  // bytes read.
  if (index >= position_) fail("has the memo index " + std::to_string(index) + " out of order");
  if (index >= memo_.size()) memo_.resize(size_t(index) + 1, kNothing);
  memo_[size_t(index)] = top();
}

void PickleMachine::memo_get(uint64_t index) {
  if (index >= memo_.size() || memo_[size_t(index)] == kNothing) {
    fail("asks for the memo index " + std::to_string(index) + ", which is unset");
  }
  stack_.push_back(memo_[size_t(index)]);
}

}  // namespace decalign
