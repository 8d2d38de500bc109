// SPDX-License-Identifier: Apache-2.0
// Checks of what a quantised component says of its scales: that they are there, in range and aligned.
#pragma once

#include <cstdint>
#include <limits>

#include <kvevict/cache/footprint.hpp>
#include <kvevict/cache/layer_view.hpp>
#include <kvevict/core/contract.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace validation {

/// Bytes that an entry's scale and zero point reach to; −1 unless both are aligned, and begin at `low` or behind it.
constexpr std::int64_t entry_end(quantisation const& q, std::int64_t low) {
  std::int64_t const size = size_of(q.type);
  std::int64_t end = q.scale_at + size;
  bool sound = q.scale_at >= low && q.scale_at % size == 0;
  if (q.zero_at != quantisation::nowhere) {
    std::int64_t const apart = std::int64_t{q.zero_at} - q.scale_at;
    sound = sound && q.zero_at >= low && q.zero_at % size == 0 && (apart >= size || -apart >= size);
    end = end < q.zero_at + size ? q.zero_at + size : end;
  }
  return sound ? end : -1;
}

/// Which scopes the scales of a place can have.
constexpr bool fits(quant_scope scope, scale_place place) {
  switch (place) {
    case scale_place::value: return scope == quant_scope::tensor;
    case scale_place::array: return scope == quant_scope::tensor || scope == quant_scope::head;
    case scale_place::in_row: return scope == quant_scope::token_head || scope == quant_scope::token_head_group;
    case scale_place::component:
      return scope == quant_scope::token || scope == quant_scope::token_head || scope == quant_scope::token_head_group;
    default: return scope == quant_scope::page_channel;
  }
}

constexpr bool is_finite(float x) { return (bits::as_uint(x) & 0x7f800000u) != 0x7f800000u; }

inline void check_blocks(component const& c) {
  quantisation const& q = c.quant;
  KVEVICT_EXPECTS(q.stride > 0 && c.group > 0 && c.rows.run_bytes % q.stride == 0, "validate: rows of component ",
                  name_of(c.what), " are runs of ", c.rows.run_bytes, " bytes in blocks of ", q.stride, " bytes and ",
                  c.group, " elements; give a run a whole number of blocks");
  if (q.decode != nullptr) {
    KVEVICT_EXPECTS(c.group <= most_block, "validate: component ", name_of(c.what), " decodes blocks of ", c.group,
                    " elements; give its smallest blocks, of ", most_block, " at most");
    return;
  }
  std::int64_t const codes = (std::int64_t{c.group} + is_half_byte(c.type)) / (is_half_byte(c.type) ? 2 : 1),
                     end = entry_end(q, 0), size = size_of(q.type);
  auto const apart = [&](std::int64_t at) { return at + size <= q.data_at || q.data_at + codes <= at; };
  bool const inside = q.data_at >= 0 && codes <= std::int64_t{q.stride} - q.data_at && end >= 0 && end <= q.stride,
             clear = apart(q.scale_at) && (q.zero_at == quantisation::nowhere || apart(q.zero_at));
  KVEVICT_EXPECTS(inside && clear && q.stride % size == 0, "validate: blocks of component ", name_of(c.what), " have ",
                  q.stride, " bytes, codes in ", codes, " from ", q.data_at, " on and a scale in ", size, " from ",
                  q.scale_at, " on; each, and a zero point, lies in the block for itself, aligned to its type");
}

inline void check_array(component const& c) {
  quantisation const& q = c.quant;
  std::int64_t const size = size_of(q.type), end = entry_end(q, 0);
  bool const aligned = reinterpret_cast<std::uintptr_t>(q.entries) % static_cast<std::uintptr_t>(size) == 0 &&
                       q.stride % size == 0 && q.layer_stride % size == 0;
  KVEVICT_EXPECTS(q.entries != nullptr && end >= 0 && end <= q.stride && aligned && q.layer_stride >= 0,
                  "validate: component ", name_of(c.what),
                  " has no scales, or none that are aligned; point quant.entries to one for the tensor, or to one a "
                  "head, of quant.stride bytes each");
}

template <class Entry> void check_scale_rows(layer_view<Entry> const& v, component const& c) {
  char const* const name = name_of(c.what);
  KVEVICT_EXPECTS(c.what == role::k || c.what == role::v, "validate: the scales of component ", name,
                  " cannot lie in another component; only k and v have one, lay the scales of others in their rows");
  component const* const s = v.scales_of(c);
  KVEVICT_EXPECTS(s != nullptr, "validate: the scales of component ", name,
                  " lie in a component that the view does not have; add one with role::", name, "_scale");
  std::int64_t const groups = c.group > 0 ? c.width() / c.group : 1, end = entry_end(c.quant, 0);
  KVEVICT_EXPECTS(s->type == c.quant.type && s->rows.n_runs == 1, "validate: component ", name_of(s->what),
                  " has type ", name_of(s->type), " and ", s->rows.n_runs, " runs a row, but ", name,
                  " reads scales of type ", name_of(c.quant.type), " in one run; give one of f32, f16, bf16 in both");
  KVEVICT_EXPECTS(end >= 0 && end <= c.quant.stride && groups * c.quant.stride <= s->rows.run_bytes &&
                      c.quant.stride % size_of(c.quant.type) == 0,
                  "validate: a row of component ", name_of(s->what), " has ", s->rows.run_bytes, " bytes and ", name,
                  " needs ", groups, " scales in entries of ", c.quant.stride,
                  "; set group, stride and the places of scale and zero point");
  KVEVICT_EXPECTS(c.alias_of < 0 || c.rows.offset == v.begin()[c.alias_of].rows.offset, "validate: component ", name,
                  " is an alias that begins within its owner's row, so that its groups are others; give it scales in "
                  "its row, or the whole row");
}

/// Scales or zero points of a page's channels as rows, `at` bytes behind a head's slot 0.
inline row_map rows_of_channels(component const& c, std::int32_t at) {
  row_map out = c.rows;
  out.offset += at, out.run_bytes = size_of(c.quant.type), out.run_stride = c.quant.stride;
  out.n_runs = static_cast<std::int32_t>(c.width());
  return out;
}

/// Those rows lie in the page, apart from each other and from what all heads have there, in any component.
template <class Entry> bool have_room(layer_view<Entry> const& v, component const& c, row_map const& m) {
  constexpr bool by_address = page_table<Entry>::holds_pointers;
  auto const pages = [&](row_map const& of) { return by_address ? 1 : of.page_count; };
  auto const all = [&](row_map const& of, std::int64_t slots) {
    return kvevict::footprint_of(of, v.pages.layers, pages(of), v.heads(), slots, by_address);
  };
  std::int64_t const last = m.offset < 0 ? -1 : reach(m, v.pages.layers, pages(m), v.heads(), 1),
                     base = by_address ? 0 : static_cast<std::int64_t>(reinterpret_cast<std::intptr_t>(m.base));
  if (last < 0 || base > std::numeric_limits<std::int64_t>::max() - last) return false;
  std::int64_t const begin = m.offset < c.rows.offset ? m.offset : c.rows.offset;
  if (m.page_stride > 0 && reach(m, 1, 1, v.heads(), 1) - begin > m.page_stride) return false;
  footprint const channels = all(m, 1);
  bool apart = !overlaps_itself(channels);
  for (component const& d : v)
    if (d.alias_of == -1 && (!by_address || d.table_offset == c.table_offset))
      apart = apart && !overlap(channels, all(d.rows, v.pages.page_size));
  return apart;
}

/// Entries of the channels lie in the page, apart from what slots of any head hold. Of components whose strides are
/// sound.
template <class Entry> void check_channels(layer_view<Entry> const& v, component const& c) {
  quantisation const& q = c.quant;
  bool const has_zero = q.zero_at != quantisation::nowhere;
  std::int64_t const low = has_zero && q.zero_at < q.scale_at ? q.zero_at : q.scale_at,
                     high = has_zero && q.zero_at > q.scale_at ? q.zero_at : q.scale_at, size = size_of(q.type),
                     behind = high + (c.width() - 1) * q.stride + size,
                     slots = (v.pages.page_size - 1) * c.rows.slot_stride + (c.rows.n_runs - 1) * c.rows.run_stride +
                             c.rows.run_bytes;
  bool const aligned = low % size == 0 && high % size == 0 && q.stride % size == 0;
  row_map const scales = rows_of_channels(c, q.scale_at), zeros = rows_of_channels(c, has_zero ? q.zero_at : 0);
  auto const in_page = [&](row_map const& m) {
    return kvevict::footprint_of(m, v.pages.layers, 1, v.heads(), 1, true);
  };
  bool const apart = !has_zero || (have_room(v, c, zeros) && !overlap(in_page(scales), in_page(zeros)));
  KVEVICT_EXPECTS(q.stride >= size && aligned && have_room(v, c, scales) && apart, "validate: the scales of component ",
                  name_of(c.what), " lie from ", low, " to ", behind,
                  " bytes behind a head's slot 0, whose slots reach to ", slots,
                  "; they lie in the page, before or behind the slots of all heads and components, aligned to their "
                  "type");
}

/// A component of codes, or one that a function decodes.
template <class Entry> void check_quantised(layer_view<Entry> const& v, component const& c) {
  quantisation const& q = c.quant;
  char const* const name = name_of(c.what);
  if (q.decode != nullptr) {
    KVEVICT_EXPECTS(c.type == dtype::opaque && c.rows.n_runs == 1, "validate: component ", name,
                    " has a decode function, type ", name_of(c.type), " and ", c.rows.n_runs,
                    " runs a row; it decodes opaque rows of one run");
    return check_blocks(c);
  }
  KVEVICT_EXPECTS(fits(c.scope, q.place), "validate: component ", name, " of ", name_of(c.type),
                  " does not say where its scales lie (quant_scope ", static_cast<std::int32_t>(c.scope),
                  ", scale_place ", static_cast<std::int32_t>(q.place),
                  "); use a maker of kvevict::quantised, or dtype::opaque where nothing reads it");
  KVEVICT_EXPECTS(is_floating(q.type), "validate: the scales of component ", name, " have type ", name_of(q.type),
                  "; f32, f16 and bf16 can be read");
  if (q.place == scale_place::in_row) return check_blocks(c);
  KVEVICT_EXPECTS(q.nibbles != nibble_order::halves || !is_half_byte(c.type), "validate: component ", name,
                  " puts the low halves of bytes first, but has no blocks; give scale_place::in_row or another order");
  KVEVICT_EXPECTS(c.group >= 0 && (c.scope == quant_scope::token_head_group ? c.group > 0 && c.width() % c.group == 0
                                                                            : c.group == 0),
                  "validate: groups of ", c.group, " elements in component ", name, " of ", c.width(),
                  "; give quant_scope::token_head_group a group that divides a row, other scopes 0");
  if (q.place == scale_place::value)
    KVEVICT_EXPECTS(is_finite(q.scale) && is_finite(q.zero), "validate: the scale of component ", name, " is ", q.scale,
                    " and its zero point ", q.zero, "; give finite numbers");
  if (q.place == scale_place::array) check_array(c);
  if (q.place == scale_place::component) check_scale_rows(v, c);
  if (q.place == scale_place::page) check_channels(v, c);
}

}  // namespace validation
}  // namespace KVEVICT_ABI
}  // namespace kvevict
