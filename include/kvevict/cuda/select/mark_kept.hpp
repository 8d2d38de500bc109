// SPDX-License-Identifier: Apache-2.0
// Kept tokens leave the evictable interval, on a device.
#pragma once

#include <algorithm>

#include <kvevict/cuda/context/keep_set.hpp>
#include <kvevict/cuda/context/row_grid.hpp>
#include <kvevict/kernels/kernel.hpp>
#include <kvevict/kernels/mark_kept.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

void has_kernel(kernels::mark_kept_tag, device&);

/// One block per row.
///
/// Shapes   rows (B·H, N), kept tokens (B·H, stride) → orders (B·H, N).
struct mark_kept_kernel {
  static constexpr int max_threads = 256;
  watched watch;
  score_rows s;
  keep_arrays keep;
  std::int32_t* orders;

  KVEVICT_DEVICE void operator()(thread& t) const {
    if (watch.stopped(t)) return;
    std::int64_t const r = t.block().x;
    row const& it = s.rows[r];
    if (!it.active) return;
    auto const first = static_cast<std::int32_t>(t.linear_index()), step = static_cast<std::int32_t>(t.block_size().x);
    std::int32_t* const to = orders + s.begin[r];
    for (std::int32_t j = first; j < it.tokens; j += step) to[j] = s.order(r, j);
    t.sync_block();
    std::int32_t const* const kept = keep.tokens + r * keep.stride;
    for (std::int32_t k = first; k < keep.counts[r]; k += step) {
      std::int32_t const j = kept[k] / s.page_size;
      if (kept[k] % s.page_size == 0 && j < it.tokens) to[j] = kernels::order_of_kept;  // a page's first token marks it
    }
  }
};

/// The host's (kernels/mark_kept.hpp). One launch.
inline void kernel(kernels::mark_kept_tag, device& ctx, score_rows const& s, keep_set const& set,
                   std::int32_t* orders) {
  keep_arrays const& keep = ctx.is_dry() ? ctx.dry_rows()(set) : set;
  ctx.launch({static_cast<std::uint32_t>(s.count())}, {std::min(256u, threads_for(s.most_tokens, 4))}, 0,
             mark_kept_kernel{ctx.watch(), s, keep, orders});
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda
