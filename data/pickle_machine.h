// The opcode machine behind PickleDocument: stack, marks, memo; numpy's constructors as data, not
// as calls.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "data/pickle.h"

namespace decalign {

/// Fills a PickleDocument from its source. Every stack access and every read is checked; any fault
/// is an input_error.
class PickleMachine {
 public:
  explicit PickleMachine(PickleDocument& document) : document_(document) {}

  /// Runs until STOP and sets the document's root.
  void run();

 private:
  using Handle = PickleDocument::Handle;
  using Node = PickleDocument::Node;
  enum Callable : uint32_t { kReconstruct, kNdarray, kDTypeClass, kScalar, kFromBuffer, kEncode };

  // Opcodes by family; each returns false if `op` is none of its own.
  bool run_constant(int op);
  bool run_number_text(int op);
  bool run_bytes(int op);
  bool run_container(int op);
  bool run_memo(int op);
  bool run_object(int op);

  // Source.
  uint64_t number(int bytes);
  std::string_view take(uint64_t bytes);
  std::string_view line();
  [[noreturn]] void fail(const std::string& what) const;

  // Stack.
  Handle add(Node node);
  void push(Node node) { stack_.push_back(add(node)); }
  void push_integer(int64_t value);
  void push_span(PickleKind kind, std::string_view part);
  void push_list(PickleKind kind, std::vector<Handle> items);
  void push_long(std::string_view digits);
  Handle pop();
  Handle top();
  std::vector<Handle> pop_mark();
  void append(PickleKind kind, const std::vector<Handle>& items);
  void memo_put(uint64_t index);
  void memo_get(uint64_t index);

  // Objects (pickle_numpy.cpp).
  void push_callable(std::string_view module, std::string_view name);
  [[noreturn]] void refuse(std::string_view module, std::string_view name) const;
  void reduce();
  void build();
  void build_array(Handle array, const std::vector<Handle>& state);
  void build_dtype(Handle dtype, const std::vector<Handle>& state);
  void make_dtype(const std::vector<Handle>& arguments);
  void make_scalar(const std::vector<Handle>& arguments);
  void make_from_buffer(const std::vector<Handle>& arguments);
  void make_encoded(const std::vector<Handle>& arguments);
  void push_array(DType dtype, std::vector<int64_t> shape, bool fortran, Handle data);
  void check_data(const PickleDocument::Array& array) const;
  std::vector<int64_t> shape_of(Handle tuple) const;
  const DType& dtype_of(Handle handle) const;
  const std::vector<Handle>& list_of(Handle handle, const char* what) const;
  std::string_view text_of(Handle handle, const char* what) const;
  bool is_callable(Handle handle, Callable callable) const;

  PickleDocument& document_;
  size_t position_ = 0;
  std::vector<Handle> stack_;
  std::vector<size_t> marks_;  // stack heights
  std::vector<Handle> memo_;   // kNothing where unset
};

}  // namespace decalign
