// SPDX-License-Identifier: Apache-2.0
// One threshold over heads that several processes hold (tensor parallelism).
#pragma once

#include <vector>

#include <kvevict/cache/layer_view.hpp>
#include <kvevict/evidence/budget.hpp>
#include <kvevict/heads/over_layers.hpp>
#include <kvevict/kernels/best_over_ranks.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace heads {

namespace ranks {

/// Of every row of the model two numbers, (2, S, L, H); a rank has some of the heads.
struct places {
  std::int64_t pools, layers, heads, first;

  constexpr places(score_rows const& of, std::int32_t all)
      : pools(row_pools(of, pool_over::layers).count), layers(of.layers), heads(all), first(of.first_head) {}
  constexpr std::int64_t members() const { return layers * heads; }
  constexpr std::int64_t size() const { return pools * members(); }
  /// Among those of its pool, of a row of sequence b.
  constexpr std::int64_t member(std::int64_t b, std::int64_t h) const { return b / pools * heads + first + h; }
  constexpr std::int64_t operator()(std::int64_t b, std::int64_t h) const {
    return b % pools * members() + member(b, h);
  }
};
/// Of rows that are cut: one more than they have room for, and their quotas.
struct tell_held {
  places at;
  std::uint64_t* to;
  constexpr void operator()(slice<row> of, std::int64_t b) const {
    for (std::int64_t h = 0; h < of.size; ++h) {
      if (!of[h].active) continue;
      to[at(b, h)] = static_cast<std::uint64_t>(std::int64_t{1} + of[h].room());
      to[at.size() + at(b, h)] = static_cast<std::uint64_t>(of[h].quota());
    }
  }
};
struct tell_found {
  places at;
  contested const* found;  // (B·H)
  std::uint64_t* to;
  constexpr void operator()(slice<row> of, std::int64_t b) const {
    for (std::int64_t h = 0; h < of.size; ++h) {
      if (!of[h].active) continue;
      to[at(b, h)] = static_cast<std::uint64_t>(found[b * of.size + h].above);
      to[at.size() + at(b, h)] = static_cast<std::uint64_t>(found[b * of.size + h].equal);
    }
  }
};
/// Of each pool of the model, what pool_quota is of one process.
struct add_up {
  places at;
  std::uint64_t const* held;
  pool_quota* together;
  constexpr void operator()(slice<row>, std::int64_t p) const {
    if (p >= at.pools) return;
    pool_quota q;
    std::int64_t room = 0;
    for (std::int64_t i = p * at.members(); i < (p + 1) * at.members(); ++i)
      if (held[i] != 0)
        ++q.rows, q.tokens += static_cast<std::int64_t>(held[at.size() + i]),
            room += static_cast<std::int64_t>(held[i]) - 1;
    if (q.tokens > room) q.tokens = room;
    together[p] = q;
  }
};
/// Of the first layer's sequences, each with its rows in all layers.
struct division {
  std::int32_t floor_permille;
  score_rows rows;
  places at;
  std::uint64_t const *held, *above;
  pool_quota const* together;
  std::int64_t const* takes;
  std::int64_t* integers;

  constexpr void operator()(slice<row>, std::int64_t p) const {
    if (p >= at.pools || together[p].rows == 0) return;
    floored_share const share{floor_permille, together[p]};
    std::int64_t const n = at.members();
    std::int64_t take = takes[p];
    auto const mine = [&](std::int64_t i) { return static_cast<std::int64_t>(held[p * n + i]); };
    auto const out = divided(
        together[p].tokens, share.denominator(), n, integers + listed_parts::integers * p * n,
        [&](std::int64_t i) {  // what is equal in score and order: lower layers, lower heads first
          auto const equal = static_cast<std::int64_t>(above[at.size() + p * n + i]), in = take < equal ? take : equal;
          take -= in;
          return mine(i) == 0 ? 0 : share.numerator(static_cast<std::int64_t>(above[p * n + i]) + in);
        },
        [&](std::int64_t i) { return mine(i) == 0 ? 0 : mine(i) - 1; });
    for (std::int64_t b = p; b < rows.sequences; b += at.pools)
      for (std::int64_t h = 0; h < rows.heads; ++h)
        if (row& it = rows.rows[b * rows.heads + h]; it.active)
          it.budget = it.protected_tokens() + static_cast<std::int32_t>(out.kept(at.member(b, h)));
  }
};

}  // namespace ranks

/// heads::over_layers where every process (rank) has some heads of each layer: what it gives them is, bit for bit, what
/// one process with all heads would. A view of one layer is Ada-KV under tensor parallelism.
///
/// `all_reduce(std::uint64_t* counts, std::int64_t n)` puts the sums over all ranks in the place of n numbers, on every
/// rank: MPI_Allreduce or gloo in one line. On a device it is f(cuda::device& ctx, counts, n), counts in device memory,
/// and may go into ctx.queue(), as ncclAllReduce does: nothing waits; or cuda::through_host{f} with a host's. Ranks
/// have contiguous heads, `budget.head` and `head_count` say which, and `budget_of_ranks` exchanges lengths: so all
/// ranks agree what is cut. Every rank plans the same layers, sequences and budgets in the same kind of context, and
/// makes the same calls in the same order; one that raises leaves the others waiting, as in any collective: end them
/// all. (A device that finds a NaN goes on without the tokens of that rank, and says so as it always does.)
///
///   order   score descending (−0 = +0), position descending, layer, head of the model ascending
///
/// Cost     over_layers', and what a plan hands to all_reduce: 8·S·(4·L·H + 5 120) bytes in 5 calls; where ties are cut
///          40 960·S more in 3 more; 16·S·L·H in one where all is kept. A device does not look: always as with ties.
///          H: heads of the model. budget_of_ranks: 8·S·L·H in one. (A sequence of 32 layers of 8 heads: 49 KB, 90 KB
///          with ties, 2 KB of lengths.)
/// Errors   as over_layers; `heads` is not budget.head_count.
template <class Reduce> struct over_ranks {
  using stage = stages::heads;
  static constexpr bool equal_counts = false;
  static constexpr bool over_stack = true;
  Reduce all_reduce;
  std::int32_t heads = 0;  // of the model
  std::int32_t floor_permille = 200;

  std::int64_t workspace_bytes(host const&, cache_shape const& s) const {
    std::int64_t const all = std::int64_t{s.sequences} * heads;
    return 2 * scratch_step(2 * all * 8) + scratch_step(listed_parts::integers * all * 8) +
           3 * scratch_step(s.sequences * 24) + scratch_step(s.rows() * 16) + kernels::rank_search<Reduce>::bytes(s);
  }

  template <class Context> void operator()(Context& ctx, score_rows& rows) const {
    expect_floor("over_ranks", floor_permille);
    std::int32_t const given = rows.model_heads == 0 ? rows.heads : rows.model_heads;
    KVEVICT_EXPECTS(heads == given, "over_ranks: the stage says ", heads, " heads of the model, the budget ", given,
                    "; give both the same");
    ranks::places const at(rows, heads);
    frame scratch(ctx.scratch());
    auto* const held = scratch.template allocate<std::uint64_t>(2 * at.size());
    auto* const together = scratch.template allocate<pool_quota>(at.pools);
    auto* const takes = scratch.template allocate<std::int64_t>(at.pools);
    auto* const found = scratch.template allocate<contested>(rows.count());
    tell(ctx, rows, at, held, ranks::tell_held{at, held});
    kernels::each_sequence(ctx, rows, ranks::add_up{at, held, together});
    if (!kernels::best_over_ranks(ctx, rows, together, all_reduce, found, takes)) return;
    auto* const above = scratch.template allocate<std::uint64_t>(2 * at.size());
    auto* const integers = scratch.template allocate<std::int64_t>(listed_parts::integers * at.size());
    tell(ctx, rows, at, above, ranks::tell_found{at, found, above});
    kernels::each_sequence(ctx, rows,
                           ranks::division{floor_permille, rows, at, held, above, together, takes, integers});
  }

 private:
  /// Two numbers of each own row, and with them those of the others.
  template <class Context, class F>
  void tell(Context& ctx, score_rows const& rows, ranks::places const& at, std::uint64_t* to, F const& f) const {
    kernels::clear_counts(ctx, to, 2 * at.size());
    kernels::each_sequence(ctx, rows, f);
    kernels::sum_over_ranks(ctx, all_reduce, to, 2 * at.size());
  }
};
template <class Reduce> over_ranks(Reduce, std::int32_t) -> over_ranks<Reduce>;
template <class Reduce> over_ranks(Reduce, std::int32_t, std::int32_t) -> over_ranks<Reduce>;

}  // namespace heads

/// The budget `b`, whose `head` and `head_count` are filled in, with the lengths of all heads of the model in the
/// layers of the view; they lie in `lengths`, which must outlive the plan. Of a view of the host; a device's budget
/// reads a copy of them in its own memory.
/// Errors   contract_violation, before anything is exchanged: heads of the view that are not among head_count.
template <class Entry, kernels::all_reduce Reduce>
budget budget_of_ranks(host& ctx, layer_view<Entry> const& cache, budget b, Reduce const& all_reduce,
                       std::vector<std::int32_t>& lengths) {
  KVEVICT_EXPECTS(b.head >= 0 && b.head <= std::int64_t{b.head_count} - cache.heads() && b.layer >= 0,
                  "budget_of_ranks: heads from ", b.head, " on of ", b.head_count, ", and a view of ", cache.heads(),
                  ", from layer ", b.layer, "; give budget.head, head_count of the model, and layer, 0 or more");
  std::int64_t const S = cache.sequences() / cache.pages.layers, H = b.head_count, first = b.layer * S * H,
                     n = cache.sequences() * H;
  frame scratch(ctx.scratch());
  auto* const sums = scratch.allocate<std::uint64_t>(n);
  kvevict::fill_n(sums, n, 0u);
  for (std::int32_t s = 0; s < cache.sequences(); ++s)
    for (std::int32_t h = 0; h < cache.heads(); ++h)
      sums[s * H + b.head + h] = static_cast<std::uint64_t>(cache.length(s, h));
  all_reduce(sums, n);
  lengths.assign(static_cast<std::size_t>(first + n), 0);
  for (std::int64_t i = 0; i < n; ++i)
    lengths[static_cast<std::size_t>(first + i)] = static_cast<std::int32_t>(sums[i]);
  b.lengths = {lengths.data(), H, S * H, 1};
  return b;
}

}  // namespace KVEVICT_ABI
}  // namespace kvevict
