// SPDX-License-Identifier: Apache-2.0
// How the scores of each row are distributed, on the host.
#pragma once

#include <cstdint>

#include <kvevict/core/fill.hpp>
#include <kvevict/core/host.hpp>
#include <kvevict/core/score_histogram.hpp>
#include <kvevict/core/score_rows.hpp>
#include <kvevict/kernels/kernel.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {

void has_kernel(score_histograms_tag, host&);

/// Evictable scores of each active row by score_histogram::bucket_of; zeros for the others.
///
/// Shapes   scores (B·H, N) → histograms (B·H, buckets).
/// Cost     one read of the scores; no scratch.
inline void kernel(score_histograms_tag, host& ctx, score_rows const& s, std::uint32_t* histograms) {
  ctx.for_each(
      s.count(),
      [&](std::int64_t r, std::int32_t) {
        std::uint32_t* const counts = histograms + r * score_histogram::buckets;
        kvevict::fill_n(counts, score_histogram::buckets, 0u);
        row const& it = s.rows[r];
        for (std::int32_t j = 0; it.active && j < it.tokens; ++j)
          if (s.evictable(r, j)) ++counts[score_histogram::bucket_of(order_key(s.values[s.begin[r] + j]))];
      },
      s.total_floats);
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
