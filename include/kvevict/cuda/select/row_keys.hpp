// SPDX-License-Identifier: Apache-2.0
// The scores of a row as keys of the one total order, read many at a time.
#pragma once

#include <algorithm>

#include <kvevict/core/score_rows.hpp>
#include <kvevict/cuda/select/radix.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

/// The keys of a row in order, four by one load: each row begins at a multiple of 16 bytes and has room for whole
/// vectors. What such a vector holds besides evictable tokens has key 0, below all scores. Held: they stay in shared
/// memory, and the scores are read once.
template <bool Held> struct ordered_keys {
  static constexpr std::uint32_t deep = 4;  // vectors of a thread, under way at once

  float const* x;
  std::uint32_t first, last;      // evictable tokens
  float weight = 1;               // not of held ones
  std::uint32_t* held = nullptr;  // (tokens)

  KVEVICT_DEVICE ordered_keys(score_rows const& s, std::int64_t r) : x(s.values + s.begin[r]) {
    row const& it = s.rows[r];
    last = static_cast<std::uint32_t>(std::max(std::min(it.last, it.tokens), 0));
    first = std::min(static_cast<std::uint32_t>(std::max(it.first, 0)), last);
  }

  /// Of the first vector that has an evictable token.
  KVEVICT_DEVICE std::uint32_t begin() const { return first / 4 * 4; }

  /// What the vector from token j on is made of, in `turn` 0: its scores; later, if they are held: its keys. Behind the
  /// last one: anything. Scores are read under a condition, else the compiler moves each read down to its use, where
  /// one waits for the other.
  KVEVICT_DEVICE vec128 load(thread& t, std::uint32_t j, int turn) const {
    if (Held && turn > 0) return load_vec128(t, held + std::min(j, (last - 1) / 4 * 4));
    vec128 v{};
    if (j < last) v = load_vec128(t, x + j);
    return v;
  }
  /// Zeros behind the last one.
  KVEVICT_DEVICE void to_keys(vec128& v, std::uint32_t j, int turn) const {
    if (Held && turn > 0) {
      if (j >= last) v = {};
      return;
    }
    KVEVICT_UNROLL
    for (std::uint32_t& word : v.words) {
      float score;
      memcpy(&score, &word, sizeof score);
      if constexpr (!Held) score = multiply(score, weight);
      word = order_key(score);
    }
    if (j >= first && j + 4 <= last) return;
    KVEVICT_UNROLL
    for (std::uint32_t w = 0; w < 4; ++w)
      if (j + w < first || j + w >= last) v.words[w] = 0;
  }

  /// f(key, order) of this thread's share of the vectors of [from, end), which begins with one; held keys are there
  /// from turn 1 on.
  template <class F>
  KVEVICT_DEVICE void for_each(thread& t, std::uint32_t from, std::uint32_t end, int turn, F f) const {
    from = std::max(from, begin()), end = std::min(end, last);
    std::uint32_t const step = 4 * t.block_size().x;
    KVEVICT_KEEP_LOOP
    for (std::uint32_t j = from + 4 * t.linear_index(); j < end; j += deep * step) {
      vec128 v[deep];
      KVEVICT_UNROLL
      for (std::uint32_t e = 0; e < deep; ++e) v[e] = load(t, j + e * step, turn);
      KVEVICT_UNROLL
      for (std::uint32_t e = 0; e < deep; ++e) {
        std::uint32_t const at = j + e * step;
        if (at >= end) break;
        to_keys(v[e], at, turn);
        if (Held && turn == 0) store_vec128(t, held + at, v[e]);
        KVEVICT_UNROLL
        for (std::uint32_t w = 0; w < 4; ++w) f(v[e].words[w], static_cast<std::int32_t>(at + w));
      }
    }
  }
};

/// One row's keys and orders, in no order; what does not depend on the token is read once.
struct scattered_keys {
  static constexpr std::uint32_t deep = 8;  // tokens of a thread, under way at once

  float const* x;
  std::int32_t const* positions;
  std::int32_t first, last;
  std::uint32_t tokens;
  float weight = 1;
  std::uint32_t* held = nullptr;  // (tokens) the evictable tokens' keys in shared memory, once `hold` was called

  KVEVICT_DEVICE scattered_keys(score_rows const& s, std::int64_t r)
      : x(s.values + s.begin[r]),
        positions(s.positions + s.begin[r]),
        first(s.rows[r].first),
        last(s.rows[r].last),
        tokens(static_cast<std::uint32_t>(s.rows[r].tokens)) {}

  KVEVICT_DEVICE bool evictable(std::int32_t order) const { return order >= first && order < last; }

  /// Others may read them behind a barrier.
  KVEVICT_DEVICE void hold(thread& t, std::uint32_t* keys) {
    visit(t, 0, tokens, [&](std::uint32_t j, std::uint32_t key, std::int32_t) { keys[j] = key; });
    held = keys;
  }

  /// Keys and orders of tokens from, from + step, …; beyond `end` the last one again: no read waits for another's
  /// branch.
  template <std::uint32_t N>
  KVEVICT_DEVICE void read(std::uint32_t from, std::uint32_t step, std::uint32_t end, std::uint32_t (&key)[N],
                           std::int32_t (&order)[N]) const {
    std::uint32_t at[N];
    KVEVICT_UNROLL
    for (std::uint32_t i = 0; i < N; ++i) at[i] = std::min(from + i * step, end - 1);
    if (held != nullptr) {
      KVEVICT_UNROLL
      for (std::uint32_t i = 0; i < N; ++i) key[i] = held[at[i]];
    } else {
      KVEVICT_UNROLL
      for (std::uint32_t i = 0; i < N; ++i) key[i] = order_key(multiply(x[at[i]], weight));
    }
    KVEVICT_UNROLL
    for (std::uint32_t i = 0; i < N; ++i) order[i] = positions[at[i]];
  }
  /// f(key, order) of this thread's share of the evictable tokens of [from, end).
  template <class F> KVEVICT_DEVICE void for_each(thread& t, std::uint32_t from, std::uint32_t end, int, F f) const {
    visit(t, from, std::min(end, tokens), [&](std::uint32_t, std::uint32_t key, std::int32_t order) { f(key, order); });
  }

 private:
  template <class F> KVEVICT_DEVICE void visit(thread& t, std::uint32_t from, std::uint32_t end, F f) const {
    std::uint32_t const step = t.block_size().x;
    KVEVICT_KEEP_LOOP
    for (std::uint32_t j = from + t.linear_index(); j < end; j += deep * step) {
      std::uint32_t key[deep];
      std::int32_t order[deep];
      read(j, step, end, key, order);
      KVEVICT_UNROLL
      for (std::uint32_t i = 0; i < deep; ++i)
        if (j + i * step < end && evictable(order[i])) f(j + i * step, key[i], order[i]);
    }
  }
};

}  // namespace kvevict::inline KVEVICT_ABI::cuda
