// SPDX-License-Identifier: Apache-2.0
// Rows that declare what they hold: checked before anything is written.
#pragma once

#include <cstdint>

#include <kvevict/core/abi.hpp>
#include <kvevict/core/contract.hpp>
#include <kvevict/core/score_rows.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {
/// Row r has one score per token and, when active, as many candidates as its interval of ranks holds.
inline void expect_candidates(char const* verb, score_rows const& s, std::int64_t r) {
  row const& it = s.rows[r];
  KVEVICT_EXPECTS(it.tokens >= 0 && s.begin[r + 1] - s.begin[r] == it.tokens, verb, ": sequence ", it.sequence,
                  ", head ", it.head, " has ", it.tokens, " tokens but ", s.begin[r + 1] - s.begin[r],
                  " scores; give one score per token");
  if (!it.active) return;
  std::int64_t found =
      it.first < 0 || it.first > it.last || it.last > it.tokens ? -1 : std::int64_t{it.last} - it.first;
  if (s.positions != nullptr) found = s.count_evictable(r);
  KVEVICT_EXPECTS(found == it.candidates, verb, ": sequence ", it.sequence, ", head ", it.head, " declares ",
                  it.candidates, " evictable tokens, but the ranks from ", it.first, " to ", it.last,
                  " are not that many; count them again");
}

/// The budget of row r lies between its protected tokens and all of them.
inline void expect_budget(char const* verb, score_rows const& s, std::int64_t r) {
  row const& it = s.rows[r];
  KVEVICT_EXPECTS(!it.active || (it.quota() >= 0 && it.quota() <= it.candidates), verb, ": the budget ", it.budget,
                  " of sequence ", it.sequence, ", head ", it.head, " is not between its ", it.protected_tokens(),
                  " protected and its ", it.tokens, " tokens; give the row a budget inside, or protect less");
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
