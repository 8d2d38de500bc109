// SPDX-License-Identifier: Apache-2.0
// One threshold over heads that several processes hold (tensor parallelism).
#pragma once

#include <vector>

#include <kvevict/cache/layer_view.hpp>
#include <kvevict/evidence/budget.hpp>
#include <kvevict/heads/over_layers.hpp>
#include <kvevict/kernels/count_over_ranks.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace heads {

/// heads::over_layers where every process (rank) has some heads of each layer: what it gives them is, bit for bit, what
/// one process with all heads would. A view of one layer is Ada-KV under tensor parallelism.
///
/// `all_reduce(std::uint64_t* counts, std::int64_t n)` puts the sums over all ranks in the place of n numbers, on every
/// rank: MPI_Allreduce, ncclAllReduce or gloo in one line. Ranks have contiguous heads, `budget.head` and `head_count`
/// say which, and `budget_of_ranks` exchanges lengths, so that all ranks agree what is cut. Every rank plans the same
/// layers, sequences and budgets, and makes the same calls in the same order; one that raises leaves the others
/// waiting, as in any collective: end them all.
///
///   order   score descending (−0 = +0), position descending, layer, head of the model ascending
///
/// Cost     over_layers', and what a plan hands to all_reduce: 8·S·(4·L·H + 5 120) bytes in 5 calls; where ties are cut
///          40 960·S more in 3 more; 16·S·L·H in one where all is kept. H: heads of the model. budget_of_ranks: 8·S·L·H
///          in one. (A sequence of 32 layers of 8 heads: 49 KB, 90 KB with ties, 2 KB of lengths.)
/// Errors   as over_layers; `heads` is not budget.head_count.   On the host only.
template <kernels::all_reduce Reduce> struct over_ranks {
  using stage = stages::heads;
  static constexpr bool equal_counts = false;
  static constexpr bool over_stack = true;
  Reduce all_reduce;
  std::int32_t heads = 0;  // of the model
  std::int32_t floor_permille = 200;

  std::int64_t workspace_bytes(host const&, cache_shape const& s) const {
    std::int64_t const all = std::int64_t{s.sequences} * heads;
    return 2 * scratch_step(2 * all * 8) + scratch_step(3 * all * 8) + 2 * scratch_step(s.sequences * 24) +
           kernels::rank_search<Reduce>::bytes(s);
  }

  void operator()(host& ctx, score_rows& rows) const {
    expect_floor("over_ranks", floor_permille);
    std::int32_t const given = rows.model_heads == 0 ? rows.heads : rows.model_heads;
    KVEVICT_EXPECTS(heads == given, "over_ranks: the stage says ", heads, " heads of the model, the budget ", given,
                    "; give both the same");
    frame scratch(ctx.scratch());
    exchange const all(*this, scratch, rows);
    kernels::rank_search<Reduce> const found(ctx, scratch, rows, all.wanted, all_reduce);
    all.divide(scratch, found);
  }

 private:
  /// What the ranks tell each other of every row of the model, (S, L, H).
  struct exchange {
    over_ranks const& stage;
    score_rows& rows;
    row_pools pools;
    std::int64_t members, size;    // rows of a pool, and of all pools, of the model
    std::uint64_t *held, *quotas;  // 1 + evictable tokens of rows that are cut; their quotas
    pool_quota* together;          // (S)
    std::int64_t* wanted;          // (S)

    exchange(over_ranks const& of, frame& scratch, score_rows& own)
        : stage(of), rows(own), pools(own, pool_over::layers) {
      members = std::int64_t{rows.layers} * stage.heads, size = pools.count * members;
      held = scratch.allocate<std::uint64_t>(2 * size), quotas = held + size;
      together = scratch.allocate<pool_quota>(pools.count), wanted = scratch.allocate<std::int64_t>(pools.count);
      sum_up(
          held, [](row const& it, std::int64_t) { return it.active ? 1 + std::int64_t{it.candidates} : 0; },
          [](row const& it, std::int64_t) { return it.active ? std::int64_t{it.quota()} : 0; });
      for (std::int64_t p = 0; p < pools.count; ++p) {
        pool_quota& q = together[p] = {};
        std::int64_t room = 0;
        for (std::int64_t i = p * members; i < (p + 1) * members; ++i)
          if (held[i] != 0)
            ++q.rows, q.tokens += static_cast<std::int64_t>(quotas[i]), room += static_cast<std::int64_t>(held[i]) - 1;
        wanted[p] = q.tokens = std::min(q.tokens, room);
      }
    }

    /// Two numbers of each own row, and with them those of the others.
    template <class First, class Second> void sum_up(std::uint64_t* to, First first, Second second) const {
      kvevict::fill_n(to, 2 * size, 0u);
      for (std::int64_t r = 0; r < rows.count(); ++r) {
        std::int64_t const at = place_of(r);
        to[at] = static_cast<std::uint64_t>(first(rows.rows[r], r));
        to[size + at] = static_cast<std::uint64_t>(second(rows.rows[r], r));
      }
      stage.all_reduce(to, 2 * size);
    }
    std::int64_t place_of(std::int64_t r) const {
      std::int64_t const b = r / rows.heads, layer = b / pools.count, pool = b % pools.count;
      return pool * members + layer * stage.heads + rows.first_head + r % rows.heads;
    }

    void divide(frame& scratch, kernels::rank_search<Reduce> const& found) const {
      bool cut = false;
      for (std::int64_t p = 0; p < pools.count; ++p) cut = cut || together[p].rows > 0;
      if (!cut) return;
      auto* const above = scratch.allocate<std::uint64_t>(2 * size);
      sum_up(
          above, [&](row const&, std::int64_t r) { return found.rows[r].above; },
          [&](row const&, std::int64_t r) { return found.rows[r].equal; });
      auto* const integers = scratch.allocate<std::int64_t>(3 * size);  // floors of shares, remainders, caps
      for (std::int64_t p = 0; p < pools.count; ++p) {
        if (together[p].rows == 0) continue;
        auto const shares = shares_of(p, above + p * members, found.cuts[p].take, integers + 3 * p * members);
        pools.each(p, [&](std::int64_t r) {
          if (row& it = rows.rows[r]; it.active)
            it.budget = it.protected_tokens() + static_cast<std::int32_t>(shares.kept(place_of(r) - p * members));
        });
      }
    }
    settled<listed_parts> shares_of(std::int64_t p, std::uint64_t const* above, std::int64_t take,
                                    std::int64_t* floors) const {
      floored_share const share{stage.floor_permille, together[p]};
      std::int64_t const den = share.denominator();
      std::int64_t *const rests = floors + members, *const caps = rests + members;
      for (std::int64_t i = 0; i < members; ++i) {
        std::int64_t const in = std::min(take, static_cast<std::int64_t>(above[size + i]));
        std::uint64_t const mine = held[p * members + i];
        std::int64_t const x = mine == 0 ? 0 : share.numerator(static_cast<std::int64_t>(above[i]) + in);
        take -= in;
        floors[i] = x / den, rests[i] = x % den, caps[i] = mine == 0 ? 0 : static_cast<std::int64_t>(mine) - 1;
      }
      return {{floors, rests, caps, members, den, together[p].tokens}, together[p].tokens};
    }
  };
};
template <class Reduce> over_ranks(Reduce, std::int32_t) -> over_ranks<Reduce>;
template <class Reduce> over_ranks(Reduce, std::int32_t, std::int32_t) -> over_ranks<Reduce>;

}  // namespace heads

/// The budget `b`, whose `head` and `head_count` are filled in, with the lengths of all heads of the model in the
/// layers of the view; they lie in `lengths`, which must outlive the plan. Views of the host only.
template <class Entry, kernels::all_reduce Reduce>
budget budget_of_ranks(host& ctx, layer_view<Entry> const& cache, budget b, Reduce const& all_reduce,
                       std::vector<std::int32_t>& lengths) {
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
