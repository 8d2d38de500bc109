// SPDX-License-Identifier: Apache-2.0
// Kept tokens leave the evictable interval, so that what chooses next does not see them.
#pragma once

#include <cstdint>
#include <limits>

#include <kvevict/cache/keep_set.hpp>
#include <kvevict/core/host.hpp>
#include <kvevict/core/score_rows.hpp>
#include <kvevict/kernels/kernel.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {

void has_kernel(mark_kept_tag, host&);

/// The order of a token that is kept: before every evictable one, whatever its score.
inline constexpr std::int32_t order_of_kept = std::numeric_limits<std::int32_t>::min();

/// orders[r,j] = the order of token j of row r, of kept ones order_of_kept. Of rows of pages: of pages.
///
/// Shapes   rows (B·H, N), their keep set → orders (B·H, N); in place where the rows' own positions are given.
/// Cost     a write of the orders and a read of what is kept; one worker per row; no scratch.
inline void kernel(mark_kept_tag, host& ctx, score_rows const& s, keep_set const& keep, std::int32_t* orders) {
  ctx.for_each(
      s.count(),
      [&](std::int64_t r, std::int32_t) {
        row const& it = s.rows[r];
        if (!it.active) return;
        std::int32_t* const to = orders + s.begin[r];
        for (std::int32_t j = 0; j < it.tokens; ++j) to[j] = s.order(r, j);
        auto const i = static_cast<std::size_t>(r);
        for (std::int64_t k = keep.row_begin[i]; k < keep.row_begin[i + 1]; ++k)
          if (std::int32_t const j = keep.tokens[static_cast<std::size_t>(k)] / s.page_size; j < it.tokens)
            to[j] = order_of_kept;
      },
      s.begin[s.count()]);
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
