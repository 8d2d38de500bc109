// SPDX-License-Identifier: Apache-2.0
// Rows whose slots are in no order: positions beside the scores, and protected ends found among them.
#pragma once

#include <kvevict/cache/layer_view.hpp>
#include <kvevict/core/order_key.hpp>
#include <kvevict/core/score_rows.hpp>
#include <kvevict/cuda/context/device.hpp>
#include <kvevict/evidence/new_rows.hpp>
#include <kvevict/evidence/planning.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

/// positions[r, j] = the position component of token j. Grid: (row, 256 tokens).
///
/// Shapes   a view of (B·H) rows → positions (B·H, N).
template <class Entry> struct gather_positions_kernel {
  static constexpr int max_threads = 256;
  watched watch;
  layer_view<Entry> cache;
  score_rows out;
  std::int32_t* positions;
  std::uint32_t chunks;

  KVEVICT_DEVICE void operator()(thread& t) const {
    std::int64_t const r = t.block().x / chunks, j = std::int64_t{t.block().x % chunks} * 256 + t.linear_index();
    if (watch.stopped(t) || j >= out.rows[r].tokens) return;
    row const& it = out.rows[r];
    positions[out.begin[r] + j] =
        element<std::int32_t const>(cache, *cache.find(role::position), it.sequence, it.head, j);
  }
};

/// From [first, last) as ranks in order of position to positions: the `first`-th smallest, and one beyond the (last −
/// 1)-th. One block per row; 32 passes over the row's positions, each of which settles one bit of both, and one that
/// counts what lies between. Before, where `then` knows rows of evidence (`then.takes_in(row)`), the new tokens are
/// counted, none of which lies behind the last of those rows. Then `then` goes over the row.
///
/// Shapes   positions (B·H, N) → ends of rows (B·H).
template <class Then> struct interval_kernel {
  static constexpr int max_threads = 256;
  watched watch;
  score_rows out;
  bool active_only;
  Then then;

  KVEVICT_DEVICE void operator()(thread& t) const {
    if (watch.stopped(t)) return;
    std::int64_t const r = t.block().x;
    row it = out.rows[r];
    wrong_rows wrong{};
    if constexpr (requires { then.takes_in(it); })
      if (then.takes_in(it) && it.tokens > 0 && then.places.positions != nullptr) wrong = count_fresh(t, r, it);
    if (it.candidates == 0 || (active_only && !it.active)) {
      t.sync_block();  // all have read it
      if (t.linear_index() != 0) return;
      refuse(t, it, wrong);
      out.rows[r].candidates = it.candidates;
      then(out.rows[r]);
      return;
    }
    KVEVICT_SHARED(t, std::uint32_t, below, 2);
    std::uint32_t wanted[2] = {static_cast<std::uint32_t>(it.first), static_cast<std::uint32_t>(it.last - 1)},
                  found[2] = {0, 0};
    std::int32_t const* const positions = out.positions + out.begin[r];
    for (std::uint32_t bit = 0x80000000u; bit != 0; bit >>= 1) {
      if (t.linear_index() < 2) below[t.linear_index()] = 0;
      t.sync_block();
      std::uint32_t mine[2] = {0, 0};
      for (std::int64_t j = t.linear_index(); j < it.tokens; j += t.block_size().x)
        for (int e = 0; e < 2; ++e) mine[e] += order_key(positions[j]) < (found[e] | bit);
      for (int e = 0; e < 2; ++e) atomic_add(t, &below[e], mine[e]);
      t.sync_block();
      for (int e = 0; e < 2; ++e)
        if (below[e] <= wanted[e]) found[e] |= bit;
      t.sync_block();
    }
    std::int32_t const first = integer_of_key(found[0]), last = planning::behind(integer_of_key(found[1]));
    if (t.linear_index() == 0) below[0] = 0;
    t.sync_block();
    std::uint32_t mine = 0;
    for (std::int64_t j = t.linear_index(); j < it.tokens; j += t.block_size().x)
      mine += positions[j] >= first && positions[j] < last;
    atomic_add(t, &below[0], mine);
    t.sync_block();
    if (t.linear_index() != 0) return;
    if (below[0] != static_cast<std::uint32_t>(it.candidates))
      watch.refuse(t, fault::equal_positions, it.sequence, it.head);
    else
      refuse(t, it, wrong);
    out.rows[r].first = first, out.rows[r].last = last, out.rows[r].candidates = it.candidates;
    then(out.rows[r]);
  }

 private:
  struct wrong_rows {
    older_fault what = older_fault::none;
    std::int64_t older = 0, known = 0;
  };

  KVEVICT_DEVICE void refuse(thread& t, row const& it, wrong_rows const& wrong) const {
    if (wrong.what != older_fault::none)
      watch.refuse(t, fault::older_tokens, it.sequence, it.head, wrong.older, wrong.known, 0,
                   static_cast<std::int32_t>(wrong.what));
  }

  /// The interval of the row's tokens that are not new, by position; or what is wrong with the rows.
  KVEVICT_DEVICE wrong_rows count_fresh(thread& t, std::int64_t r, row& it) const {
    KVEVICT_SHARED(t, std::uint32_t, fresh, 1);
    KVEVICT_SHARED(t, std::uint32_t, newest_key, 1);
    if (t.linear_index() == 0) fresh[0] = newest_key[0] = 0;
    t.sync_block();
    std::int32_t const* const positions = out.positions + out.begin[r];
    std::int32_t const count = then.places.rows(it.sequence), begin = then.places.position(it.sequence, 0);
    std::uint32_t mine = 0, highest = 0;
    for (std::int64_t j = t.linear_index(); j < it.tokens; j += t.block_size().x)
      mine += positions[j] >= begin, highest = std::max(highest, order_key(positions[j]));
    atomic_add(t, &fresh[0], mine);
    atomic_max(t, &newest_key[0], highest);
    t.sync_block();
    std::int64_t const last = planning::last_position(then.places, it.sequence), newest = integer_of_key(newest_key[0]);
    older_fault const wrong =
        last < newest ? older_fault::rows_before_newest : check_fresh(fresh[0], count, then.is_shard);
    if (wrong == older_fault::rows_before_newest) return {wrong, newest, last};
    if (wrong != older_fault::none) return {wrong, fresh[0], count};
    planning::protect_interval(it, 0, static_cast<std::int32_t>(fresh[0]));
    return {};
  }
};

/// Nothing for rows in order.
template <class Entry, class Then>
void rank_by_position(device& ctx, layer_view<Entry> const& cache, score_rows const& out, bool active_only,
                      Then const& then) {
  if (out.positions == nullptr) return;
  auto const chunks = static_cast<std::uint32_t>((out.most_tokens + 255) / 256),
             rows = static_cast<std::uint32_t>(out.count());
  ctx.launch({rows * chunks}, {256}, 0,
             gather_positions_kernel<Entry>{ctx.watch(), cache, out, const_cast<std::int32_t*>(out.positions), chunks});
  ctx.launch({rows}, {256}, 0, interval_kernel<Then>{ctx.watch(out.verb()), out, active_only, then});
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda
