// SPDX-License-Identifier: Apache-2.0
// The best tokens of rows that several processes hold, from their histograms alone.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include <kvevict/core/fill.hpp>
#include <kvevict/core/host.hpp>
#include <kvevict/core/score_rows.hpp>
#include <kvevict/core/shape.hpp>
#include <kvevict/kernels/contenders.hpp>
#include <kvevict/kernels/count_best.hpp>
#include <kvevict/kernels/kernel.hpp>
#include <kvevict/kernels/radix.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {

void has_kernel(best_over_ranks_tag, host&);

/// Adds up what all ranks have, on the host: f(counts, n) puts the sums of n numbers in their place, on every rank.
template <class F>
concept all_reduce = requires(F const& f, std::uint64_t* counts, std::int64_t n) {
  f(counts, n);
};
/// The same in another context's memory: f(ctx, counts, n).
template <class F, class Context>
concept all_reduce_in = requires(F const& f, Context& ctx, std::uint64_t* counts, std::int64_t n) {
  f(ctx, counts, n);
};

/// Sums of n counts, which lie in the context's memory, in their place.
template <class Context, class F> void sum_over_ranks(Context& ctx, F const& f, std::uint64_t* counts, std::int64_t n) {
  if constexpr (std::is_same_v<Context, host>) {
    static_assert(all_reduce<F>,
                  "over_ranks: on the host all_reduce is called as f(std::uint64_t* counts, std::int64_t n)");
    f(counts, n);
  } else {
    static_assert(
        all_reduce_in<F, Context>,
        "over_ranks: on a device all_reduce is called as f(cuda::device&, std::uint64_t* counts, std::int64_t "
        "n), counts in its memory; for one that works on the host give cuda::through_host{f}");
    if (!ctx.is_dry()) f(ctx, counts, n);
  }
}
/// Zeros, also where a device has refused the call: then this rank has nothing, and the others go on.
template <class Context> void clear_counts(Context& ctx, std::uint64_t* counts, std::int64_t n) {
  if constexpr (std::is_same_v<Context, host>)
    kvevict::fill_n(counts, n, 0u);
  else
    ctx.zero("counts", counts, static_cast<std::size_t>(n) * sizeof *counts);
}

/// Where the best of each pool end, over all ranks: digit by digit, a histogram of every rank added up, as
/// select::contenders does within one process. Every rank makes the same calls of `reduce`, for what they decide by is
/// the same everywhere.
///
///   order   score descending (−0 = +0), position descending; of what is equal in both, how many are in is told
///
/// Cost     count_best's; 3 sums of pools·2 048 numbers (the last 1 024), 6 where ties are cut; scratch 32 KiB a row.
template <all_reduce Reduce> class rank_search {
 public:
  struct cut {
    std::int64_t take = 0, equal = 0;  // of those that equal the last one in: how many are in, and how many there are
    std::uint32_t key = 0;
    bool open = false;
  };
  using contender = select::contender;
  contender* rows;  // (B·H) above, equal: of this rank
  cut* cuts;        // (pools)

  /// `wanted` (pools): how many are the best, of all ranks together.
  rank_search(host& ctx, frame& scratch, score_rows const& s, pool_quota const* wanted, Reduce const& reduce)
      : rows(scratch.allocate<contender>(s.count())),
        cuts(scratch.allocate<cut>(row_pools(s, pool_over::layers).count)),
        ctx_(ctx),
        s_(s),
        pools_(s, pool_over::layers),
        reduce_(reduce),
        totals_(scratch.allocate<std::uint64_t>(pools_.count * radix::buckets)) {
    for (std::int64_t r = 0; r < s.count(); ++r) gather(scratch, r);
    bool any = false, tied = false;
    for (std::int64_t p = 0; p < pools_.count; ++p)
      cuts[p] = {wanted[p].tokens, 0, 0, wanted[p].tokens > 0}, any = any || cuts[p].open;
    if (!any) return;
    each_open([&](contender& c, std::int64_t) { kvevict::copy_n(c.keys, c.live_size = c.size, c.live); });
    find();
    for (std::int64_t p = 0; p < pools_.count; ++p)
      cuts[p].open = cuts[p].open && cuts[p].take < cuts[p].equal, tied = tied || cuts[p].open;
    if (!tied) return;
    each_open([&](contender& c, std::int64_t p) { c.collect_ties(cuts[p].key); });
    for (std::int64_t p = 0; p < pools_.count; ++p) cuts[p].key = 0;
    find();
  }

  static constexpr std::int64_t bytes(cache_shape const& s) {
    return count_best_bytes(s.rows(), s.rows() * s.tokens) +
           s.sequences * (std::int64_t{sizeof(cut)} + radix::buckets * 8) + 2 * 64;
  }

 private:
  void gather(frame& scratch, std::int64_t r) {
    expect_candidates("over_ranks", s_, r);
    row const& it = s_.rows[r];
    contender& c = rows[r] = {};
    c.first = it.first, c.size = it.active ? it.candidates : 0;
    c.keys = scratch.allocate<std::uint32_t>(c.size), c.live = scratch.allocate<std::uint32_t>(c.size);
    c.counts = scratch.allocate<std::uint32_t>(radix::table_size);
    c.orders = s_.positions == nullptr ? nullptr : scratch.allocate<std::int32_t>(c.size);
    select::fill(c, s_, r, 1.0f);
  }
  /// f(row's contender, pool) for rows of pools whose cut is still sought.
  template <class F> void each_open(F f) {
    ctx_.for_each(
        s_.count(),
        [&](std::int64_t r, std::int32_t) {
          if (std::int64_t const p = pools_.pool_of(r); cuts[p].open) f(rows[r], p);
        },
        s_.total_floats);
  }
  void find() {
    for (radix::digit const d : radix::digits) {
      std::int64_t const n = std::int64_t{1} << d.width;
      each_open([&](contender& c, std::int64_t) { radix::count(c.live, c.live_size, d, c.counts); });
      kvevict::fill_n(totals_, pools_.count * n, 0u);
      for (std::int64_t p = 0; p < pools_.count; ++p)
        if (cuts[p].open)
          pools_.each(p, [&](std::int64_t r) {
            for (std::int64_t i = 0; i < n; ++i) totals_[p * n + i] += rows[r].counts[i];
          });
      reduce_(totals_, pools_.count * n);
      for (std::int64_t p = 0; p < pools_.count; ++p)
        if (cuts[p].open) narrow(cuts[p], totals_ + p * n, n, d);
      each_open([&](contender& c, std::int64_t p) {
        std::uint32_t const b = d.of(cuts[p].key);
        for (std::int64_t i = b + 1; i < n; ++i) c.above += c.counts[i];
        c.equal = c.counts[b];
        c.live_size = radix::gather(c.live, c.live_size, d, b, c.live);
      });
    }
  }
  static void narrow(cut& c, std::uint64_t const* totals, std::int64_t n, radix::digit d) {
    radix::bucket const b = radix::boundary(totals, c.take, n);
    c.take -= b.above, c.key |= b.index << d.shift, c.equal = static_cast<std::int64_t>(totals[b.index]);
  }

  host& ctx_;
  score_rows const& s_;
  row_pools pools_;
  Reduce const& reduce_;
  std::uint64_t* totals_;  // (pools, buckets)
};

/// Of every pool's `wanted` best tokens over all ranks: how many lie in each of this rank's rows, and how many of those
/// that equal the last one are in. False where no rank has a row that is cut; then nothing is written.
template <all_reduce Reduce>
bool kernel(best_over_ranks_tag, host& ctx, score_rows const& s, pool_quota const* wanted, Reduce const& reduce,
            contested* found, std::int64_t* takes) {
  frame scratch(ctx.scratch());
  rank_search<Reduce> const search(ctx, scratch, s, wanted, reduce);
  std::int64_t const pools = row_pools(s, pool_over::layers).count;
  for (std::int64_t r = 0; r < s.count(); ++r) found[r] = {search.rows[r].above, search.rows[r].equal};
  for (std::int64_t p = 0; p < pools; ++p) takes[p] = search.cuts[p].take;
  return std::any_of(wanted, wanted + pools, [](pool_quota const& q) { return q.rows > 0; });
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
