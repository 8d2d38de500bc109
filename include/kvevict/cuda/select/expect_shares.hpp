// SPDX-License-Identifier: Apache-2.0
// A table of shares is counts, before it divides a budget on a device.
#pragma once

#include <kvevict/core/apportion.hpp>
#include <kvevict/cuda/context/device.hpp>
#include <kvevict/cuda/context/row_grid.hpp>
#include <kvevict/kernels/kernel.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

void has_kernel(kernels::expect_shares_tag, device&);

/// One thread a share.
///
/// Shapes   shares (n) → nothing but faults.
struct expect_shares_kernel {
  static constexpr int max_threads = 128;
  watched watch;
  std::int32_t const* shares;
  std::int64_t n;

  KVEVICT_DEVICE void operator()(thread& t) const {
    std::int64_t const i = std::int64_t{t.block().x} * t.block_size().x + t.linear_index();
    if (i >= n || watch.stopped(t)) return;
    if (shares[i] < 0 || shares[i] > most_share) watch.refuse(t, fault::share, 0, 0, shares[i], 0, i);
  }
};
/// The host's check; one launch.
inline void kernel(kernels::expect_shares_tag, device& ctx, char const* stage, std::int32_t const* shares,
                   std::int64_t n) {
  ctx.launch({blocks_for(n, 128)}, {128}, 0, expect_shares_kernel{ctx.watch(stage), shares, n});
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda
