// SPDX-License-Identifier: Apache-2.0
// Budgets and protected tokens where pages are kept whole (select::pages): which pages stay in any case, how many fit.
// A page of 1 token is a token: then this is what a plan does to tokens.
#pragma once

#include <algorithm>
#include <cstdint>

#include <kvevict/core/abi.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace planning {

/// Full pages that a budget holds beside the tokens of part-filled last pages, which stay.
constexpr std::int64_t pages_within(std::int64_t budget, std::int64_t rests, std::int32_t page) {
  return std::max<std::int64_t>(0, budget - rests) / page;
}

/// Tokens of all pages with one of the `front` first or `back` newest tokens, and of the part-filled last page: at
/// most, however long the row is.
constexpr std::int64_t most_protected(std::int64_t front, std::int64_t back, std::int32_t page) {
  return (front + page - 1) / page * page + back + page - 1;
}

/// What is protected at the two ends of a row, in tokens.
struct row_ends {
  std::int32_t front, back;
};

/// The ends of a row of that many tokens, in whole pages: all with a protected token, and the part-filled last one. Of
/// `back` what is more than `recent` is a share of the budget and takes the pages that this has left.
constexpr row_ends page_ends(row_ends tokens, std::int32_t recent, std::int32_t asked, std::int32_t n,
                             std::int32_t page) {
  std::int64_t const full = n / page, rest = n % page;
  std::int64_t const front = std::min((std::int64_t{tokens.front} + page - 1) / page, full),
                     left = std::max<std::int64_t>(0, pages_within(asked, rest, page) - front);
  std::int64_t const back = std::max<std::int64_t>(recent, std::min<std::int64_t>(tokens.back, left * page + rest));
  std::int64_t const last = std::max(front, std::max<std::int64_t>(0, n - back) / page);
  return {static_cast<std::int32_t>(front * page), static_cast<std::int32_t>(n - last * page)};
}

}  // namespace planning
}  // namespace KVEVICT_ABI
}  // namespace kvevict
