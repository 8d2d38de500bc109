// SPDX-License-Identifier: Apache-2.0
// Σ over the lines of a small matrix of what a token makes of each, on a device.
#pragma once

#include <kvevict/cuda/context/device.hpp>
#include <kvevict/cuda/context/row_grid.hpp>
#include <kvevict/kernels/kernel.hpp>
#include <kvevict/kernels/matrix.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

void has_kernel(kernels::mapped_sums_tag, device&);

/// A block for 32 tokens of a row, whose numbers lie in shared memory; a warp has every eighth four lines of M, a lane
/// a token. The warps' sums meet in order.
/// Shapes   f: (B·H rows, N, D) → scores (B·H, N).
template <class Map, class F> struct mapped_sums_kernel {
  static constexpr int max_threads = 256;
  static constexpr std::int32_t tokens = 32, warps = max_threads / 32, abreast = 4;
  watched watch;
  score_rows out;
  Map map;
  F f;
  std::uint32_t tiles;

  KVEVICT_DEVICE void operator()(thread& t) const {
    KVEVICT_SHARED(t, float, sums, tokens* warps);
    std::int64_t const r = t.block().x / tiles, first = std::int64_t{t.block().x % tiles} * tokens;
    row const& it = out.rows[r];
    if (watch.stopped(t) || !it.active || first >= it.tokens) return;
    float* const x = t.shared<float>(static_cast<std::size_t>(map.width) * tokens);  // (channel, token)
    auto const lane = static_cast<std::int32_t>(t.lane()), warp = static_cast<std::int32_t>(t.warp());
    for (std::int32_t c = warp * row_chunk; c < map.width; c += warps * row_chunk) {
      float e[row_chunk] = {};
      if (first + lane < it.tokens) f(it, first + lane, c, e);
      for (std::int32_t i = 0; i < row_chunk && c + i < map.width; ++i) x[(c + i) * tokens + lane] = e[i];
    }
    t.sync_block();
    float sum = 0;
    for (std::int64_t i = warp * abreast; i < map.lines(); i += warps * abreast)
      sum = add_lines(it, r, i, x + lane, sum);
    sums[warp * tokens + lane] = sum;
    t.sync_block();
    if (warp != 0 || first + lane >= it.tokens) return;
    for (std::int32_t w = 1; w < warps; ++w) sum = add(sum, sums[w * tokens + lane]);
    out.values[out.begin[r] + first + lane] = sum;
  }

 private:
  /// What lines [i, i + abreast) are to a token.
  KVEVICT_DEVICE float add_lines(row const& it, std::int64_t r, std::int64_t i, float const* x, float sum) const {
    std::int64_t const last = map.lines() - 1;
    auto const end = Map::triangular ? static_cast<std::int32_t>(std::min(i + abreast, last + 1)) : map.width;
    float y[abreast] = {};
    for (std::int32_t d = 0; d < end; ++d)
      for (std::int32_t u = 0; u < abreast; ++u)
        y[u] = fma(map.at(it, r, std::min(i + u, last), d), x[d * tokens], y[u]);
    for (std::int32_t u = 0; u < abreast && i + u <= last; ++u)
      if constexpr (Map::term == kernels::mapped_term::square)
        sum = fma(y[u], y[u], sum);
      else if constexpr (Map::term == kernels::mapped_term::product)
        sum = fma(x[(i + u) * tokens], y[u], sum);
      else
        sum = add(sum, y[u] < 0 ? -y[u] : y[u]);
    return sum;
  }
};

/// The host's formula (kernels/mapped_sums.hpp); the same bits in every layout. One launch, no scratch.
template <class Map, class F>
void kernel(kernels::mapped_sums_tag, device& ctx, score_rows const& out, Map const& map, F const& f) {
  kernels::expect_matrix("mapped_sums", map.width);
  using kernel = mapped_sums_kernel<Map, F>;
  std::uint32_t const tiles = blocks_for(out.most_tokens, kernel::tokens);
  ctx.launch({static_cast<std::uint32_t>(out.count()) * tiles}, {256},
             shared_bytes<float>(static_cast<std::size_t>(map.width) * kernel::tokens),
             kernel{ctx.watch(), out, map, f, tiles});
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda
