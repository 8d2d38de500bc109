// SPDX-License-Identifier: Apache-2.0
// The best tokens over all rows of a pool, as counts per row: what head budgets are made of.
#pragma once

#include <algorithm>
#include <cstdint>

#include <kvevict/core/contract.hpp>
#include <kvevict/core/dtype.hpp>
#include <kvevict/core/fill.hpp>
#include <kvevict/core/host.hpp>
#include <kvevict/core/score_rows.hpp>
#include <kvevict/core/shape.hpp>
#include <kvevict/kernels/candidates.hpp>
#include <kvevict/kernels/contenders.hpp>
#include <kvevict/kernels/count_by_sample.hpp>
#include <kvevict/kernels/kernel.hpp>
#include <kvevict/kernels/radix.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {

void has_kernel(count_pooled_tag, host&);

namespace select {

/// Of the `count` best evictable tokens of a pool, how many lie in each row? The `forced` best of every row come first;
/// `weights` (one per head, or null) multiply the scores.
struct best_of {
  std::int64_t count = 0;
  std::int32_t forced = 0;
  float const* weights = nullptr;
};

/// The candidates of one row, as keys of their weighted scores. One that is not finite is not sound, nor is a weight
/// below 0, which would turn the order round.
inline void fill(contender& c, score_rows const& s, std::int64_t r, float weight) {
  c.finite = true;
  if (c.size == 0) return;  // inactive rows, too
  row const& it = s.rows[r];
  float const* const x = s.values + s.begin[r];
  std::uint32_t* const keys = c.keys;
  std::uint32_t worst = 0;
  auto const put = [&](std::int64_t i, std::int32_t j) {
    float const y = x[j] * weight;
    worst = std::max(worst, bits::as_uint(y) & 0x7fffffffu);
    keys[i] = order_key(y);
  };
  if (s.positions == nullptr) {
    std::int32_t const first = it.first, last = it.last;
    for (std::int32_t j = first; j < last; ++j) put(j - first, j);
  } else {
    std::int64_t n = 0;
    for (std::int32_t j = 0; j < it.tokens; ++j)
      if (s.evictable(r, j)) put(n, j), c.orders[n++] = s.order(r, j);
  }
  c.finite = worst < 0x7f800000u && weight >= 0;
}

/// Gives the `forced` best tokens of a head a key above every finite score.
inline void force(contender& c) {
  if (c.forced == 0) return;
  kvevict::copy_n(c.keys, c.size, c.live);
  radix::cut const cut = radix::best(c.live, c.size, c.forced, c.counts);
  c.collect_ties(cut.key);
  radix::cut const tie = radix::best(c.live, c.live_size, cut.take, c.counts);
  std::int64_t dropped = tie.equal - tie.take;
  for (std::int64_t i = 0; i < c.size; ++i) {
    std::uint32_t const order = order_key(c.order(i));
    if (c.keys[i] > cut.key || (c.keys[i] == cut.key && (order > tie.key || (order == tie.key && dropped-- <= 0))))
      c.keys[i] = ~0u;
  }
}

/// Candidates of the pool's active rows, once the question is found to fit them.
inline std::int64_t expect_question(score_rows const& s, row_pools const& pools, std::int64_t pool,
                                    best_of const& what) {
  KVEVICT_EXPECTS(pool >= 0 && pool < pools.count && what.forced >= 0, "count_best: there is no sequence ", pool,
                  " among ", pools.count, ", or ", what.forced, " forced tokens are below 0; correct the question");
  std::int64_t total = 0, forced = 0;
  pools.each(pool, [&](std::int64_t r) {
    expect_candidates("count_best", s, r);
    std::int64_t const size = s.rows[r].active ? s.rows[r].candidates : 0;
    total += size;
    forced += std::min<std::int64_t>(what.forced, s.rows[r].active ? s.rows[r].room() : 0);
  });
  KVEVICT_EXPECTS(what.count >= forced && what.count <= total, "count_best: ", what.count, " tokens are asked for in ",
                  contract::place{static_cast<std::int32_t>(pool)}, ", but ", forced, " are forced and ", total,
                  " can be evicted; ask for a count between the two");
  return total;
}

inline contenders gather_rows(frame& scratch, score_rows const& s, row_pools const& pools, std::int64_t pool,
                              best_of const& what, std::int64_t total) {
  contenders out{scratch.allocate<contender>(pools.members), pools.members,
                 scratch.allocate<std::uint32_t>(radix::buckets), total};
  for (std::int64_t i = 0; i < pools.members; ++i) {
    row const& it = s.rows[pools.row_of(pool, i)];
    std::int64_t const size = it.active ? it.candidates : 0;
    contender& c = out.rows[i] = {};
    c.first = it.first;
    c.size = size;
    c.forced = it.active ? std::min(what.forced, it.room()) : 0;
    c.keys = scratch.allocate<std::uint32_t>(size);
    c.live = scratch.allocate<std::uint32_t>(size);
    c.counts = scratch.allocate<std::uint32_t>(radix::table_size);
    c.orders = s.positions == nullptr ? nullptr : scratch.allocate<std::int32_t>(size);
  }
  return out;
}

/// The same counts from a sample, where it says them.
inline bool counted_by_sample(host& ctx, score_rows const& s, row_pools const& pools, std::int64_t pool,
                              best_of const& what, std::int64_t total, std::int32_t* counts) {
  if (what.weights != nullptr || s.positions != nullptr || total < least_sampled) return false;
  frame scratch(ctx.scratch());
  return sampled_pool(ctx, scratch, s, pools, pool).count_best(what.count, what.forced, counts);
}

/// How many of the `count` best candidates of one pool lie in each row; inactive rows take no part and count 0.
///
///   order   score·weight descending (−0 = +0), position descending, layer, head ascending; the `forced` best of every
///   row come first
///
/// Shapes   scores (R, N) ragged, finite where evictable → counts (R) of the pool's members, Σ counts = count.
/// Cost     O(Σ N): of many scores in order a sample, then those near the cut alone; else a histogram of all rows, then
///          the boundary bucket. One worker per row.
/// Errors   contract_violation if count is outside [Σ min(forced, M), Σ M], a weight is below 0 or score·weight is not
///          finite.
inline void count_best(host& ctx, score_rows const& s, row_pools const& pools, std::int64_t pool, best_of const& what,
                       std::int32_t* counts) {
  std::int64_t const total = expect_question(s, pools, pool, what);
  if (what.count > 0 && counted_by_sample(ctx, s, pools, pool, what, total, counts)) return;
  frame scratch(ctx.scratch());
  contenders all = gather_rows(scratch, s, pools, pool, what, total);
  ctx.for_each(
      pools.members,
      [&](std::int64_t i, std::int32_t) {
        fill(all.rows[i], s, pools.row_of(pool, i), what.weights == nullptr ? 1.0f : what.weights[i % s.heads]);
        force(all.rows[i]);
      },
      all.work);
  for (std::int64_t i = 0; i < pools.members; ++i) {
    row const& it = s.rows[pools.row_of(pool, i)];
    if (!all.rows[i].finite) messages::weighted_score(it.sequence, it.head);
  }
  kvevict::fill_n(counts, pools.members, 0);
  if (what.count == 0) return;
  radix::cut const c = all.best(ctx, what.count, true);
  std::int64_t take = c.take;
  if (c.take < c.equal) {
    ctx.for_each(
        pools.members, [&](std::int64_t i, std::int32_t) { all.rows[i].collect_ties(c.key); }, all.work);
    take = all.best(ctx, c.take, false).take;
  }
  for (std::int64_t i = 0; i < pools.members; ++i) {
    std::int64_t const here = std::min(take, all.rows[i].equal);
    counts[i] = static_cast<std::int32_t>(all.rows[i].above + here);
    take -= here;
  }
}
/// Of the heads of one sequence.
inline void count_best(host& ctx, score_rows const& s, std::int32_t sequence, best_of const& what,
                       std::int32_t* counts) {
  count_best(ctx, s, row_pools(s, pool_over::heads), sequence, what, counts);
}

}  // namespace select

/// Scratch that `count_pooled` takes: rows of a pool, evictable tokens of all of them together.
constexpr std::int64_t count_best_bytes(std::int64_t rows, std::int64_t candidates) {
  return rows * (static_cast<std::int64_t>(sizeof(select::contender)) + radix::table_size * 4 + 3 * 64) +
         candidates * 12 + radix::buckets * 4 + 64;
}
/// And its counts before they are in order of the rows.
constexpr std::int64_t count_pooled_bytes(std::int64_t rows, std::int64_t candidates) {
  return scratch_step(rows * 4) + count_best_bytes(rows, candidates);
}

/// The counts of every pool that is cut, for what its rows may keep together; the counts of the others are 0.
inline void kernel(count_pooled_tag, host& ctx, score_rows const& s, pooled_best const& what, std::int32_t* counts) {
  kvevict::fill_n(counts, s.count(), 0);
  row_pools const pools(s, what.over);
  for (std::int64_t p = 0; p < pools.count && pools.members > 0; ++p) {
    pool_quota const quota(s, pools, p);
    if (quota.rows == 0) continue;
    std::int64_t const forced = what.forced_permille * (quota.tokens / quota.rows) / 1000;
    frame scratch(ctx.scratch());
    auto* const of_pool = scratch.allocate<std::int32_t>(pools.members);
    select::count_best(ctx, s, pools, p, {quota.tokens, static_cast<std::int32_t>(forced), what.weights}, of_pool);
    for (std::int64_t i = 0; i < pools.members; ++i) counts[pools.row_of(p, i)] = of_pool[i];
  }
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
