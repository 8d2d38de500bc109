// SPDX-License-Identifier: Apache-2.0
// A score that is not a number stops the device before anything is evicted.
#pragma once

#include <cstring>

#include <kvevict/cuda/context/device.hpp>
#include <kvevict/cuda/context/row_grid.hpp>
#include <kvevict/kernels/kernel.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

void has_kernel(kernels::require_finite_tag, device&);

/// Shapes   scores (B·H, N) → nothing.
struct require_finite_kernel {
  static constexpr int max_threads = 256;
  watched watch;
  score_rows s;
  std::uint32_t chunks;

  KVEVICT_DEVICE void operator()(thread& t) const {
    if (watch.stopped(t)) return;
    std::int64_t r, j = token_of(t, s, chunks, r);
    if (j < 0 || !s.evictable(r, j)) return;
    std::uint32_t bits;
    memcpy(&bits, &s.values[s.begin[r] + j], sizeof bits);
    if ((bits & 0x7f800000u) == 0x7f800000u)
      watch.refuse(t, fault::not_finite, s.rows[r].sequence, s.rows[r].head, bits, 0, j);
  }
};

/// fault::not_finite when an evictable token of an active row has a score that is NaN or infinite; names one. One read
/// of the scores.
inline void kernel(kernels::require_finite_tag, device& ctx, score_rows const& s) {
  std::uint32_t const chunks = blocks_for(s.most_tokens, 256);
  ctx.launch({static_cast<std::uint32_t>(s.count()) * chunks}, {256}, 0,
             require_finite_kernel{ctx.watch(s.verb()), s, chunks});
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda
