// SPDX-License-Identifier: Apache-2.0
// What scores and layer stages need that read the newest rows of a sequence.
#pragma once

#include <kvevict/core/contract.hpp>
#include <kvevict/core/score_rows.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace contract {

/// The newest rows are the last slots.
inline void expect_tail_window(char const* who, score_rows const& rows) {
  KVEVICT_EXPECTS(rows.positions == nullptr, who,
                  ": the rows are scattered (hole-filling or in-place replacement), so they have no tail window; use "
                  "stable compaction or a score that needs no neighbours");
}

}  // namespace contract

/// The score of a token before the recent ones, else 0, to be summed over a row.
struct before_recent {
  score_rows of;
  constexpr float operator()(row const& in, std::int64_t j) const { return j < in.last ? of.score(in, j) : 0.0f; }
};

}  // namespace KVEVICT_ABI
}  // namespace kvevict
