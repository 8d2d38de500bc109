// SPDX-License-Identifier: Apache-2.0
// Outputs of the window rows of every query head: Σ_j weight_j·v_j.
#pragma once

#include <kvevict/cache/row_reader.hpp>
#include <kvevict/cuda/attention/weight_sources.hpp>
#include <kvevict/kernels/window_fold.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

/// Where the outputs lie: of window row w of query head g of row r `stride` floats, zeros behind the last channel.
struct outputs_of_rows {
  float* values;               // (B·H, G, most_rows, stride)
  std::int64_t width, stride;  // channels, padded to row_chunk
  std::int32_t group, most_rows;

  static constexpr std::int64_t padded(std::int64_t width) { return (width + row_chunk - 1) / row_chunk * row_chunk; }
  KVEVICT_DEVICE std::int64_t place(std::int64_t r, std::int32_t g, std::int32_t w) const {
    return (r * group + g) * most_rows + w;
  }
  KVEVICT_DEVICE float const* of(std::int64_t r, std::int32_t g, std::int32_t w) const {
    return values + place(r, g, w) * stride;
  }
};

inline constexpr std::int32_t split_tokens = 2048;

/// What is added up with the weights: the channels of a component; or, of rows that are pooled, first the weights of
/// the tokens before the recent ones, then their average-pooled ones.
struct summands {
  component values;
  std::int32_t pool = 0;  // width, or 0: the component

  constexpr std::int64_t width() const { return pool == 0 ? values.width() : 2; }
  KVEVICT_DEVICE float of_pool(row const& it, std::int64_t padding, std::int64_t token, std::int64_t d) const {
    if (token < padding || token >= it.last) return 0;
    return d == 0 ? 1.0f : kernels::pooled_share(token, padding, it.last, pool);
  }
};

/// A block takes 16 window rows of a query head, 128 channels and a split of the tokens. 128 tokens at a time: each
/// warp works out the weights of 32, then each thread adds up its channel, token by token.
///
/// Shapes   values (B·H, N, D') → parts (splits, B·H, G, most_rows, stride).
template <class Entry, class Source> struct window_outputs_kernel {
  static constexpr int max_threads = 128;
  static constexpr std::int32_t rows_at_once = 16;
  watched watch;
  Source from;
  summands of;
  outputs_of_rows to;                          // whose values are the parts
  std::int64_t part;                           // floats of a split
  std::uint32_t splits, channels, row_blocks;  // blocks of each kind

  KVEVICT_DEVICE void operator()(thread& t) const {
    auto const& c = from.call();
    if (watch.stopped(t)) return;
    KVEVICT_SHARED(t, float, weights, max_threads* rows_at_once);
    KVEVICT_SHARED(t, std::uint32_t, seen, max_threads);
    std::uint32_t at = t.block().x;
    std::uint32_t const s = at % splits, d0 = (at /= splits) % channels, block = (at /= channels) % row_blocks;
    auto const g = static_cast<std::int32_t>((at /= row_blocks) % static_cast<std::uint32_t>(c.group));
    std::int64_t const r = at / static_cast<std::uint32_t>(c.group), d = std::int64_t{d0} * 128 + t.linear_index();
    row const& it = c.out.rows[r];
    if (!it.active) return;
    window_rows const in = c.window_of(it);
    auto const w = static_cast<std::int32_t>(block) * rows_at_once, begin = static_cast<std::int32_t>(s) * split_tokens,
               end = std::min(begin + split_tokens, it.tokens);
    if (w >= in.count || begin >= end) return;
    float sums[rows_at_once] = {};
    std::int32_t const step = max_threads;  // a value: std::min takes references
    for (std::int32_t first = begin; first < end; first += step) {
      put_weights(t, it, r, g, in, w, first, end, weights, seen);
      t.sync_block();
      if (d < to.width) add_up(it, first, std::min(step, end - first), d, weights, seen, sums);
      t.sync_block();
    }
    for (std::int32_t i = 0; i < rows_at_once && w + i < in.count && d < to.stride; ++i)
      to.values[s * part + to.place(r, g, w + i) * to.stride + d] = sums[i];
  }

 private:
  /// The weights of 128 tokens from `first` on: (token, row); and whether any row sees the token.
  KVEVICT_DEVICE void put_weights(thread& t, row const& it, std::int64_t r, std::int32_t g, window_rows const& in,
                                  std::int32_t w, std::int32_t first, std::int32_t end, float* weights,
                                  std::uint32_t* seen) const {
    auto const mine = static_cast<std::int32_t>(t.warp()) * 32;
    if (first + mine >= end) return;  // nor is it read
    typename Source::keys keys;
    tile_weights z;
    from.load(t, it, first + mine, keys);
    from.weigh(t, it, r, g, in, keys, w, first + mine, z);
    KVEVICT_UNROLL
    for (int k = 0; k < weight_places::size; k += 2) {
      std::int32_t const token = weight_places::token_of(t, mine, k);
      for (int e = 0; e < 2; ++e)
        weights[token * rows_at_once + weight_places::row_of(t, 0, k + e)] = weight_places::at(z, k + e);
    }
    KVEVICT_UNROLL
    for (int i = 0; i < 4; ++i) {  // a token's rows: two of every eight in each of four lanes
      int const k = i / 2 * 8 + i % 2 * 2;
      std::uint32_t any = 0;
      for (int n = 0; n < 2; ++n)
        for (int e = 0; e < 2; ++e) any |= weight_places::at(z, k + n * 4 + e) != 0 ? 1u : 0u;
      for (std::uint32_t lanes = 1; lanes < 4; lanes *= 2) any |= shuffle_xor(t, any, lanes);
      if (t.lane() % 4 == 0) seen[weight_places::token_of(t, mine, k)] = any;
    }
  }
  KVEVICT_DEVICE void add_up(row const& it, std::int32_t first, std::int32_t count, std::int64_t d,
                             float const* weights, std::uint32_t const* seen, float (&sums)[rows_at_once]) const {
    auto const& c = from.call();
    row_reader<Entry> const v(c.view, of.values, it);
    std::int32_t const padding = c.handed().sees.padding(it.sequence);
    KVEVICT_KEEP_LOOP
    for (std::int32_t j = 0; j < count; ++j) {
      if (seen[j] == 0) continue;  // whatever lies there
      float const x = of.pool == 0 ? v(first + j, static_cast<std::int32_t>(d)) : of.of_pool(it, padding, first + j, d);
      KVEVICT_UNROLL
      for (int i = 0; i < rows_at_once; ++i) sums[i] = fma(weights[j * rows_at_once + i], x, sums[i]);
    }
  }
};

/// The splits of each row, in order. A thread for every channel.
///
/// Shapes   parts (splits, B·H, G, most_rows, stride) → outputs (B·H, G, most_rows, stride).
template <class Call> struct sum_splits_kernel {
  static constexpr int max_threads = 256;
  Call c;
  float const* parts;
  outputs_of_rows to;
  std::int64_t part;

  KVEVICT_DEVICE void operator()(thread& t) const {
    std::int64_t const i = std::int64_t{t.block().x} * max_threads + t.linear_index(), wide = to.most_rows * to.stride,
                       r = i / (to.group * wide);
    if (r >= c.out.count() || c.watch.stopped(t) || !c.out.rows[r].active) return;
    std::int64_t const used = (c.out.rows[r].tokens + split_tokens - 1) / split_tokens;
    if (i % wide / to.stride >= c.window_of(c.out.rows[r]).count) return;
    float sum = 0;
    for (std::int64_t s = 0; s < used; ++s) sum += parts[s * part + i];
    to.values[i] = sum;
  }
};

/// In scratch that lives as long as `scratch` does.
template <class Entry, class Source>
outputs_of_rows window_outputs(device& ctx, frame& scratch, Source const& from, summands const& of) {
  using outputs = window_outputs_kernel<Entry, Source>;
  auto const& c = from.call();
  outputs_of_rows to{nullptr, of.width(), outputs_of_rows::padded(of.width()), c.group, c.most_rows};
  std::int64_t const part = c.out.count() * c.group * c.most_rows * to.stride;
  to.values = scratch.allocate<float>(part);
  std::uint32_t const splits = std::max(1u, blocks_for(c.out.most_tokens, split_tokens)),
                      channels = blocks_for(to.stride, 128), rows = blocks_for(c.most_rows, outputs::rows_at_once);
  frame own(ctx.scratch());
  outputs_of_rows parts = to;
  if (splits > 1) parts.values = own.allocate<float>(part * splits);
  ctx.launch({static_cast<std::uint32_t>(c.out.count() * c.group) * rows * channels * splits}, {128}, 0,
             outputs{ctx.watch(), from, of, parts, part, splits, channels, rows});
  if (splits > 1)
    ctx.launch({blocks_for(part, 256)}, {256}, 0,
               sum_splits_kernel<std::decay_t<decltype(c)>>{c, parts.values, to, part});
  return to;
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda
