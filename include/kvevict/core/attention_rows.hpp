// SPDX-License-Identifier: Apache-2.0
// Softmax rows that an engine with eager attention provides.
#pragma once

#include <cstdint>

#include <kvevict/core/queries.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// Which column of a softmax row is a token's: its slot in the row, or the cell of the cache that it lies in, page id ·
/// page size + slot of the page (llama.cpp's cells are pages of one slot).
enum class columns : std::uint8_t { by_slot, by_entry };

/// By how much the sum of a softmax row may differ from 1: what weights of 16 bits lose.
inline constexpr double softmax_tolerance = 0.02;

/// Attention weights of some tokens of each sequence over the slots of the cache, placed like `query_rows`: row t of
/// head hq is weights[t·token_stride + hq·head_stride + slot], one float per slot of its KV head's row, each row
/// summing to 1. What it holds of tokens that the row does not see is not read.
struct attention_rows {
  float const* weights = nullptr;  // (T, Hq, ≥ N)
  std::int64_t token_stride = 0, head_stride = 0;
  std::int32_t heads = 0;                   // Hq
  std::int32_t slots = 0;                   // floats in a row, at least the longest N
  std::int32_t const* row_begin = nullptr;  // (B + 1), or (B) with row_count
  std::int32_t const* positions = nullptr;  // (T) logical positions; null: row i of n is token N − n + i
  std::int32_t most_rows = 0;               // of a sequence, or more; only a device context reads it, and needs it
  row_sum sum = row_sum::one;
  visibility sees{};
  columns by = columns::by_slot;

  std::int32_t const* row_count = nullptr;           // (B), or null
  std::int64_t seq_stride = 0, position_stride = 0;  // elements from a sequence's rows to the next one's
  std::int32_t sequences = 0;                        // S of a layer, see query_rows
  std::int64_t layer_stride = 0;                     // floats from a layer's rows to the next one's; with S
  float const* const* layers = nullptr;              // (L) in place of `weights`: each layer's

  constexpr row_places places() const { return {row_begin, row_count, sequences, positions, position_stride}; }
  constexpr bool has_data() const { return weights != nullptr || layers != nullptr; }
  /// What rows of sequence b are counted from.
  constexpr float const* weights_of(std::int32_t b) const {
    row_places const in = places();
    float const* const base = layers == nullptr ? weights : layers[in.layer_of(b)];
    return base + in.offset(b, seq_stride, layers == nullptr ? layer_stride : 0);
  }
  constexpr std::int32_t const* positions_of(std::int32_t b) const { return places().positions_of(b); }
  constexpr std::int32_t rows(std::int32_t b) const { return places().rows(b); }
  constexpr std::int64_t first_row(std::int32_t b) const { return places().first_row(b); }
};

}  // namespace KVEVICT_ABI
}  // namespace kvevict
