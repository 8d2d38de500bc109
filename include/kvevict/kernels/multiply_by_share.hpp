// SPDX-License-Identifier: Apache-2.0
// Host kernel: a row of scores times another row's share of its maximum.
#pragma once

#include <kvevict/core/score_rows.hpp>
#include <kvevict/kernels/kernel.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {

void has_kernel(multiply_by_share_tag, host&);

/// scores[j] *= share[j] / max share over all tokens of the row; a maximum of 0 leaves the scores alone. Shares are not
/// negative; a NaN share makes NaN scores. No scratch.
inline void kernel(multiply_by_share_tag, host& ctx, score_rows const& share, score_rows const& out) {
  ctx.for_each(
      out.count(),
      [&](std::int64_t r, std::int32_t) {
        std::int32_t const n = out.rows[r].tokens;
        if (!out.rows[r].active || n == 0) return;
        float const* gamma = share.scores(r).data;
        float* scores = out.scores(r).data;
        float most = 0;
        for (std::int32_t j = 0; j < n; ++j) most = larger_or_nan(gamma[j], most);
        if (most == 0) return;
        for (std::int32_t j = 0; j < n; ++j) scores[j] *= gamma[j] / most;
      },
      out.begin[out.count()] / 4);
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
