// SPDX-License-Identifier: Apache-2.0
// What is asked of a layer, and what it must keep in any case: token counts, never ratios.
#pragma once

#include <algorithm>
#include <cstdint>

#include <kvevict/core/stage.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// What is asked of one layer, or of each layer of a stack whose first is `layer`. Token counts, protected tokens
/// included;
/// `per_sequence` (B) overrides tokens_per_head.
struct budget {
  std::int32_t tokens_per_head = 0;
  std::int32_t layer = 0, layer_count = 1;
  std::int32_t const* per_sequence = nullptr;
  std::uint8_t const* whole =
      nullptr;  // (B) not 0: the sequence is left as it is, neither scored nor observed; or null

  constexpr std::int32_t of(std::int32_t b) const {
    return per_sequence == nullptr ? tokens_per_head : per_sequence[b];
  }
  constexpr bool keeps_whole(std::int32_t b) const { return whole != nullptr && whole[b] != 0; }
  constexpr budget in_layer(std::int32_t of_stack) const {
    budget out = *this;
    out.layer += of_stack;
    return out;
  }
};

/// Tokens that have no score and are never evicted: the first `sinks`, the newest `recent` (or that share of the
/// budget, whichever is more, as far as the budget goes), and the cache's read-only prefix.
struct protect {
  using stage = stages::protect;
  std::int32_t sinks = 0;
  std::int32_t recent = 0;
  std::int32_t recent_permille = 0;

  constexpr std::int32_t front(std::int32_t read_only) const { return std::max(sinks, read_only); }
  constexpr std::int32_t back(std::int32_t budget, std::int32_t read_only) const {
    std::int64_t const share = std::int64_t{budget} * recent_permille / 1000;
    return std::max(recent,
                    static_cast<std::int32_t>(std::min<std::int64_t>(share, std::max(0, budget - front(read_only)))));
  }
};

/// Of a stack: products of it with tokens and a stage's own number up to as much stay below 2^63.
inline constexpr std::int32_t most_layers = 1 << 16;

/// What a layer stage is asked, for one sequence.
struct layer_query {
  std::int32_t tokens_per_head;  // budget asked for, protected tokens included
  std::int32_t protected_tokens;
  std::int32_t tokens;  // N > tokens_per_head
  std::int32_t layer, layer_count;
};

}  // namespace KVEVICT_ABI
}  // namespace kvevict
