// SPDX-License-Identifier: Apache-2.0
// Key diversity while decoding, naively: sums over all keys that came, scores as they were then.
#pragma once

#include "support/reference_keys.hpp"

namespace support {

/// Of one head: the score of every token after each pass of rows.
class running_scores {
 public:
  running_scores(reference::layer const& in, std::size_t head, std::size_t refresh)
      : in_(in), head_(head), refresh_(refresh), sum_(in.keys.width, 0.0) {}

  /// Tokens [from, to) come; all of [0, to) are scored anew where the sequence passes a multiple of `refresh`.
  void observe(std::size_t from, std::size_t to) {
    for (std::size_t t = from; t < to; ++t) {
      auto const k = reference::token_row(in_.keys, head_, t);
      double const n = reference::norm(k);
      for (std::size_t d = 0; d < sum_.size() && n > 0; ++d) sum_[d] += k[d] / n;
    }
    bool const due = refresh_ != 0 && (from == 0 || (to - 1) / refresh_ != (from - 1) / refresh_);
    score_.resize(to);
    for (std::size_t t = due ? 0 : from; t < to; ++t) {
      auto const k = reference::token_row(in_.keys, head_, t);
      double product = 0;
      for (std::size_t d = 0; d < sum_.size(); ++d) product += k[d] * sum_[d];
      score_[t] = -product / (reference::norm(k) * reference::norm(sum_));
    }
  }
  [[nodiscard]] double operator()(std::size_t position) const { return score_.at(position); }

 private:
  reference::layer const& in_;
  std::size_t head_, refresh_;
  reference::row sum_, score_;
};

}  // namespace support
