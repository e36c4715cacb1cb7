// What feed_forward asks of its arguments, on every backend.
#pragma once

#include "kernels/feed_forward.h"

namespace decalign::inline DECALIGN_REAL {

inline void check_feed_forward(const FeedForwardShape& s, std::span<const FeedForwardGroup> groups,
                               bool backward) {
  expect(s.rows >= 0 && s.width >= 0 && s.hidden >= 0, "feed_forward: negative size");
  expect(s.dropout.threshold() < 65536, "feed_forward: dropout rate must be below 1");
  expect(!s.dropout.on() || s.dropout.state || backward,
         "feed_forward: dropout needs a random state");
  const auto fits = [](In span, int64_t size) { return span.empty() || std::ssize(span) == size; };
  const int64_t size = s.hidden * s.width;
  int64_t next = 0;
  for (const FeedForwardGroup& g : groups) {
    expect(g.rows >= 0 && g.row == next, "feed_forward: the groups do not cover the rows in order");
    next += g.rows;
    expect(std::ssize(g.weight1) == size, "feed_forward: weight1 must be [hidden, width]");
    expect(std::ssize(g.weight2) == size, "feed_forward: weight2 must be [width, hidden]");
    expect(fits(g.bias1, s.hidden), "feed_forward: bias1 must be [hidden]");
    expect(fits(g.bias2, s.width), "feed_forward: bias2 must be [width]");
    if (!backward) continue;
    expect(fits(g.dweight1, size), "feed_forward: dweight1 must be [hidden, width]");
    expect(fits(g.dweight2, size), "feed_forward: dweight2 must be [width, hidden]");
    expect(fits(g.dbias1, s.hidden), "feed_forward: dbias1 must be [hidden]");
    expect(fits(g.dbias2, s.width), "feed_forward: dbias2 must be [width]");
  }
  expect(next == s.rows, "feed_forward: the groups do not cover the rows in order");
}

inline void check_feed_forward_forward(const FeedForwardShape& s,
                                       std::span<const FeedForwardGroup> groups, In x, Out h, Out y,
                                       Scratch scratch, size_t scratch_bytes) {
  check_feed_forward(s, groups, false);
  expect(std::ssize(x) == s.rows * s.width, "feed_forward: x must be [rows, width]");
  expect(std::ssize(h) == s.rows * s.hidden, "feed_forward: h must be [rows, hidden]");
  expect(std::ssize(y) == s.rows * s.width, "feed_forward: y must be [rows, width]");
  expect(scratch.size() >= scratch_bytes, "feed_forward: scratch too small");
}

inline void check_feed_forward_backward(const FeedForwardShape& s,
                                        std::span<const FeedForwardGroup> groups, In x, In h, In dy,
                                        InOut dx, Scratch scratch, size_t scratch_bytes) {
  check_feed_forward(s, groups, true);
  expect(std::ssize(x) == s.rows * s.width, "feed_forward: x must be [rows, width]");
  expect(std::ssize(h) == s.rows * s.hidden, "feed_forward: h must be [rows, hidden]");
  expect(std::ssize(dy) == s.rows * s.width, "feed_forward: dy must be [rows, width]");
  expect(dx.empty() || dx.size() == x.size(), "feed_forward: dx must be [rows, width]");
  expect(scratch.size() >= scratch_bytes, "feed_forward: scratch too small");
}

}  // namespace decalign::inline DECALIGN_REAL
