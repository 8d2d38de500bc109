// SPDX-License-Identifier: Apache-2.0
// The Gram matrix of the tokens of each row, on a device.
#pragma once

#include <kvevict/cuda/context/device.hpp>
#include <kvevict/cuda/context/row_grid.hpp>
#include <kvevict/kernels/kernel.hpp>
#include <kvevict/kernels/matrix.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

void has_kernel(kernels::gram_tag, device&);

/// A block for every 32×32 channels on or below the diagonal of every row's matrix: 32 tokens at once, the numbers of
/// both strips of channels in shared memory; a thread has 2×2 sums.
/// Shapes   f: (B·H rows, N, D) → out (B·H, D, D).
template <class F> struct gram_kernel {
  static constexpr int max_threads = 256;
  static constexpr std::int32_t side = 32, stride = side + 1;
  watched watch;
  score_rows in;
  F f;
  double* out;
  std::int32_t width;
  std::uint32_t pairs;  // of strips

  KVEVICT_DEVICE void operator()(thread& t) const {
    KVEVICT_SHARED(t, float, strips, 2 * side * stride);  // (strip, token, channel)
    std::uint32_t const r = t.block().x / pairs;
    row const& it = in.rows[r];
    if (watch.stopped(t) || !it.active) return;
    auto upper = static_cast<std::int32_t>(t.block().x % pairs), lower = 0;
    while (upper > lower) upper -= ++lower;
    std::int32_t const down = lower * side, across = upper * side;  // where the strips begin
    auto const rank = static_cast<std::int32_t>(t.linear_index()), y = rank / 16 * 2, x = rank % 16 * 2;
    double sums[2][2] = {};
    for (std::int64_t first = 0; first < it.tokens; first += side) {
      read(it, first, rank, rank < max_threads / 2 ? down : across, strips);
      t.sync_block();
      float tile[2][2] = {};
      for (std::int32_t j = 0; j < side; ++j) {
        float const *const a = strips + j * stride + y, *const b = strips + (side + j) * stride + x;
        for (int u = 0; u < 2; ++u)
          for (int v = 0; v < 2; ++v) tile[u][v] = fma(a[u], b[v], tile[u][v]);
      }
      for (int u = 0; u < 2; ++u)
        for (int v = 0; v < 2; ++v) sums[u][v] += static_cast<double>(tile[u][v]);
      t.sync_block();
    }
    for (int u = 0; u < 2; ++u)
      for (int v = 0; v < 2; ++v) {
        std::int32_t const i = down + y + u, k = across + x + v;
        if (i < width && k <= i) out[(std::int64_t{r} * width + i) * width + k] = sums[u][v];
      }
  }

 private:
  /// A thread's chunk of a token, zeros where there is none: half of them read a strip each.
  KVEVICT_DEVICE void read(row const& it, std::int64_t first, std::int32_t rank, std::int32_t from,
                           float* strips) const {
    std::int32_t const j = rank % side, chunk = rank / side, c = chunk % 4 * row_chunk;
    float x[row_chunk] = {};
    if (first + j < it.tokens && from + c < width) f(it, first + j, from + c, x);
    float* const to = strips + (chunk / 4 * side + j) * stride + c;
    KVEVICT_UNROLL
    for (std::int32_t i = 0; i < row_chunk; ++i) to[i] = from + c + i < width ? x[i] : 0.0f;
  }
};

/// The host's sums (kernels/gram.hpp) to float rounding; the same bits in every layout. One launch, no scratch.
template <class F>
void kernel(kernels::gram_tag, device& ctx, score_rows const& in, std::int32_t width, F const& f, double* out) {
  kernels::expect_matrix("gram", width);
  std::uint32_t const strips = blocks_for(width, gram_kernel<F>::side), pairs = strips * (strips + 1) / 2;
  ctx.launch({static_cast<std::uint32_t>(in.count()) * pairs}, {256}, 0,
             gram_kernel<F>{ctx.watch(), in, f, out, width, pairs});
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda
