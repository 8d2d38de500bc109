// SPDX-License-Identifier: Apache-2.0
// Pooling of scores along the tokens, on a device.
#pragma once

#include <kvevict/cuda/context/device.hpp>
#include <kvevict/cuda/context/row_grid.hpp>
#include <kvevict/kernels/expect_window.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

void has_kernel(kernels::pool_tag, device&);

/// Pools x[begin, end) at j: what is not finite becomes NaN, so that a maximum never hides it.
KVEVICT_DEVICE inline float pooled_at(pool_options const& o, float const* x, std::int64_t begin, std::int64_t end,
                                      std::int64_t j) {
  std::int64_t const half = o.width / 2, first = std::max(begin, j - half), last = std::min(j + half, end - 1);
  bool const maximum = o.kind == pooling::max;
  float best = maximum ? x[first] : 0.0f;
  bool finite = true;
  for (std::int64_t i = first; i <= last; ++i) {
    finite = finite && x[i] - x[i] == 0;
    best = maximum ? (x[i] > best ? x[i] : best) : add(best, x[i]);
  }
  float const nan = __builtin_nanf("");
  return !finite ? nan : maximum ? best : best / static_cast<float>(o.width);
}

/// Shapes   scores (B·H, N) → scores (B·H, N).
struct pool_kernel {
  static constexpr int max_threads = 256;
  watched watch;
  pool_options o;
  pool_range range;
  score_rows out;
  float const* from;  // a copy of out.values
  std::uint32_t chunks;

  KVEVICT_DEVICE void operator()(thread& t) const {
    if (watch.stopped(t)) return;
    std::int64_t r, j = token_of(t, out, chunks, r);
    std::int64_t const n = range == pool_range::all ? out.rows[r].tokens : out.rows[r].last;
    if (j >= 0 && j < n) out.values[out.begin[r] + j] = pooled_at(o, from + out.begin[r], 0, n, j);
  }
};

/// Pools tokens [0, last) of every active row in place, or all its tokens: the host's formula and errors
/// (kernels/pool.hpp).
///
/// Cost     a copy of the scores and one launch; scratch as large as the scores.
inline void kernel(kernels::pool_tag, device& ctx, pool_options const& o, pool_range range, score_rows const& out) {
  expect_pooling(o);
  KVEVICT_EXPECTS(out.positions == nullptr || o.width == 1,
                  "pool: the rows are scattered, so neighbours in memory are not neighbours in the text; compact them "
                  "stably first, "
                  "or set the width to 1");
  if (o.width == 1) return;
  frame scratch(ctx.scratch());
  float* const copy = scratch.allocate<float>(out.total_floats);
  ctx.copy("scores", copy, out.values, static_cast<std::size_t>(out.total_floats) * sizeof(float));
  std::uint32_t const chunks = blocks_for(out.most_tokens, 256);
  ctx.launch({static_cast<std::uint32_t>(out.count()) * chunks}, {256}, 0,
             pool_kernel{ctx.watch(), o, range, out, copy, chunks});
}
inline void kernel(kernels::pool_tag, device& ctx, pool_options const& o, score_rows const& out) {
  kernel(kernels::pool_tag{}, ctx, o, pool_range::evictable, out);
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda
