// SPDX-License-Identifier: Apache-2.0
// Where the best of every row end: a score.
#pragma once

#include <cstdint>

#include <kvevict/kernels/select_best.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {

void has_kernel(cut_scores_tag, host&);

/// The score of the quota()-th best evictable token of each active row; 0 where a row is not active or its quota 0.
///
/// Shapes   scores (B·H, N) ragged → (B·H).
/// Cost     select_best's without the write; its scratch.
inline void kernel(cut_scores_tag, host& ctx, score_rows const& s, float* cuts) {
  select::each_row(ctx, s, [&](std::int64_t r, std::uint32_t* keys, std::uint32_t* counts) {
    row const& it = s.rows[r];
    cuts[r] = 0;
    if (!it.active || it.quota() == 0) return;
    float const* const x = s.values + s.begin[r];
    if (s.positions == nullptr) {
      cuts[r] = float_of_key(
          select::best_of_scores(x + it.first, it.last - it.first, it.quota(), it.known, keys, counts).key);
      return;
    }
    std::int64_t n = 0;
    for (std::int64_t j = 0; j < it.tokens; ++j)
      if (s.evictable(r, j)) keys[n++] = order_key(x[j]);
    cuts[r] = float_of_key(radix::best(keys, n, it.quota(), counts).key);
  });
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
