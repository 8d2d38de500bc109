// SPDX-License-Identifier: Apache-2.0
// Sums, maxima and minima over the tokens of each row, on a device.
#pragma once

#include <kvevict/cuda/context/device.hpp>
#include <kvevict/cuda/context/row_grid.hpp>
#include <kvevict/kernels/row_reductions.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

void has_kernel(kernels::row_sums_tag, device&);
void has_kernel(kernels::row_max_tag, device&);
void has_kernel(kernels::row_min_tag, device&);

inline constexpr std::uint32_t reduction_tile = 256;  // tokens of a block

/// Two numbers become one; a product is rounded before it is added.
template <class Two> KVEVICT_DEVICE float combine(float a, float b) {
  if constexpr (std::is_same_v<Two, kernels::sum_of_two>)
    return add(a, b);
  else
    return Two{}(a, b);
}

/// A block for every tile of every group of every row: its threads are (lane, chunk of channels), each lane reads every
/// lanes-th token, then the lanes meet pairwise.
/// Shapes   f: (B·H rows, N, C) → out (B·H, G, tiles, C).
template <class Two, class F> struct reduce_tiles_kernel {
  static constexpr int max_threads = 256;
  watched watch;
  score_rows in;
  token_groups groups;
  F f;
  float* out;
  std::int32_t width;
  std::uint32_t count, tiles;  // groups of a row, tiles of a group

  KVEVICT_DEVICE void operator()(thread& t) const {
    constexpr std::int32_t n = kernels::numbers_of<F>;
    KVEVICT_SHARED(t, float, sums, max_threads* kernels::numbers_of<F>);
    std::uint32_t const group = t.block().x / tiles, r = group / count, g = group % count;
    if (watch.stopped(t) || !in.rows[r].active) return;
    row const& it = in.rows[r];
    std::int64_t const first = groups.begin(g) + std::int64_t{t.block().x % tiles} * reduction_tile,
                       end = std::min(groups.end(g, it.tokens), first + reduction_tile);
    auto const rank = static_cast<std::int32_t>(t.linear_index());
    std::int32_t const chunks = (width + n - 1) / n, threads = max_threads;
    for (std::int32_t begin = 0; begin < chunks; begin += threads) {
      std::int32_t const abreast = std::min(chunks - begin, threads);
      std::int32_t lanes = 1;
      while (2 * lanes * abreast <= threads) lanes *= 2;
      std::int32_t const lane = rank / abreast, c = (begin + rank % abreast) * n;
      float sum[n], x[n];
      for (float& s : sum) s = Two::none;
      for (std::int64_t j = first + lane; lane < lanes && j < end; j += lanes) {
        if (!groups.reads(in, r, j)) continue;
        kernels::numbers_at(f, it, j, c, x);
        for (std::int32_t i = 0; i < n; ++i) sum[i] = combine<Two>(sum[i], x[i]);
      }
      for (std::int32_t i = 0; i < n; ++i) sums[rank * n + i] = sum[i];
      for (std::int32_t half = lanes / 2; half != 0; half /= 2) {
        t.sync_block();
        for (std::int32_t i = 0; i < n && lane < half; ++i)
          sums[rank * n + i] = combine<Two>(sums[rank * n + i], sums[(rank + half * abreast) * n + i]);
      }
      float* const to = out + std::int64_t{t.block().x} * width;
      for (std::int32_t i = 0; i < n && lane == 0 && c + i < width; ++i) to[c + i] = sums[rank * n + i];
      t.sync_block();  // before the next chunks are written
    }
  }
};

/// The tiles of a group in order; a block for every group, a thread for a channel.
/// Shapes   parts (B·H, G, tiles, C) → out (B·H, G, C).
template <class Two> struct reduce_groups_kernel {
  static constexpr int max_threads = 128;
  watched watch;
  score_rows in;
  token_groups groups;
  float const* parts;
  float* out;
  std::int32_t width;
  std::uint32_t count, tiles;

  KVEVICT_DEVICE void operator()(thread& t) const {
    std::uint32_t const group = t.block().x, r = group / count, g = group % count;
    if (watch.stopped(t) || !in.rows[r].active) return;
    std::int64_t const tokens = groups.end(g, in.rows[r].tokens) - groups.begin(g);
    std::int64_t const used = (tokens + reduction_tile - 1) / reduction_tile;
    float const* const from = parts + std::int64_t{group} * tiles * width;
    for (auto c = static_cast<std::int32_t>(t.linear_index()); c < width; c += max_threads) {
      float sum = from[c];
      for (std::int64_t i = 1; i < used; ++i) sum = combine<Two>(sum, from[i * width + c]);
      out[std::int64_t{group} * width + c] = sum;
    }
  }
};

template <class Two, class F>
void reduce(device& ctx, score_rows const& in, token_groups const& groups, std::int32_t width, F const& f, float* out) {
  kernels::expect_reduction<F>(groups, width);
  auto const count = static_cast<std::uint32_t>(groups.count(in.most_tokens)),
             blocks = static_cast<std::uint32_t>(in.count()) * count;
  std::uint32_t const tiles = std::max(1u, blocks_for(groups.size == 0 ? in.most_tokens : groups.size, reduction_tile));
  frame scratch(ctx.scratch());
  float* const parts = tiles == 1 ? out : scratch.allocate<float>(std::int64_t{blocks} * tiles * width);
  ctx.launch({blocks * tiles}, {256}, 0,
             reduce_tiles_kernel<Two, F>{ctx.watch(), in, groups, f, parts, width, count, tiles});
  if (tiles > 1)
    ctx.launch({blocks}, {128}, 0, reduce_groups_kernel<Two>{ctx.watch(), in, groups, parts, out, width, count, tiles});
}

/// The host's results (kernels/row_reductions.hpp) to float rounding; the same bits in every layout. One launch, and
/// where a group has more than 256 tokens a second one and C floats of scratch for every 256.
template <class F>
void kernel(kernels::row_sums_tag, device& ctx, score_rows const& in, token_groups const& groups, std::int32_t width,
            F const& f, float* out) {
  reduce<kernels::sum_of_two>(ctx, in, groups, width, f, out);
}
template <class F>
void kernel(kernels::row_max_tag, device& ctx, score_rows const& in, token_groups const& groups, std::int32_t width,
            F const& f, float* out) {
  reduce<kernels::larger_of_two>(ctx, in, groups, width, f, out);
}
template <class F>
void kernel(kernels::row_min_tag, device& ctx, score_rows const& in, token_groups const& groups, std::int32_t width,
            F const& f, float* out) {
  reduce<kernels::smaller_of_two>(ctx, in, groups, width, f, out);
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda
