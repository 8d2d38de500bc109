// SPDX-License-Identifier: Apache-2.0
// The inverse Cholesky factor of a small matrix of each row, on a device.
#pragma once

#include <kvevict/cuda/context/device.hpp>
#include <kvevict/cuda/context/row_grid.hpp>
#include <kvevict/kernels/kernel.hpp>
#include <kvevict/kernels/matrix.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

void has_kernel(kernels::inverse_cholesky_tag, device&);

/// The threads of a block, who work on one matrix together: a warp on a line of it.
struct block_team {
  thread& t;

  KVEVICT_DEVICE std::int32_t rank() const { return static_cast<std::int32_t>(t.linear_index()); }
  KVEVICT_DEVICE std::int32_t size() const { return static_cast<std::int32_t>(t.block_size().x); }
  KVEVICT_DEVICE std::int32_t line() const { return static_cast<std::int32_t>(t.warp()); }
  KVEVICT_DEVICE std::int32_t lines() const { return size() / static_cast<std::int32_t>(warp_size); }
  KVEVICT_DEVICE std::int32_t lane() const { return static_cast<std::int32_t>(t.lane()); }
  KVEVICT_DEVICE static constexpr std::int32_t lanes() { return static_cast<std::int32_t>(warp_size); }
  KVEVICT_DEVICE void sync() { t.sync_block(); }
};

/// Shapes   a (B·H, D, D) → out (B·H, D, D).
struct inverse_cholesky_kernel {
  static constexpr int max_threads = 256;
  watched watch;
  score_rows of;
  kernels::cholesky_options o;
  double* a;
  float* out;
  std::int32_t width;

  KVEVICT_DEVICE void operator()(thread& t) const {
    KVEVICT_SHARED(t, double, work, 2 * kernels::most_matrix_width);
    std::int64_t const r = t.block().x, size = std::int64_t{width} * width;
    if (watch.stopped(t) || !of.rows[r].active) return;
    block_team team{t};
    kernels::factorise(team, o, width, a + r * size, work);
    kernels::invert(team, width, a + r * size, out + r * size);
  }
};

/// The host's text (kernels/matrix.hpp), a block for every row. One launch, no scratch.
inline void kernel(kernels::inverse_cholesky_tag, device& ctx, score_rows const& of, std::int32_t width,
                   kernels::cholesky_options const& o, double* a, float* out) {
  kernels::expect_matrix("inverse_cholesky", width);
  ctx.launch({static_cast<std::uint32_t>(of.count())}, {width <= 64 ? 64u : 256u}, 0,
             inverse_cholesky_kernel{ctx.watch(), of, o, a, out, width});
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda
