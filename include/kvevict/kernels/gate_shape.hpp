// SPDX-License-Identifier: Apache-2.0
// What a call of the gate kernel works on: its checks, its scratch, its tiles of tokens.
#pragma once

#include <algorithm>

#include <kvevict/core/contract.hpp>
#include <kvevict/core/evidence_messages.hpp>
#include <kvevict/core/gate.hpp>
#include <kvevict/kernels/kernel.hpp>
#include <kvevict/kernels/tile.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {
/// The checks of a gate and of what it reads.
inline void expect_gate(gate_weights const& w, feature_rows const& in, gate_mask sees, std::int32_t sequences,
                        std::int32_t heads) {
  expect_gate(w, in, sequences, heads);
  gate_memory const& m = in.memory;
  std::int64_t last = -1;  // row that is read
  for (std::int32_t b = 0; b < sequences; ++b) {
    KVEVICT_EXPECTS(!in.places().descends(b) && in.rows(b) >= 0, "gate: row_begin descends at sequence ", b,
                    "; it must be B+1 ascending offsets");
    if (in.rows(b) > 0) last = std::max(last, in.first_row(b) + in.rows(b) - 1);
  }
  if (in.data == nullptr && last >= 0) messages::no_hidden_states();
  expect_feature_stride(in, last);
  for (std::int32_t b = 0; b < sequences; ++b) {
    if (m.rows == nullptr) continue;
    if (m.tokens[b] < 0 || std::int64_t{m.tokens[b]} + in.rows(b) > m.capacity)
      messages::gate_memory_full(m.tokens[b], in.rows(b), b, m.capacity);
    if (sees != gate_mask::causal && in.rows(b) > 0 && m.tokens[b] != 0) messages::gate_continues(b, m.tokens[b]);
  }
}

/// As many features of a tile as meet all weights before the next ones do: they stay in the first-level cache.
inline constexpr std::int32_t feature_block = 128;
static_assert(feature_block % lanes == 0);

/// Scratch of a gate call, in floats: the weights as floats, Q', K' and V' of all new tokens, then per worker of a tile
/// its Q', K' and V' and a block of its features, or its C.
struct gate_shape {
  std::int64_t features, width, flags;  // E, Hg·dg, H or Hq
  std::int64_t tokens, tiles;           // new tokens and their tiles, all sequences

  constexpr std::int64_t padded_rows() const { return padded(3 * width, row_block); }  // of Wq, Wk and Wv
  constexpr std::int64_t weight_floats() const { return padded(padded_rows() * features + flags * (width + 1), 16); }
  constexpr std::int64_t query_floats() const { return padded(tiles * width * tile_tokens, 16); }
  constexpr std::int64_t memory_floats() const { return padded(tokens * 2 * width, 16); }
  constexpr std::int64_t share_floats() const { return padded((padded_rows() + feature_block) * tile_tokens, 16); }
  constexpr std::int64_t bytes(std::int64_t concurrency) const {
    return 4 * (weight_floats() + query_floats() + memory_floats() + concurrency * share_floats());
  }
};

/// Rows of the sequences before b: where its own begin among those of all, side by side.
inline std::int64_t rows_before(feature_rows const& in, std::int32_t b) {
  std::int64_t sum = 0;
  for (std::int32_t i = 0; i < b; ++i) sum += in.rows(i);
  return sum;
}

/// `count` tokens of one sequence from `first` (of its new ones, `row` in the batch), in the lanes of one tile.
struct gate_tile {
  std::int32_t sequence, first, count;
  std::int64_t row;
};

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
