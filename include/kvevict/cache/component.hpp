// SPDX-License-Identifier: Apache-2.0
// A page is a list of components; moving a token moves its row in every one of them.
#pragma once

#include <cstdint>

#include <kvevict/cache/row_map.hpp>
#include <kvevict/core/dtype.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// What a component is to the library. Keys are needed; scores look for k (with rope: its second part) and v, scattered
/// rows for position (i32),
/// observe and remembered(cache) for state (f32); the others are only moved.
enum class role : std::uint8_t { k, v, k_scale, v_scale, rope, indexer, position, state };

constexpr char const* name_of(role what) {
  constexpr char const* names[] = {"k", "v", "k_scale", "v_scale", "rope", "indexer", "position", "state"};
  return names[static_cast<int>(what)];
}

/// What a quantisation scale covers. `page_channel` forbids moving tokens: drop whole pages only.
enum class quant_scope : std::uint8_t { none, tensor, head, token, token_head, token_head_group, page_channel };

/// What turned the rows of a component before they were stored. Only keys need to say it, and only to whoever reads
/// them before rotation or turns them: `rope` by their positions, as the model's rope says; `opaque` by anything else
/// that mixes channels and keeps dot products (Hadamard transforms of quantised caches): nobody can undo that.
enum class rotation : std::uint8_t { unsaid, none, rope, opaque };

/// One tensor of the cache: where its rows are, what they are made of, what they mean.
struct component {
  row_map rows;
  dtype type = dtype::f32;
  role what = role::k;
  quant_scope scope = quant_scope::none;
  std::int32_t group = 0;
  std::int32_t alias_of = -1;  // index of the component whose bytes these are (MLA: V is K); moved once
  rotation turned_by = rotation::unsaid;

  constexpr std::int64_t width() const { return rows.row_bytes() / size_of(type); }

  /// The same component, turned by that.
  constexpr component turned(rotation by) const {
    component out = *this;
    out.turned_by = by;
    return out;
  }
};

}  // namespace KVEVICT_ABI
}  // namespace kvevict
