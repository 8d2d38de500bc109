// SPDX-License-Identifier: Apache-2.0
// The best tokens over all rows of every pool, as counts per row: what head budgets are made of, on a device.
#pragma once

#include <kvevict/cuda/select/pooled_histograms.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

void has_kernel(kernels::count_pooled_tag, device&);

namespace pooled {

/// One block per pool: the digit's boundary over all its rows; what lies behind it is counted, and the histograms are
/// cleared for the next.
///
/// Shapes   histograms (B·H, buckets), searches (pools) → searches (pools), counts (B·H).
struct boundary_kernel {
  static constexpr int max_threads = 512;
  work c;
  int digit;
  bool orders;

  KVEVICT_DEVICE void operator()(thread& t) const {
    if (c.watch.stopped(t)) return;
    KVEVICT_SHARED(t, std::uint32_t, totals, radix::buckets);
    KVEVICT_SHARED(t, std::uint32_t, words, 36);
    std::int64_t const pool = t.block().x, members = c.pools.members;
    search f = c.before(pool, digit, orders);
    if (!f.active || f.tied != orders) {
      if (digit != 0 || orders) return;
      if (t.linear_index() == 0) c.searches[pool] = f;
      for (std::int64_t i = t.linear_index(); i < members; i += t.block_size().x) c.counts[c.pools.row_of(pool, i)] = 0;
      return;
    }
    for (std::uint32_t i = t.linear_index(); i < radix::buckets; i += t.block_size().x) {
      std::uint32_t sum = 0;
      c.pools.each(pool, [&](std::int64_t r) { sum += c.histograms[r * radix::buckets + i]; });
      totals[i] = sum;
    }
    t.sync_block();
    radix::boundary const at = radix::find_boundary(t, totals, f.take, words);
    (orders ? f.order : f.key) |= at.bucket << radix::nth_digit(digit).shift, f.take -= at.above, f.equal = at.inside;
    for (std::int64_t m = t.warp(); m < members; m += t.block_size().x / warp_size) {  // a warp per row
      std::int64_t const r = c.pools.row_of(pool, m);
      std::uint32_t sum = 0;
      for (std::uint32_t i = at.bucket + 1 + t.lane(); i < radix::buckets; i += warp_size)
        sum += c.histograms[r * radix::buckets + i];
      for (std::uint32_t x = warp_size / 2; x != 0; x /= 2) sum += shuffle_xor(t, sum, x);
      std::int32_t& count = c.counts[r];
      if (t.lane() == 0) count = (digit == 0 && !orders ? 0 : count) + static_cast<std::int32_t>(sum);
    }
    t.sync_block();
    if (t.linear_index() == 0) finish(pool, f, at.bucket);
    t.sync_block();
    c.pools.each(pool, [&](std::int64_t r) {
      for (std::uint32_t i = t.linear_index(); i < radix::buckets; i += t.block_size().x)
        c.histograms[r * radix::buckets + i] = 0;
    });
  }

 private:
  KVEVICT_DEVICE void finish(std::int64_t pool, search f, std::uint32_t bucket) const {
    if (digit == radix::digit_count - 1 && !orders && f.take < f.equal)
      f.tied = true;  // orders decide which
    else if (digit == radix::digit_count - 1) {
      c.pools.each(pool, [&](std::int64_t r) {  // what is equal in score and order: lower layers, lower heads first
        std::uint32_t const here = c.histograms[r * radix::buckets + bucket], in = here < f.take ? here : f.take;
        c.counts[r] += static_cast<std::int32_t>(in);
        f.take -= in;
      });
      f.active = false;
    }
    c.searches[pool] = f;
  }
};

template <class Keys> void count(device& ctx, work const& c) {
  auto const rows = static_cast<std::uint32_t>(c.s.count()), pools = static_cast<std::uint32_t>(c.pools.count);
  std::uint32_t const threads = threads_for(c.s.most_tokens, 4);
  if (c.forced != nullptr) ctx.launch({rows}, {threads}, 0, force_kernel<Keys>{c});
  ctx.zero("histograms", c.histograms, static_cast<std::size_t>(c.s.count()) * radix::buckets * sizeof *c.histograms);
  for (bool const orders : {false, true})
    for (int digit = orders && c.short_ranks() ? 1 : 0; digit < radix::digit_count; ++digit) {
      ctx.launch({rows * c.chunks}, {std::min(256u, threads)}, 0, histogram_kernel<Keys>{c, digit, orders});
      ctx.launch({pools}, {std::min(512u, threads)}, 0, boundary_kernel{c, digit, orders});
    }
}

}  // namespace pooled

/// Of the Σ quota() best evictable tokens of every pool that is cut: how many lie in each row.
///
///   order   score·weight descending (−0 = +0), position descending, layer, head ascending; the forced best of every
///   row come first
///
/// Cost     three reads of the scores, two more where ties are cut (three in rows in no order); 10 launches (12), 11
///          (13) with forced ones; 8 KiB a row.
/// Errors   fault::weighted_score: a weight is below 0 or a weighted score not finite.   Positions of a row are
///          distinct.
inline void kernel(kernels::count_pooled_tag, device& ctx, score_rows const& s, pooled_best const& what,
                   std::int32_t* counts) {
  if (s.count() == 0) return;
  frame scratch(ctx.scratch());
  pooled::work const w{ctx.watch(),
                       s,
                       what,
                       scratch.allocate<std::uint32_t>(s.count() * radix::buckets),
                       scratch.allocate<pooled::search>(row_pools(s, what.over).count),
                       what.forced_permille == 0 ? nullptr : scratch.allocate<pooled::forced_cut>(s.count()),
                       counts,
                       blocks_for(s.most_tokens, pooled::chunk)};
  if (s.positions != nullptr) return pooled::count<scattered_keys>(ctx, w);
  expect_vectors(s);
  pooled::count<ordered_keys<false>>(ctx, w);
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda
