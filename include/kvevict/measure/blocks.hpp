// SPDX-License-Identifier: Apache-2.0
// Blocks of query rows, and their weights over one row of the cache.
#pragma once

#include <cstdint>

#include <kvevict/cache/layer_view.hpp>
#include <kvevict/core/queries.hpp>
#include <kvevict/core/score_rows.hpp>
#include <kvevict/core/slice.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace measure {

/// Query rows [first, last) of a sequence, of those that are measured.
struct row_block {
  std::int32_t sequence, first, last;

  constexpr std::int32_t count() const { return last - first; }
};

/// Attention of one row: to all tokens, to those that stay, and to others than the cache's tokens.
struct row_mass {
  double tokens, kept, others;
};

/// Weights of a block of query rows over one row of the cache, and scratch. Row i: query head i / count of the group,
/// query row i % count.
struct block_weights {
  double* of_tokens;       // (G·rows, N); 0 where a row does not see a token
  double* of_others;       // (G·rows) of what the engine's softmax had besides: a learned sink, tokens of other shards
  double *queries, *sums;  // (G·rows, D), (G·rows)
  float* buffer;           // (N)

  /// Of row i over N tokens. All kept: both numbers are the same.
  row_mass mass(std::int64_t i, std::int64_t N, slice<std::int32_t const> kept) const {
    row_mass out{0, 0, of_others[i]};
    for (std::int64_t j = 0; j < N; ++j) out.tokens += of_tokens[i * N + j];
    for (std::int32_t const j : kept) out.kept += of_tokens[i * N + j];
    return out;
  }
};

/// The rows of attention that are measured.
template <class Entry> struct measured_rows {
  layer_view<Entry> const& view;
  score_rows all;              // of the cache
  std::int32_t const* counts;  // (B) rows of attention
  std::int32_t group;
  row_place place;

  /// What others than the tokens have where those have `sum`; `sink`: a learned one's weight.
  double others(row_sum expected, double sum, double sink) const {
    return place == row_place::behind_cache || expected == row_sum::at_most_one ? sum < 1 ? 1 - sum : 0 : sink;
  }
};

}  // namespace measure
}  // namespace KVEVICT_ABI
}  // namespace kvevict
