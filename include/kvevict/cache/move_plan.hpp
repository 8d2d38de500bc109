// SPDX-License-Identifier: Apache-2.0
// A compaction as data: it can be inspected, serialised, or handed to an engine's own copy operation before anything
// moves.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include <kvevict/cache/fingerprint.hpp>
#include <kvevict/cache/layer_view.hpp>
#include <kvevict/core/contract.hpp>
#include <kvevict/core/messages.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// How kept tokens fill the front of their row.
enum class compaction : std::uint8_t {
  stable,  // ascending sources, destination ≤ source: a forward copy needs no scratch; the order of positions stays
  fill_holes,  // the fewest moves: tail tokens into the holes, sources and destinations disjoint; rows become scattered
};

/// Row r = b·heads + h moves slots sources[i] → destinations[i], i in [row_begin[r], row_begin[r+1]), one after the
/// other.
struct move_plan {
  std::int32_t sequences = 0, heads = 0;
  std::vector<std::int32_t> sources, destinations;  // (Σ moves) slots
  std::vector<std::int64_t> row_begin;              // (B·H + 1)
  std::vector<std::int32_t> lengths_before;         // (B·H)
  std::vector<std::int32_t> lengths;                // (B·H) physical lengths afterwards
  row_order order = row_order::ascending;           // of the rows afterwards
  fingerprint made_for = {};                        // the cache that it was planned on
  bool refused = false;  // the call that was to fill it was refused or has failed: what is here means nothing

  std::int64_t rows() const { return std::int64_t{sequences} * heads; }
  std::int64_t moves() const { return static_cast<std::int64_t>(sources.size()); }
};

namespace contract {

/// The plan was not refused, and the arrays are those of the rows; O(rows).
inline void expect_rows(char const* verb, move_plan const& plan) {
  if (plan.refused) messages::move_plan_refused(verb);
  auto const rows = static_cast<std::size_t>(plan.rows());
  KVEVICT_EXPECTS(plan.sequences >= 0 && plan.heads >= 0 && plan.row_begin.size() == rows + 1 &&
                      plan.lengths.size() == rows && plan.lengths_before.size() == rows &&
                      plan.destinations.size() == plan.sources.size() && plan.row_begin[0] == 0 &&
                      plan.row_begin[rows] == plan.moves() &&
                      std::is_sorted(plan.row_begin.begin(), plan.row_begin.end()),
                  verb, ": the plan's row_begin and lengths do not describe its moves; fill them as plan_moves() does");
}

}  // namespace contract
}  // namespace KVEVICT_ABI
}  // namespace kvevict
