// SPDX-License-Identifier: Apache-2.0
// The rows of a plan whose budget several scores take in turn: what each may take, and what it finds left.
#pragma once

#include <cstdint>

#include <kvevict/core/apportion.hpp>
#include <kvevict/core/score_rows.hpp>
#include <kvevict/core/shape.hpp>
#include <kvevict/kernels/kernel.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace planning {

/// Who gets the tokens that rounding leaves: one each the shares with the largest remainders, or all the last share.
enum class rest_of_shares : std::uint8_t { to_largest_remainders, to_last };

/// What each of several scores takes of a unit's evictable budget Q, in thousandths that add up to 1000.
///
///   q_i = ⌊Q·p_i/1000⌋, and one more for the largest remainders (ties: the earlier score), Σ q_i = Q
///   to_last: q_i = ⌊Q·p_i/1000⌋ of all but the last one
struct budget_shares {
  static constexpr std::int32_t most = 8;
  std::int32_t permille[most] = {};
  std::int32_t count = 0;
  rest_of_shares rest = rest_of_shares::to_largest_remainders;

  constexpr std::int64_t of(std::int64_t quota, std::int32_t i) const {
    std::int64_t left = quota, ahead = 0;
    for (std::int32_t k = 0; k < count; ++k) {
      left -= quota * permille[k] / 1000;
      std::int64_t const mine = quota * permille[i] % 1000, other = quota * permille[k] % 1000;
      ahead += other > mine || (other == mine && k < i) ? 1 : 0;
    }
    if (rest == rest_of_shares::to_last) return quota * permille[i] / 1000 + (i + 1 == count ? left : 0);
    return quota * permille[i] / 1000 + (ahead < left ? 1 : 0);
  }
};

/// Budgets of all scores together, aside before the first turn.
struct put_aside {
  row* whole;  // (B·H)

  constexpr void operator()(slice<row> of, std::int64_t b) const {
    for (std::int64_t h = 0; h < of.size; ++h) whole[b * of.size + h] = of[h];
  }
};

/// What a turn finds: tokens that are protected or were kept in an earlier turn, and the others, of which it takes its
/// share. A row's own, or that of a pool (a layer's heads, or all layers') whose rows share a budget: this one evenly,
/// as far as rows hold it (lower layers and heads first), for the heads stage to move. Rows kept whole take no part.
struct next_turn {
  budget_shares shares;
  std::int32_t turn;
  bool by_row;
  score_rows ranked;  // as the turn's score left them: inactive where a fault was found
  row_pools pools;
  row *whole, *left;       // (B·H)
  std::int64_t* integers;  // (pools, 3, members)

  constexpr void operator()(slice<row>, std::int64_t pool) const {
    if (pool >= pools.count) return;
    pools.each(pool, [&](std::int64_t r) { begin(left[r], whole[r], ranked.rows[r]); });
    if (!by_row) return divide(pool);
    pools.each(pool, [&](std::int64_t r) {
      if (left[r].active) left[r].budget += static_cast<std::int32_t>(shares.of(whole[r].quota(), turn));
    });
  }

 private:
  constexpr void begin(row& it, row& all, row const& now) const {
    std::int32_t const kept = turn == 0 ? all.protected_tokens() : it.budget;
    if (!now.active) all = now;
    all.hidden = now.hidden;
    it = all;
    if (it.active) it.candidates = it.tokens - kept, it.budget = kept;
  }
  constexpr void divide(std::int64_t pool) const {
    score_rows all = ranked;
    all.rows = whole;
    pool_quota const of(all, pools, pool);
    if (of.rows == 0) return;
    std::int64_t const n = pools.members, asked = shares.of(of.tokens, turn);
    auto const at = [&](std::int64_t i) -> row& { return left[pools.row_of(pool, i)]; };
    auto const room = [&](std::int64_t i) { return at(i).active ? at(i).room() : 0; };
    std::int64_t held = 0;
    for (std::int64_t i = 0; i < n; ++i) held += room(i);
    std::int64_t const quota = asked < held ? asked : held;
    auto const parts = divided(
        quota, of.rows, n, integers + pool * n * listed_parts::integers,
        [&](std::int64_t i) { return at(i).active ? quota : 0; }, room);
    for (std::int64_t i = 0; i < n; ++i)
      if (row& it = at(i); it.active) it.budget += static_cast<std::int32_t>(parts.kept(i));
  }
};

/// Scratch of the turns of one plan.
struct turns {
  budget_shares shares;
  row *whole, *left;       // (B·H)
  std::int64_t* integers;  // (B, 3, H)
  std::int32_t* orders;    // (B·H, N)
  float* apart;            // (B·H, N), or null

  turns(frame& scratch, score_rows const& rows, budget_shares const& of, bool floats_apart)
      : shares(of),
        whole(scratch.allocate<row>(rows.count())),
        left(scratch.allocate<row>(rows.count())),
        integers(scratch.allocate<std::int64_t>(rows.count() * listed_parts::integers)),
        orders(scratch.allocate<std::int32_t>(rows.total_floats)),
        apart(floats_apart ? scratch.allocate<float>(rows.total_floats) : nullptr) {}

  static constexpr std::int64_t bytes(cache_shape const& s, bool floats_apart) {
    return 2 * scratch_step(s.rows() * std::int64_t{sizeof(row)}) +
           scratch_step(s.rows() * listed_parts::integers * 8) +
           (floats_apart ? 2 : 1) * scratch_step(s.rows() * s.tokens * 4);
  }

  /// Those rows with the budgets of all scores together.
  template <class Context> score_rows all(Context& ctx, score_rows ranked) const {
    kernels::each_sequence(ctx, ranked, put_aside{whole});
    ranked.rows = whole;
    return ranked;
  }
  /// What the turn's heads and select stages see.
  template <class Context>
  score_rows next(Context& ctx, score_rows ranked, std::int32_t turn, pool_over over, bool by_row) const {
    next_turn const f{shares, turn, by_row, ranked, row_pools(ranked, over), whole, left, integers};
    ranked.rows = left;
    if (turn != 0) ranked.positions = orders;
    kernels::each_sequence(ctx, ranked, f);
    return ranked;
  }
};

}  // namespace planning
}  // namespace KVEVICT_ABI
}  // namespace kvevict
