// SPDX-License-Identifier: Apache-2.0
// The log-sum-exp of every query row over the tokens it sees, where the engine gives none.
#pragma once

#include <kvevict/cuda/attention_window.hpp>

namespace kvevict {
inline namespace v0 {
namespace cuda {

/// A warp takes 32 query rows and one split of the columns; each lane keeps the maximum and the sum of its own columns, in order.
/// Grid: (row, 128 query rows, split). No barrier.
template <class Entry, class Product> struct lse_part_kernel {
  static constexpr int max_threads = 128;
  attention_call<Entry> c;
  Product product;
  float *peaks, *sums;  // (B·H, splits, G·most_rows)
  std::uint32_t row_tiles, splits;
  std::int64_t split;  // columns

  KVEVICT_DEVICE void operator()(thread& t) const {
    if (c.watch.stopped(t)) return;
    std::uint32_t const at = t.block().x, s = at % splits;
    std::int64_t const r = at / splits / row_tiles;
    row const& it = c.out.rows[r];
    if (!it.active) return;
    window const in = c.window_of(it);
    std::int32_t const total = in.rows * c.group, first = static_cast<std::int32_t>((at / splits % row_tiles * 4 + t.warp()) * 32);
    if (first >= total) return;
    std::int32_t const last = std::min(first + 31, total - 1);
    std::int32_t const newest = first / in.rows == last / in.rows ? last % in.rows : in.rows - 1;  // sees most
    std::int64_t const begin = s * split, end = std::min<std::int64_t>(std::min<std::int64_t>(begin + split, it.tokens), in.sees(newest));
    part p[4] = {{-1e30f, 0}, {-1e30f, 0}, {-1e30f, 0}, {-1e30f, 0}};
    scan(t, it, in, r, first, total, begin, end, p);
    KVEVICT_UNROLL
    for (int k = 0; k < 4; ++k) {  // row first + lane/4 + 8k: its four lanes in order
      for (std::uint32_t d = 1; d < 4; d *= 2) p[k] = merged(p[k], {shuffle_xor(t, p[k].peak, d), shuffle_xor(t, p[k].sum, d)});
      std::int32_t const i = first + static_cast<std::int32_t>(t.lane() / 4) + 8 * k;
      std::int64_t const to = (r * splits + s) * c.group * c.most_rows + i;
      if (t.lane() % 4 == 0 && i < total) peaks[to] = p[k].peak, sums[to] = p[k].sum;
    }
  }

  struct part {
    float peak, sum;
  };
  KVEVICT_DEVICE static part merged(part a, part b) {
    float const peak = fmaxf(a.peak, b.peak);
    return {peak, a.sum * exp2(a.peak - peak) + b.sum * exp2(b.peak - peak)};
  }

 private:
  KVEVICT_DEVICE void scan(thread& t, row const& it, window const& in, std::int64_t r, std::int32_t first, std::int32_t total, std::int64_t begin,
                           std::int64_t end, part (&p)[4]) const {
    typename Product::rows rows[2];
    float gain[4];
    std::int32_t sees[4];
    KVEVICT_UNROLL
    for (int k = 0; k < 4; ++k) {
      std::int32_t const i = std::min(first + static_cast<std::int32_t>(t.lane() / 4) + 8 * k, total - 1);
      gain[k] = c.gain_of(in, r, i), sees[k] = in.sees(i % in.rows);
    }
    KVEVICT_UNROLL
    for (int m = 0; m < 2; ++m) {
      std::int32_t const i = first + static_cast<std::int32_t>(t.lane() / 4) + 16 * m;
      rows[m] = product.load_rows(t, c.query(in, it.head, std::min(i, total - 1)), c.query(in, it.head, std::min(i + 8, total - 1)));
    }
    for (std::int64_t j = begin; j < end; j += 8) {
      auto const k = product.load_columns(t, [&](std::uint32_t n) { return c.view.row(c.keys, it.sequence, it.head, std::min<std::int64_t>(j + n, it.tokens - 1)); });
      KVEVICT_UNROLL
      for (int m = 0; m < 2; ++m) {
        accumulator z{};
        product.multiply(t, rows[m], k, z);
        KVEVICT_UNROLL
        for (int half = 0; half < 2; ++half) take(t, z.values[2 * half], z.values[2 * half + 1], j, sees[2 * m + half], gain[2 * m + half], p[2 * m + half]);
      }
    }
  }
  /// Two more logits of a row.
  KVEVICT_DEVICE void take(thread& t, float x, float y, std::int64_t j, std::int32_t sees, float gain, part& p) const {
    std::int64_t const column = j + t.lane() % 4 * 2;
    constexpr float hidden = -3e38f;
    float const zx = column < sees ? c.logit(x, gain) : hidden, zy = column + 1 < sees ? c.logit(y, gain) : hidden;
    float const peak = fmaxf(p.peak, fmaxf(zx, zy));
    p.sum = p.sum * exp2(p.peak - peak) + (exp2(zx - peak) + exp2(zy - peak));
    p.peak = zx != zx || zy != zy ? zx + zy : peak;  // NaN stays
  }
};

/// lse = peak + log2(sum) over the splits, in order; one thread per query row.
template <class Entry> struct lse_kernel {
  static constexpr int max_threads = 256;
  attention_call<Entry> c;
  float const *peaks, *sums;
  std::uint32_t splits;
  std::int64_t split;

  KVEVICT_DEVICE void operator()(thread& t) const {
    std::int64_t const at = std::int64_t{t.block().x} * t.block_size().x + t.rank(), wide = std::int64_t{c.group} * c.most_rows, r = at / wide, i = at % wide;
    if (r >= c.out.count() || c.watch.stopped(t) || !c.out.rows[r].active) return;
    window const in = c.window_of(c.out.rows[r]);
    if (i >= in.rows * c.group) return;
    float peak = -1e30f, sum = 0;
    for (std::int64_t s = 0; s < splits && s * split < c.out.rows[r].tokens; ++s) {
      float const p = peaks[(r * splits + s) * wide + i], x = sums[(r * splits + s) * wide + i], top = fmaxf(p, peak);
      sum = sum * exp2(peak - top) + x * exp2(p - top);
      peak = p != p ? p : top;
    }
    c.lse[r * wide + i] = peak + log2(sum);
  }
};

}  // namespace cuda
}  // namespace v0
}  // namespace kvevict
