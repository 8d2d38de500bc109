// SPDX-License-Identifier: Apache-2.0
// How many tokens of each row pass a threshold.
#pragma once

#include <kvevict/core/host.hpp>
#include <kvevict/core/score_rows.hpp>
#include <kvevict/kernels/kernel.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {

void has_kernel(count_above_tag, host&);

/// counts[r] = evictable tokens of row r with a score above the threshold; 0 for inactive rows. O(N), no scratch.
inline void kernel(count_above_tag, host& ctx, score_rows const& s, float threshold, std::int32_t* counts) {
  ctx.for_each(
      s.count(),
      [&](std::int64_t r, std::int32_t) {
        row const& it = s.rows[r];
        float const* const x = s.values + s.begin[r];
        std::int32_t n = 0;
        if (it.active && s.positions == nullptr)
          for (std::int32_t j = it.first; j < it.last; ++j) n += x[j] > threshold;
        else if (it.active)
          for (std::int32_t j = 0; j < it.tokens; ++j) n += s.evictable(r, j) && x[j] > threshold;
        counts[r] = n;
      },
      s.begin[s.count()] / 4);
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
