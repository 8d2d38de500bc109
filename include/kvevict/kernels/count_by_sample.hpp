// SPDX-License-Identifier: Apache-2.0
// The best tokens over all rows of a pool, as counts per row: a sample of their scores says about where they end.
#pragma once

#include <algorithm>
#include <cstdint>

#include <kvevict/core/fill.hpp>
#include <kvevict/core/host.hpp>
#include <kvevict/core/score_rows.hpp>
#include <kvevict/kernels/best_of_scores.hpp>
#include <kvevict/kernels/bits.hpp>
#include <kvevict/kernels/require_finite.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {
namespace select {

/// A pool of rows in order, whose scores compete as they are.
class sampled_pool {
 public:
  sampled_pool(host& ctx, frame& scratch, score_rows const& s, row_pools const& pools, std::int64_t pool)
      : ctx_(ctx), count_(pools.members), rows_(scratch.allocate<member>(count_)) {
    for (std::int64_t i = 0; i < count_; ++i) {
      row& it = s.rows[pools.row_of(pool, i)];
      member& m = rows_[i] = {};
      m.x = s.values + s.begin[pools.row_of(pool, i)] + it.first, m.first = it.first, m.known = &it.known;
      m.n = it.active ? it.candidates : 0, m.room = it.room();
      m.near = scratch.allocate<std::uint32_t>(m.n);
      n_ += m.n;
    }
    together_ = scratch.allocate<std::uint32_t>(n_);
    table_ = scratch.allocate<std::uint32_t>(radix::table_size);
  }

  /// How many of the k best lie in each row, where the `forced` best of every row come first: a row that has fewer
  /// among the best gets just these, and the others share what is left, until none has fewer. The rows remember between
  /// which keys the last one is. False where a score is not finite, the sample has misled, or too few scores or too
  /// many such turns are left; `counts` says nothing then.
  bool count_best(std::int64_t k, std::int32_t forced, std::int32_t* counts) {
    for (int turn = 0; turn < most_turns && k > 0 && n_ >= least_sampled && count_best(k, counts); ++turn) {
      bool fewer = false;
      for (std::int64_t i = 0; i < count_; ++i) {
        member& m = rows_[i];
        auto const floor = std::min(forced, m.n == 0 ? 0 : m.room);
        if (counts[i] < floor) m.at_floor = floor, k -= floor, n_ -= m.n, m.n = 0, fewer = true;
      }
      if (fewer) continue;
      for (std::int64_t i = 0; i < count_; ++i) counts[i] += rows_[i].at_floor;
      return true;
    }
    return false;
  }

 private:
  static constexpr int most_turns = 8;  // so that the cost stays O(n) whatever the scores are

  /// Without floors; 1 ≤ k ≤ n_.
  bool count_best(std::int64_t k, std::int32_t* counts) {
    bracket const b = guess(k);
    each([&](member& m) {
      inside const in(m.x, m.n, b, m.near);
      *m.known = {b.low, b.high, static_cast<std::int32_t>(in.from_high),
                  static_cast<std::int32_t>(in.from_high + in.size)};
      m.above = in.from_high, m.size = in.size, m.finite = are_finite(m.x, m.n);
    });
    if (!std::all_of(rows_, rows_ + count_, [](member const& m) { return m.finite; })) return false;
    std::int64_t const from_high = sum(&member::above), before_low = from_high + sum(&member::size);
    radix::cut c{k <= from_high ? b.high : b.low, k, 0};
    if (k > from_high && k <= before_low)
      c = cut_near(k - from_high);
    else if (!cut_at(c))
      return false;
    if (c.take < c.equal) {
      each([&](member& m) { collect_ties(m, c.key); });
      c = cut_near(c.take);
    }
    for (std::int64_t i = 0; i < count_; ++i) {
      std::int64_t const here = std::min(c.take, rows_[i].equal);
      counts[i] = static_cast<std::int32_t>(rows_[i].above + here);
      c.take -= here;
    }
    return true;
  }

  struct member {
    float const* x;
    std::int64_t n;                   // 0 of one that has its floor
    std::int32_t room;
    std::uint32_t* near;              // (n) keys near the cut, of scores or of orders
    std::int64_t size, above, equal;  // of `near`; scores beyond the cut, and at it
    std::int32_t first, at_floor;
    bool finite;
    key_bracket* known;
  };

  template <class F> void each(F f) {
    ctx_.for_each(
        count_, [&](std::int64_t i, std::int32_t) { f(rows_[i]); }, n_);
  }
  std::int64_t sum(std::int64_t member::*number) const {
    std::int64_t out = 0;
    for (std::int64_t i = 0; i < count_; ++i) out += rows_[i].*number;
    return out;
  }
  /// The sample is shared out as a whole: of short rows, parts rounded one by one would all be empty.
  bracket guess(std::int64_t k) {
    std::int64_t const wanted = sample_size(n_);
    std::int64_t size = 0, seen = 0;
    for (std::int64_t i = 0; i < count_; ++i) {
      seen += rows_[i].n;
      std::int64_t const part = wanted * seen / n_ - size;
      take_sample(rows_[i].x, rows_[i].n, part, together_ + size);
      size += part;
    }
    return around(together_, size, n_, k, table_);
  }
  /// The k-th best of what is near.
  radix::cut cut_near(std::int64_t k) {
    std::int64_t size = 0;
    for (std::int64_t i = 0; i < count_; size += rows_[i++].size)
      kvevict::copy_n(rows_[i].near, rows_[i].size, together_ + size);
    radix::cut const c = radix::best(together_, size, k, table_);
    for (std::int64_t i = 0; i < count_; ++i) {
      member& m = rows_[i];
      m.equal = 0;
      for (std::int64_t j = 0; j < m.size; ++j) m.above += m.near[j] > c.key, m.equal += m.near[j] == c.key;
    }
    return c;
  }
  /// Whether c.key is the c.take-th best of all: where many scores equal an end of the bracket.
  bool cut_at(radix::cut& c) {
    each([&](member& m) {
      m.above = count_above(m.x, m.n, c.key);
      m.equal = count_above(m.x, m.n, c.key - 1) - m.above;
    });
    c.take -= sum(&member::above), c.equal = sum(&member::equal);
    return c.take > 0 && c.take <= c.equal;
  }
  static void collect_ties(member& m, std::uint32_t key) {
    m.size = 0;
    for (std::int64_t i = 0; i < m.n; i += 64)
      for (std::uint64_t ties = equal(m.x + i, m.n - i, key); ties != 0; ties &= ties - 1)
        m.near[m.size++] = order_key(m.first + static_cast<std::int32_t>(i) + lowest_bit(ties));
  }

  host& ctx_;
  std::int64_t count_, n_ = 0;
  member* rows_;
  std::uint32_t *together_ = nullptr, *table_ = nullptr;  // (n), (copies, buckets)
};

}  // namespace select
}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
