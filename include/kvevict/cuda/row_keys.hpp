// SPDX-License-Identifier: Apache-2.0
// The scores of a row as keys of the one total order, read many at a time.
#pragma once

#include <kvevict/core/score_rows.hpp>
#include <kvevict/cuda/radix.hpp>

namespace kvevict {
inline namespace v0 {
namespace cuda {

/// One row's keys and ranks; what does not depend on the token is read once.
struct row_keys {
  static constexpr int deep = 8;  // of a thread, under way at once

  float const* x;
  std::int32_t const* positions;        // or null: in order
  std::int32_t first, last, tokens;
  float weight = 1;
  std::uint32_t const* held = nullptr;  // the evictable tokens' keys in shared memory, once they are there

  KVEVICT_DEVICE row_keys(score_rows const& s, std::int64_t r)
      : x(s.values + s.begin[r]), positions(s.positions == nullptr ? nullptr : s.positions + s.begin[r]), first(s.rows[r].first), last(s.rows[r].last),
        tokens(s.rows[r].tokens) {}

  KVEVICT_DEVICE bool evictable(std::int32_t rank) const { return rank >= first && rank < last; }

  /// Keys and ranks of tokens from, from + step, …; beyond `end` the last one again: no read waits for another's branch.
  template <int N> KVEVICT_DEVICE void read(std::int64_t from, std::int64_t step, std::int32_t end, std::uint32_t (&key)[N], std::int32_t (&rank)[N]) const {
    KVEVICT_UNROLL
    for (int i = 0; i < N; ++i) rank[i] = static_cast<std::int32_t>(std::min<std::int64_t>(from + i * step, end - 1));
    if (held != nullptr) {
      KVEVICT_UNROLL
      for (int i = 0; i < N; ++i) key[i] = held[rank[i]];
    } else {
      KVEVICT_UNROLL
      for (int i = 0; i < N; ++i) key[i] = radix::key(multiply(x[rank[i]], weight));
    }
    if (positions != nullptr)
      KVEVICT_UNROLL
      for (int i = 0; i < N; ++i) rank[i] = positions[rank[i]];
  }
  /// f(token, key, rank) of this thread's share of the evictable tokens of [from, end).
  template <class F> KVEVICT_DEVICE void for_each(thread& t, std::int64_t from, std::int32_t end, F f) const {
    std::int64_t const step = t.block_size().x;
    for (std::int64_t j = from + t.rank(); j < end; j += deep * step) {
      std::uint32_t key[deep];
      std::int32_t rank[deep];
      read(j, step, end, key, rank);
      KVEVICT_UNROLL
      for (int i = 0; i < deep; ++i)
        if (j + i * step < end && evictable(rank[i])) f(static_cast<std::int32_t>(j + i * step), key[i], rank[i]);
    }
  }
};

}  // namespace cuda
}  // namespace v0
}  // namespace kvevict
