// SPDX-License-Identifier: Apache-2.0
// The best tokens of rows that several processes hold, from their histograms alone, on a device.
#pragma once

#include <algorithm>
#include <vector>

#include <kvevict/cuda/scores/each.hpp>
#include <kvevict/cuda/select/pooled_histograms.hpp>
#include <kvevict/kernels/best_over_ranks.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

void has_kernel(kernels::best_over_ranks_tag, device&);

/// Of heads::over_ranks on a device: an all_reduce f(std::uint64_t* counts, std::int64_t n) that works in the host's
/// memory, such as MPI_Allreduce. Each call waits for the stream.
template <class F> struct through_host {
  F f;

  void operator()(device& ctx, std::uint64_t* counts, std::int64_t n) const {
    std::vector<std::uint64_t> here(static_cast<std::size_t>(n));
    copy_to_host(ctx.queue(), here.data(), counts, here.size() * sizeof here[0]);
    synchronize(ctx.queue());
    f(here.data(), n);
    copy_to_device(ctx.queue(), counts, here.data(), here.size() * sizeof here[0]);
    synchronize(ctx.queue());
  }
};
template <class F> through_host(F) -> through_host<F>;

namespace pooled {

/// One block per pool: what this rank's rows have of a digit, all together, of 2^width buckets a pool.
///
/// Shapes   histograms (B·H, buckets) → totals (pools, 2^width), zeros where the pool is not sought.
struct totals_kernel {
  static constexpr int max_threads = 512;
  work c;
  int digit;
  bool orders;
  std::uint64_t* totals;

  KVEVICT_DEVICE void operator()(thread& t) const {
    if (c.watch.stopped(t)) return;
    std::int64_t const pool = t.block().x;
    search const& f = c.searches[pool];
    std::uint32_t const n = 1u << radix::nth_digit(digit).width;
    for (std::uint32_t i = t.linear_index(); i < n; i += t.block_size().x) {
      std::uint64_t sum = 0;
      if (f.active && f.tied == orders)
        c.pools.each(pool, [&](std::int64_t r) { sum += c.histograms[r * radix::buckets + i]; });
      totals[pool * n + i] = sum;
    }
  }
};

/// One block per pool: the digit's boundary over the rows of all ranks; what lies behind it is counted in this rank's
/// rows, whose histograms are cleared for the next digit.
///
/// Shapes   totals (pools, 2^width), histograms (B·H, buckets) → searches (pools), found (B·H).
struct rank_boundary_kernel {
  static constexpr int max_threads = 512;
  work c;
  int digit;
  bool orders;
  std::uint64_t const* totals;
  contested* found;
  std::int64_t* takes;

  KVEVICT_DEVICE void operator()(thread& t) const {
    if (c.watch.stopped(t)) return;
    KVEVICT_SHARED(t, std::uint32_t, counts, radix::buckets);
    KVEVICT_SHARED(t, std::uint32_t, words, 36);
    std::int64_t const pool = t.block().x;
    search f = c.searches[pool];
    if (!f.active || f.tied != orders) return;
    radix::digit const d = radix::nth_digit(digit);
    std::uint32_t const n = 1u << d.width;
    for (std::uint32_t i = t.linear_index(); i < radix::buckets; i += t.block_size().x)
      counts[i] = i < n ? static_cast<std::uint32_t>(totals[pool * n + i]) : 0;
    t.sync_block();
    radix::boundary const at = radix::find_boundary(t, counts, f.take, words);
    (orders ? f.order : f.key) |= at.bucket << d.shift, f.take -= at.above, f.equal = at.inside;
    for (std::int64_t m = t.warp(); m < c.pools.members; m += t.block_size().x / warp_size) {  // a warp per row
      std::int64_t const r = c.pools.row_of(pool, m);
      std::uint32_t sum = 0;
      for (std::uint32_t i = at.bucket + 1 + t.lane(); i < n; i += warp_size)
        sum += c.histograms[r * radix::buckets + i];
      for (std::uint32_t x = warp_size / 2; x != 0; x /= 2) sum += shuffle_xor(t, sum, x);
      if (t.lane() == 0) found[r].above += sum, found[r].equal = c.histograms[r * radix::buckets + at.bucket];
    }
    t.sync_block();
    c.pools.each(pool, [&](std::int64_t r) {
      for (std::uint32_t i = t.linear_index(); i < n; i += t.block_size().x) c.histograms[r * radix::buckets + i] = 0;
    });
    if (t.linear_index() != 0) return;
    if (digit == radix::digit_count - 1)
      f.active = !orders && f.take < f.equal, f.tied = f.active, takes[pool] = f.take;
    c.searches[pool] = f;
  }
};

/// Before the first digit.
struct begin_ranks {
  row_pools pools;
  pool_quota const* wanted;
  search* searches;
  contested* found;
  std::int64_t* takes;

  constexpr void operator()(slice<row> of, std::int64_t b) const {
    for (std::int64_t h = 0; h < of.size; ++h) found[b * of.size + h] = {};
    if (b >= pools.count) return;
    auto const tokens = static_cast<std::uint32_t>(wanted[b].tokens);
    searches[b] = {0, 0, tokens, 0, tokens > 0, false}, takes[b] = 0;
  }
};

template <class Keys, class Reduce>
void count_over_ranks(device& ctx, work const& c, std::uint64_t* totals, Reduce const& reduce, contested* found,
                      std::int64_t* takes) {
  auto const rows = static_cast<std::uint32_t>(c.s.count()), pools = static_cast<std::uint32_t>(c.pools.count);
  std::uint32_t const threads = threads_for(c.s.most_tokens, 4);
  ctx.zero("histograms", c.histograms, static_cast<std::size_t>(c.s.count()) * radix::buckets * sizeof *c.histograms);
  for (bool const orders : {false, true})
    for (int digit = 0; digit < radix::digit_count; ++digit) {
      std::int64_t const n = c.pools.count * (std::int64_t{1} << kernels::radix::digits[digit].width);
      kernels::clear_counts(ctx, totals, n);
      if (rows != 0)
        ctx.launch({rows * c.chunks}, {std::min(256u, threads)}, 0, histogram_kernel<Keys>{c, digit, orders});
      ctx.launch({pools}, {std::min(512u, threads)}, 0, totals_kernel{c, digit, orders, totals});
      kernels::sum_over_ranks(ctx, reduce, totals, n);
      ctx.launch({pools}, {std::min(512u, threads)}, 0, rank_boundary_kernel{c, digit, orders, totals, found, takes});
    }
}

}  // namespace pooled

/// Of every pool's `wanted` best tokens over all ranks: how many lie in each of this rank's rows, and how many of those
/// that equal the last one are in, as the host finds them. True: a device does not look whether anything is cut.
///
/// Cost     six reads of the scores; 6 sums of pools·2 048 numbers (two of 1 024), whether ties are cut or not; 18
///          launches; 8 KiB a row, 16 KiB a pool.
/// Errors   contract_violation where a sequence may have 2³² tokens over all ranks. Positions of a row are distinct.
template <class Reduce>
bool kernel(kernels::best_over_ranks_tag, device& ctx, score_rows const& s, pool_quota const* wanted,
            Reduce const& reduce, contested* found, std::int64_t* takes) {
  row_pools const pools(s, pool_over::layers);
  KVEVICT_EXPECTS(pools.count == 0 || s.model_heads == 0 || s.heads == 0 ||
                      s.total_floats / pools.count / s.heads < (std::int64_t{1} << 32) / s.model_heads,
                  "over_ranks: a sequence may have 2^32 tokens or more in all heads; plan fewer layers in a view");
  frame scratch(ctx.scratch());
  pooled::work const w{ctx.watch(),
                       s,
                       {0, nullptr, pool_over::layers},
                       scratch.allocate<std::uint32_t>(s.count() * radix::buckets),
                       scratch.allocate<pooled::search>(pools.count),
                       nullptr,
                       nullptr,
                       blocks_for(s.most_tokens, pooled::chunk)};
  auto* const totals = scratch.allocate<std::uint64_t>(pools.count * radix::buckets);
  kernels::each_sequence(ctx, s, pooled::begin_ranks{pools, wanted, w.searches, found, takes});
  if (s.positions != nullptr) {
    pooled::count_over_ranks<scattered_keys>(ctx, w, totals, reduce, found, takes);
  } else {
    expect_vectors(s);
    pooled::count_over_ranks<ordered_keys<false>>(ctx, w, totals, reduce, found, takes);
  }
  return true;
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda
