// SPDX-License-Identifier: Apache-2.0
// From scores to a keep set: the best of every row, in the one total order.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>

#include <kvevict/cache/keep_set.hpp>
#include <kvevict/core/host.hpp>
#include <kvevict/core/score_rows.hpp>
#include <kvevict/kernels/best_of_scores.hpp>
#include <kvevict/kernels/bits.hpp>
#include <kvevict/kernels/candidates.hpp>
#include <kvevict/kernels/kernel.hpp>
#include <kvevict/kernels/radix.hpp>
#include <kvevict/kernels/worst_of_scores.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {

void has_kernel(select_best_tag, host&);

/// Scratch that `select_best` takes: rows, the most candidates of a row, the context's concurrency.
constexpr std::int64_t select_best_bytes(std::int64_t rows, std::int64_t candidates, std::int32_t concurrency) {
  std::int64_t const workers = std::min<std::int64_t>(rows, concurrency);
  return workers * ((candidates + 15) / 16 * 64 + radix::table_size * 4);
}

namespace select {

/// Ascending slots of one kept row, written front to back.
struct writer {
  std::int32_t* next;
  std::int32_t* end;

  void all(std::int32_t from, std::int32_t to) {
    std::iota(next, next + (to - from), from);
    next += to - from;
  }
  /// Tokens of [from, to) whose scores have keys above that one.
  void above(float const* x, std::int32_t from, std::int32_t to, std::uint32_t key) {
    for (std::int32_t j = from; j < to; j += 64) put(select::above(x + j, to - j, key), j);
  }
  /// Token from + i for every bit i.
  void put(std::uint64_t bits, std::int32_t from) {
    if (end - next >= 64) {  // room for four at once, too many at the end: that costs less than a loop of any length
      std::int32_t const n = bit_count(bits);
      for (std::int32_t i = 0; i < n; i += 4)
        for (std::int32_t k = 0; k < 4; ++k, bits &= bits - 1) next[i + k] = from + lowest_bit(bits);
      next += n;
    } else {
      for (; bits != 0 && next != end; bits &= bits - 1) *next++ = from + lowest_bit(bits);
    }
  }
  /// Tokens of [from, to) for which keep(token).
  template <class Keep> void those(std::int32_t from, std::int32_t to, Keep keep) {
    std::int32_t j = from;
    for (; j + 64 <= to; j += 64) put(radix::mask([&](std::int32_t i) { return keep(j + i); }), j);
    for (; j < to && next != end; ++j)
      if (keep(j)) *next++ = j;
  }
};

/// Where the ties that stay begin, of which the oldest go: behind the (equal − take)-th of them.
inline std::int32_t ties_from(float const* x, std::int32_t first, std::int32_t last, radix::cut const& c) {
  std::int64_t dropped = c.equal - c.take;
  for (std::int32_t j = first; dropped > 0; j += 64) {
    std::uint64_t ties = equal(x + j, last - j, c.key);
    if (std::int64_t const here = bit_count(ties); here < dropped) {
      dropped -= here;
      continue;
    }
    while (--dropped > 0) ties &= ties - 1;
    first = j + lowest_bit(ties) + 1;
  }
  return first;
}

/// Slots in order of position: ties go to the larger slot.
inline void ascending(row const& it, float const* x, std::uint32_t* keys, std::uint32_t* counts, writer& out) {
  radix::cut const c = best_of_scores(x + it.first, it.last - it.first, it.quota(), it.known, keys, counts);
  std::int32_t const kept_ties = ties_from(x, it.first, it.last, c);
  out.above(x, it.first, kept_ties, c.key);
  out.above(x, kept_ties, it.last, c.key - 1);
}

/// Slots in any order: ties go to the larger position, and among equal positions to the larger slot.
inline void scattered(row const& it, float const* x, std::int32_t const* positions, std::uint32_t* keys,
                      std::uint32_t* counts, writer& out) {
  auto const evictable = [&](std::int32_t j) { return positions[j] >= it.first && positions[j] < it.last; };
  std::int64_t n = 0;
  for (std::int32_t j = 0; j < it.tokens && n < it.candidates; ++j) keys[n] = order_key(x[j]), n += evictable(j);
  radix::cut const c = radix::best(keys, n, it.quota(), counts);
  n = 0;
  for (std::int32_t j = 0; j < it.tokens; ++j)
    if (evictable(j) && order_key(x[j]) == c.key) keys[n++] = order_key(positions[j]);
  radix::cut const p = radix::best(keys, n, c.take, counts);
  std::int64_t dropped = p.equal - p.take;
  out.those(0, it.tokens, [&](std::int32_t j) {
    if (!evictable(j)) return true;
    std::uint32_t const score = order_key(x[j]), position = order_key(positions[j]);
    if (score != c.key) return score > c.key;
    if (position != p.key) return position > p.key;
    return dropped-- <= 0;
  });
}

/// Kept tokens of row r to `out`.
inline void row_of(score_rows const& s, std::int64_t r, std::uint32_t* keys, std::uint32_t* counts, writer out) {
  row const& it = s.rows[r];
  float const* const x = s.values + s.begin[r];
  if (!it.active || it.quota() == it.candidates) {
    out.all(0, it.tokens);
  } else if (it.quota() + 1 == it.candidates) {
    std::int32_t const goes = s.positions == nullptr ? worst_ascending(x, it.first, it.last)
                                                     : worst_scattered(it, x, s.positions + s.begin[r]);
    out.all(0, goes);
    out.all(goes + 1, it.tokens);
  } else if (s.positions != nullptr) {
    if (it.quota() == 0)
      out.those(0, it.tokens, [&](std::int32_t j) { return !s.evictable(r, j); });
    else
      scattered(it, x, s.positions + s.begin[r], keys, counts, out);
  } else {
    out.all(0, it.first);
    if (it.quota() > 0) ascending(it, x, keys, counts, out);
    out.all(it.last, it.tokens);
  }
}

/// keep(r, keys, counts) for every row, with scratch for row_of.
template <class Keep> void each_row(host& ctx, score_rows const& s, Keep keep) {
  std::int64_t most = 0;
  for (std::int64_t r = 0; r < s.count(); ++r)
    if (s.rows[r].active) most = std::max<std::int64_t>(most, s.rows[r].candidates);
  std::int64_t const stride = (most + 15) / 16 * 16, workers = std::min<std::int64_t>(s.count(), ctx.concurrency());
  frame scratch(ctx.scratch());
  auto* const keys = scratch.allocate<std::uint32_t>(workers * stride);               // (workers, M)
  auto* const counts = scratch.allocate<std::uint32_t>(workers * radix::table_size);  // (workers, copies, buckets)
  ctx.for_each(
      s.count(),
      [&](std::int64_t r, std::int32_t worker) {
        keep(r, keys + worker * stride, counts + worker * radix::table_size);
      },
      s.begin[s.count()]);
}

inline void expect_rows(char const* verb, score_rows const& s) {
  for (std::int64_t r = 0; r < s.count(); ++r) {
    expect_candidates(verb, s, r);
    expect_budget(verb, s, r);
  }
}

inline void prepare(score_rows const& s, keep_set& out) {
  auto const rows = static_cast<std::size_t>(s.count());
  expect_rows("select_best", s);
  out.sequences = s.sequences;
  out.heads = s.heads;
  out.lengths.resize(rows);
  out.row_begin.resize(rows + 1);
  out.row_begin[0] = 0;
  for (std::size_t r = 0; r < rows; ++r) {
    out.lengths[r] = s.rows[r].tokens;
    out.row_begin[r + 1] = out.row_begin[r] + (s.rows[r].active ? s.rows[r].budget : s.rows[r].tokens);
  }
  out.tokens.resize(static_cast<std::size_t>(out.row_begin[rows]));
}

}  // namespace select

/// Protected tokens and the quota() best evictable ones of each active row; inactive rows keep all.
///
///   order   score descending (−0 = +0), position descending
///
/// Shapes   scores (B·H, N) ragged, finite where evictable → ascending slots (B·H, budget) ragged.
/// Cost     O(N) a row: about three passes over the scores; one worker per row.
/// Errors   contract_violation if a budget is outside [protected, tokens], or the candidates are not what the interval
///          holds.
inline void kernel(select_best_tag, host& ctx, score_rows const& s, keep_set& out) {
  select::prepare(s, out);
  std::int32_t* const tokens = out.tokens.data();
  select::each_row(ctx, s, [&](std::int64_t r, std::uint32_t* keys, std::uint32_t* counts) {
    auto const i = static_cast<std::size_t>(r);
    select::row_of(s, r, keys, counts, {tokens + out.row_begin[i], tokens + out.row_begin[i + 1]});
  });
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
