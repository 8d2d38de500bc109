// SPDX-License-Identifier: Apache-2.0
// What a plan returns: the tokens that stay, and nothing about how they are moved.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include <kvevict/cache/fingerprint.hpp>
#include <kvevict/core/contract.hpp>
#include <kvevict/core/messages.hpp>
#include <kvevict/core/slice.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// Ragged rows of ascending slots, of the view that was planned on; row b·heads + h. Owns its memory;
/// `plan(…, out)` reuses it.
struct keep_set {
  std::int32_t sequences = 0, heads = 0;
  std::vector<std::int32_t> tokens;     // (Σ kept)
  std::vector<std::int64_t> row_begin;  // (B·H + 1)
  std::vector<std::int32_t> lengths;    // (B·H) physical length of each row when it was planned
  fingerprint made_for = {};            // the cache that it was planned on
  bool refused = false;  // the plan that was to fill it was refused or has failed: what is here means nothing

  std::int64_t rows() const { return std::int64_t{sequences} * heads; }
  slice<std::int32_t const> row(std::int64_t r) const {
    if (refused) messages::keep_set_refused("keep_set");
    auto const i = static_cast<std::size_t>(r);
    return {tokens.data() + row_begin[i], row_begin[i + 1] - row_begin[i]};
  }
  slice<std::int32_t const> operator()(std::int32_t b, std::int32_t h) const {
    return row(std::int64_t{b} * heads + h);
  }
  std::int64_t kept() const { return static_cast<std::int64_t>(tokens.size()); }
  bool is_identity() const {
    for (std::int64_t r = 0; r < rows(); ++r)
      if (row(r).size != lengths[static_cast<std::size_t>(r)]) return false;
    return true;
  }
};

namespace contract {

/// The plan was not refused, and the arrays are those of the rows; O(rows).
inline void expect_rows(char const* verb, keep_set const& keep) {
  if (keep.refused) messages::keep_set_refused(verb);
  auto const rows = static_cast<std::size_t>(keep.rows());
  KVEVICT_EXPECTS(keep.sequences >= 0 && keep.heads >= 0 && keep.row_begin.size() == rows + 1 &&
                      keep.lengths.size() == rows && keep.row_begin[0] == 0 && keep.row_begin[rows] == keep.kept() &&
                      std::is_sorted(keep.row_begin.begin(), keep.row_begin.end()),
                  verb, ": the keep set's row_begin and lengths do not describe its tokens; fill them as plan() does");
}

}  // namespace contract
}  // namespace KVEVICT_ABI
}  // namespace kvevict
