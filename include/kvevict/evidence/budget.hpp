// SPDX-License-Identifier: Apache-2.0
// What is asked of a layer, and what it must keep in any case: token counts, never ratios.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include <kvevict/core/stage.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// Tokens of each layer of the model: data[s·seq_stride + l·layer_stride + h·head_stride], in the context's memory.
/// Strides of 0: the same for all sequences, layers (as after a prompt), heads.
struct layer_lengths {
  std::int32_t const* data = nullptr;
  std::int64_t seq_stride = 0, layer_stride = 0, head_stride = 0;

  constexpr std::int32_t operator()(std::int32_t s, std::int32_t l, std::int32_t h) const {
    return data[s * seq_stride + l * layer_stride + h * head_stride];
  }
};

/// What is asked of one layer, or of each layer of a stack whose first is `layer`. Token counts, protected tokens
/// included; `per_sequence` (B) overrides tokens_per_head. 0 is refused. Layers that share a budget, as under
/// heads::over_layers, share the sum of theirs, and `protect` goes by the mean.
///
/// `lengths`: of all layers, for layer stages that move budget between them (layers::pyramid), when layers are planned
/// one by one; as they were before the first layer of the turn was planned, so a copy where compaction changes the
/// engine's own. A stack of all layers needs none. Only that the view's layers have these lengths is checked; the
/// view's read-only prefixes are taken for those of all layers.
struct budget {
  static constexpr std::int32_t no_cap = std::numeric_limits<std::int32_t>::max();  // where the budget is a cap: none

  std::int32_t tokens_per_head = 0;
  std::int32_t layer = 0, layer_count = 1;
  std::int32_t const* per_sequence = nullptr;
  layer_lengths lengths{};
  std::uint8_t const* whole = nullptr;  // (B) not 0: the sequence stays as it is, not scored, not observed; or null
  // of a view of some of the model's heads (tensor parallelism): its first, and how many there are; 0: it has them all.
  // `lengths` are then those of all heads in all layers, for heads::over_ranks
  std::int32_t head = 0, head_count = 0;

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
/// budget, rounded up, whichever is more, as far as the budget goes), and the cache's read-only prefix.
struct protect {
  using stage = stages::protect;
  std::int32_t sinks = 0;
  std::int32_t recent = 0;
  std::int32_t recent_permille = 0;

  constexpr std::int32_t front(std::int32_t read_only) const { return std::max(sinks, read_only); }
  constexpr std::int32_t back(std::int32_t budget, std::int32_t read_only) const {
    std::int64_t const share =
        budget == kvevict::budget::no_cap ? 0 : (std::int64_t{budget} * recent_permille + 999) / 1000;
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
