// SPDX-License-Identifier: Apache-2.0
// Tokens in parts, one worker's each, which do not depend on how many workers there are.
#pragma once

#include <algorithm>
#include <cstdint>

#include <kvevict/core/host.hpp>
#include <kvevict/core/score_rows.hpp>
#include <kvevict/kernels/turn_table.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {

/// Tokens of a sequence that one worker goes through, in blocks, all heads of a block before the next: a token's heads
/// may be neighbours in memory, and they share its turns.
struct token_part {
  static constexpr std::int64_t tokens = 512;

  score_rows const& rows;
  std::int64_t sequence, index;

  static constexpr std::int64_t count(std::int64_t of) { return (of + tokens - 1) / tokens; }
  /// f(r, first, count), count ≤ tokens_abreast.
  template <class F> void each_block(F&& f) const {
    std::int64_t const end = std::min(rows.most_tokens, (index + 1) * tokens);
    for (std::int64_t first = index * tokens; first < end; first += tokens_abreast)
      for (std::int64_t r = sequence * rows.heads; r < (sequence + 1) * rows.heads; ++r) {
        row const& in = rows.rows[r];
        std::int64_t const left = in.tokens - first;
        if (in.active && left > 0) f(r, first, static_cast<int>(std::min<std::int64_t>(tokens_abreast, left)));
      }
  }
};

/// f(token_part, slot) of all rows.
template <class F> void each_part(host& ctx, score_rows const& rows, std::int32_t width, F&& f) {
  std::int64_t const parts = token_part::count(rows.most_tokens);
  ctx.for_each(
      rows.sequences * parts,
      [&](std::int64_t i, std::int32_t slot) {
        f(token_part{rows, i / parts, i % parts}, slot);
      },
      rows.total_floats * width / 8);
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
