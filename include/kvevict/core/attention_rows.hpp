// SPDX-License-Identifier: Apache-2.0
// Softmax rows that an engine with eager attention provides.
#pragma once

#include <cstdint>

#include <kvevict/core/row_places.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// Attention weights of some tokens of each sequence over the slots of the cache, ragged like `query_rows`: row t of
/// head hq is weights[t·token_stride + hq·head_stride + slot], one float per slot of its KV head's row, each row
/// summing to 1.
struct attention_rows {
  float const* weights = nullptr;  // (T, Hq, ≥ N)
  std::int64_t token_stride = 0, head_stride = 0;
  std::int32_t heads = 0;                   // Hq
  std::int32_t slots = 0;                   // floats in a row, at least the longest N
  std::int32_t const* row_begin = nullptr;  // (B + 1)
  std::int32_t const* positions = nullptr;  // (T) logical positions; null: row i of n is token N − n + i
  std::int32_t most_rows = 0;               // of a sequence, or more; only a device context reads it, and needs it

  constexpr row_places places() const { return {row_begin, positions}; }
  constexpr std::int32_t rows(std::int32_t b) const { return places().rows(b); }
  constexpr std::int64_t first_row(std::int32_t b) const { return places().first_row(b); }
};

}  // namespace KVEVICT_ABI
}  // namespace kvevict
