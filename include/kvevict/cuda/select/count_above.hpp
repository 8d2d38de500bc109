// SPDX-License-Identifier: Apache-2.0
// How many tokens of each row pass a threshold, on a device.
#pragma once

#include <kvevict/cuda/context/device.hpp>
#include <kvevict/cuda/context/row_grid.hpp>
#include <kvevict/kernels/kernel.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

void has_kernel(kernels::count_above_tag, device&);

/// Shapes   scores (B·H, N) → counts (B·H).
struct count_above_kernel {
  static constexpr int max_threads = 256;
  watched watch;
  score_rows s;
  float threshold;
  std::int32_t* counts;
  std::uint32_t chunks;

  KVEVICT_DEVICE void operator()(thread& t) const {
    if (watch.stopped(t)) return;
    std::int64_t r, j = token_of(t, s, chunks, r);
    std::uint32_t const above = ballot(t, j >= 0 && s.evictable(r, j) && s.values[s.begin[r] + j] > threshold);
    if (t.lane() == 0 && above != 0) atomic_add(t, &counts[r], count_bits(above));
  }
};

/// counts[r] = evictable tokens of row r with a score above the threshold; 0 for inactive rows. One read of the scores.
inline void kernel(kernels::count_above_tag, device& ctx, score_rows const& s, float threshold, std::int32_t* counts) {
  std::uint32_t const chunks = blocks_for(s.most_tokens, 256);
  ctx.zero("counts", counts, static_cast<std::size_t>(s.count()) * sizeof *counts);
  ctx.launch({static_cast<std::uint32_t>(s.count()) * chunks}, {256}, 0,
             count_above_kernel{ctx.watch(), s, threshold, counts, chunks});
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda
