// SPDX-License-Identifier: Apache-2.0
// ‖M·x‖² of every token, M a small matrix of each row, on a device.
#pragma once

#include <kvevict/cuda/context/device.hpp>
#include <kvevict/cuda/context/row_grid.hpp>
#include <kvevict/kernels/kernel.hpp>
#include <kvevict/kernels/matrix.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

void has_kernel(kernels::mapped_norms_tag, device&);

/// A block for 32 tokens of a row, whose numbers lie in shared memory; a warp has every eighth four lines of M, a lane
/// a token. The warps' sums meet in order.
/// Shapes   f: (B·H rows, N, D), m (B·H, D, D) → scores (B·H, N).
template <class F> struct mapped_norms_kernel {
  static constexpr int max_threads = 256;
  static constexpr std::int32_t tokens = 32, warps = max_threads / 32, abreast = 4;
  watched watch;
  score_rows out;
  F f;
  float const* m;
  std::int32_t width;
  std::uint32_t tiles;

  KVEVICT_DEVICE void operator()(thread& t) const {
    KVEVICT_SHARED(t, float, sums, tokens* warps);
    std::int64_t const r = t.block().x / tiles, first = std::int64_t{t.block().x % tiles} * tokens;
    row const& it = out.rows[r];
    if (watch.stopped(t) || !it.active || first >= it.tokens) return;
    float* const x = t.shared<float>(static_cast<std::size_t>(width) * tokens);  // (channel, token)
    auto const lane = static_cast<std::int32_t>(t.lane()), warp = static_cast<std::int32_t>(t.warp());
    for (std::int32_t c = warp * row_chunk; c < width; c += warps * row_chunk) {
      float e[row_chunk] = {};
      if (first + lane < it.tokens) f(it, first + lane, c, e);
      for (std::int32_t i = 0; i < row_chunk && c + i < width; ++i) x[(c + i) * tokens + lane] = e[i];
    }
    t.sync_block();
    float squares = 0;
    for (std::int32_t i = warp * abreast; i < width; i += warps * abreast)
      squares = add_lines(m + r * width * width, i, x + lane, squares);
    sums[warp * tokens + lane] = squares;
    t.sync_block();
    if (warp != 0 || first + lane >= it.tokens) return;
    for (std::int32_t w = 1; w < warps; ++w) squares = add(squares, sums[w * tokens + lane]);
    out.values[out.begin[r] + first + lane] = squares;
  }

 private:
  /// The squares of lines [i, i + abreast) times a token.
  KVEVICT_DEVICE float add_lines(float const* of, std::int32_t i, float const* x, float squares) const {
    std::int32_t const end = std::min(i + abreast, width);
    float y[abreast] = {};
    for (std::int32_t d = 0; d < end; ++d)
      for (std::int32_t u = 0; u < abreast; ++u)
        y[u] = fma(of[std::int64_t{std::min(i + u, width - 1)} * width + d], x[d * tokens], y[u]);
    for (std::int32_t u = 0; u < abreast && i + u < width; ++u) squares = fma(y[u], y[u], squares);
    return squares;
  }
};

/// The host's formula (kernels/mapped_norms.hpp); the same bits in every layout. One launch, no scratch.
template <class F>
void kernel(kernels::mapped_norms_tag, device& ctx, score_rows const& out, std::int32_t width, F const& f,
            float const* m) {
  kernels::expect_matrix("mapped_norms", width);
  std::uint32_t const tiles = blocks_for(out.most_tokens, mapped_norms_kernel<F>::tokens);
  ctx.launch({static_cast<std::uint32_t>(out.count()) * tiles}, {256},
             shared_bytes<float>(static_cast<std::size_t>(width) * mapped_norms_kernel<F>::tokens),
             mapped_norms_kernel<F>{ctx.watch(), out, f, m, width, tiles});
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda
