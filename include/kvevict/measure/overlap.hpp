// SPDX-License-Identifier: Apache-2.0
// How far two keep sets agree.
#pragma once

#include <cstdint>

#include <kvevict/cache/keep_set.hpp>
#include <kvevict/core/messages.hpp>
#include <kvevict/measure/numbers.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace measure {

/// Both are of a cache of the same shape and lengths.
inline void expect_alike(keep_set const& a, keep_set const& b) {
  contract::expect_rows("overlap", a), contract::expect_rows("overlap", b);
  KVEVICT_EXPECTS(a.sequences == b.sequences && a.heads == b.heads, "overlap: keep sets of ", a.sequences,
                  " sequences with ", a.heads, " heads and of ", b.sequences, " with ", b.heads,
                  "; compare plans of one cache");
  for (std::size_t r = 0; r < a.lengths.size(); ++r)
    KVEVICT_EXPECTS(a.lengths[r] == b.lengths[r], "overlap: ",
                    messages::row(static_cast<std::int64_t>(r) / a.heads, static_cast<std::int64_t>(r) % a.heads),
                    " has ", a.lengths[r], " tokens in one keep set and ", b.lengths[r],
                    " in the other; compare plans of one cache");
}

/// Of every row the tokens that both keep, among those that either keeps: |A ∩ B| / |A ∪ B|; 1 where neither keeps any.
///
/// Shapes   two keep sets of B·H rows → (B·H); `mean()` is that of all tokens, Σ|A ∩ B| / Σ|A ∪ B|.
/// Errors   contract_violation: a keep set that was refused, or is not as plan() fills it; one of another shape.
inline numbers overlaps(keep_set const& a, keep_set const& b) {
  expect_alike(a, b);
  numbers out = numbers_of(a.sequences, a.heads);
  for (std::int64_t r = 0; r < a.rows(); ++r) {
    slice<std::int32_t const> const x = a.row(r), y = b.row(r);
    std::int64_t both = 0;
    for (std::int64_t i = 0, j = 0; i < x.size && j < y.size;) {
      bool const behind = x[i] < y[j], before = y[j] < x[i];
      both += !behind && !before, i += !before, j += !behind;
    }
    auto const at = static_cast<std::size_t>(r);
    out.weights[at] = static_cast<double>(x.size + y.size - both);
    out.of_rows[at] = out.weights[at] == 0 ? 1 : static_cast<double>(both) / out.weights[at];
  }
  return out;
}
inline double overlap(keep_set const& a, keep_set const& b) { return overlaps(a, b).mean(); }

}  // namespace measure
}  // namespace KVEVICT_ABI
}  // namespace kvevict
