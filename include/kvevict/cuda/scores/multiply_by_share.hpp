// SPDX-License-Identifier: Apache-2.0
// A row of scores times another row's share of its maximum, on a device.
#pragma once

#include <kvevict/cuda/evidence/rows.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

void has_kernel(kernels::multiply_by_share_tag, device&);

/// One block per row: the maximum, then the products.
///
/// Shapes   share (B·H, N), scores (B·H, N) → scores (B·H, N).
struct multiply_by_share_kernel {
  static constexpr int max_threads = 1024;
  watched watch;
  score_rows share, out;

  KVEVICT_DEVICE void operator()(thread& t) const {
    if (watch.stopped(t)) return;
    std::int64_t const r = t.block().x;
    row const& it = out.rows[r];
    if (!it.active) return;
    KVEVICT_SHARED(t, float, most, 32);
    float const* const gamma = share.values + share.begin[r];
    float mine = 0;  // squared norms are not negative
    for (std::int64_t j = t.linear_index(); j < it.tokens; j += t.block_size().x) mine = larger_or_nan(gamma[j], mine);
    mine = larger_of_warp(t, mine);
    if (t.lane() == 0) most[t.warp()] = mine;
    t.sync_block();
    mine = larger_of_warp(t, t.lane() < t.block_size().x / warp_size ? most[t.lane()] : 0.0f);
    if (mine == 0) return;
    constexpr int deep = 4;  // tokens of a thread, read at once
    float* const values = out.values + out.begin[r];
    for (std::int64_t j = t.linear_index(), step = t.block_size().x; j < it.tokens; j += deep * step) {
      float x[deep], of[deep];
      KVEVICT_UNROLL
      for (int i = 0; i < deep; ++i) {
        bool const here = j + i * step < it.tokens;
        x[i] = here ? values[j + i * step] : 0.0f, of[i] = here ? gamma[j + i * step] : 0.0f;
      }
      KVEVICT_UNROLL
      for (int i = 0; i < deep; ++i)
        if (j + i * step < it.tokens) values[j + i * step] = x[i] * (of[i] / mine);
    }
  }

 private:
  KVEVICT_DEVICE static float larger_of_warp(thread& t, float x) {
    for (std::uint32_t d = warp_size / 2; d != 0; d /= 2) x = larger_or_nan(shuffle_xor(t, x, d), x);
    return x;
  }
};

/// scores[j] *= share[j] / max share over all tokens of the row; a maximum of 0 leaves the scores alone. Shares are not
/// negative; NaN shares make NaN scores. One launch, a block per row.
inline void kernel(kernels::multiply_by_share_tag, device& ctx, score_rows const& share, score_rows const& out) {
  ctx.launch({static_cast<std::uint32_t>(out.count())}, {threads_for(out.most_tokens, 4)}, 0,
             multiply_by_share_kernel{ctx.watch(), share, out});
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda
