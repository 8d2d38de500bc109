// SPDX-License-Identifier: Apache-2.0
// The heads stage: how a layer's budget is divided among the KV heads of a sequence.
#pragma once

#include <kvevict/core/score_rows.hpp>
#include <kvevict/core/stage.hpp>

namespace kvevict {
inline namespace v0 {
namespace heads {

/// Every head keeps the same number of tokens.
struct uniform {
  using stage = stages::heads;
  static constexpr bool equal_counts = true;
  template <class Context> void operator()(Context&, score_rows&) const {}
};

}  // namespace heads

namespace contract {

/// Σ over the heads of sequence b of budget − protected: the tokens that its scores compete for.
inline std::int64_t pooled_quota(score_rows const& rows, std::int32_t b) {
  std::int64_t sum = 0;
  for (std::int32_t h = 0; h < rows.heads; ++h) sum += rows.rows[std::int64_t{b} * rows.heads + h].quota();
  return sum;
}

}  // namespace contract
}  // namespace v0
}  // namespace kvevict
