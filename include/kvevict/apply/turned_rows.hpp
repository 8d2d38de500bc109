// SPDX-License-Identifier: Apache-2.0
// What re-rotation does to a view, the same in every context: which components turn, from where to where.
#pragma once

#include <array>
#include <cstdint>
#include <limits>

#include <kvevict/cache/unrotated_reader.hpp>
#include <kvevict/core/multiply_add.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// A view whose keys are to be turned to contiguous positions: `first` and up, in order of the old ones.
template <class Entry> struct turned_rows {
  layer_view<Entry> view;
  std::array<turning, layer_view<Entry>::max_components> by{};  // width 0: stays as it is
  std::int32_t positions = -1;                                  // component
  std::int32_t first = 0;
  std::int32_t const* ranks = nullptr;  // scattered rows: (B·H, stride) place of every token in order of position
  std::int64_t stride = 0;

  KVEVICT_HOST_DEVICE constexpr component const& position_component() const {
    return view.components[static_cast<std::size_t>(positions)];
  }
  KVEVICT_HOST_DEVICE constexpr std::int32_t& position(std::int32_t b, std::int32_t h, std::int64_t t) const {
    return *reinterpret_cast<std::int32_t*>(view.row(position_component(), b, h, t));
  }
  KVEVICT_HOST_DEVICE constexpr std::int32_t target(std::int32_t b, std::int32_t h, std::int64_t t) const {
    std::int64_t const r = std::int64_t{b} * view.heads() + h;
    return first + (ranks == nullptr ? static_cast<std::int32_t>(t) : ranks[r * stride + t]);
  }
  /// The row whose positions (b, h) has.
  KVEVICT_HOST_DEVICE constexpr std::int32_t position_sequence(std::int32_t b) const {
    return view.shared_by_layers(position_component()) ? view.pages.sequence_of(b) : b;
  }
  KVEVICT_HOST_DEVICE constexpr std::int32_t position_head(std::int32_t h) const {
    return view.shared_by_heads(position_component()) ? 0 : h;
  }
};

/// Pair i of a row, turned; one rounding an element. T: how its elements are stored.
template <class T>
KVEVICT_HOST_DEVICE void turn_pair(std::byte* row, row_map const& m, element_pair const& at, turn const& by) {
  constexpr auto size = static_cast<std::int32_t>(sizeof(T));
  auto& a = *reinterpret_cast<T*>(row + m.unit_offset(at.first, size));
  auto& b = *reinterpret_cast<T*>(row + m.unit_offset(at.second, size));
  float const x = to_float(a), y = to_float(b);
  a = from_float<T>(multiply_add(x, by.cos, -y * by.sin)), b = from_float<T>(multiply_add(y, by.cos, x * by.sin));
}

namespace contract {

/// What the host's fields show: which components turn, and that they can. Their steps are not there yet.
template <class Entry>
turned_rows<Entry> expect_turnable(layer_view<Entry> const& v, rope const& by, std::int32_t first,
                                   std::int64_t most_tokens) {
  turned_rows<Entry> out{v, {}, -1, first, nullptr, 0};
  component const* const positions = v.find(role::position);
  KVEVICT_EXPECTS(positions != nullptr && positions->alias_of < 0,
                  "rerotate: the cache has no role::position component of its own, so that nobody knows how far its "
                  "keys are turned; add positions to the view");
  out.positions = static_cast<std::int32_t>(positions - v.begin());
  KVEVICT_EXPECTS(first >= 0 && most_tokens <= std::numeric_limits<std::int32_t>::max() - std::int64_t{first},
                  "rerotate: ", most_tokens, " tokens from position ", first,
                  " on; positions are 0 or more and below 2147483647");
  for (std::int32_t i = 0; i < v.component_count; ++i) {
    component const& c = v.begin()[i];
    if (c.what != role::k && c.what != role::rope && c.what != role::indexer) continue;
    expect_turned("rerotate", c, by);
    if (c.turned_by != rotation::rope) continue;
    KVEVICT_EXPECTS(is_floating(c.type) && !c.is_quantised(), "rerotate: component ", name_of(c.what), " has type ",
                    name_of(c.type), ", whose rows would have to be quantised again; f32, f16 and bf16 can be turned");
    KVEVICT_EXPECTS(!v.shared_by_heads(c) || v.shared_by_heads(*positions), "rerotate: component ", name_of(c.what),
                    " has one row for all heads and positions one for each; give positions one row for all heads, too "
                    "(head_stride 0)");
    for (component const& other : v)
      KVEVICT_EXPECTS(c.alias_of < 0 && other.alias_of != i, "rerotate: component ", name_of(c.what),
                      " is to be turned and shares its bytes with another one, which would turn with it; give the part "
                      "that turns a component of its own, as role::rope");
    out.by[static_cast<std::size_t>(i)] = {nullptr, by.width_in(static_cast<std::int32_t>(c.width())), by.pairs};
  }
  return out;
}

}  // namespace contract
}  // namespace KVEVICT_ABI
}  // namespace kvevict
