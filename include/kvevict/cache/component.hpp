// SPDX-License-Identifier: Apache-2.0
// A page is a list of components; moving a token moves its row in every one of them.
#pragma once

#include <cstdint>

#include <kvevict/cache/quantisation.hpp>
#include <kvevict/cache/row_map.hpp>
#include <kvevict/core/dtype.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// What a component is to the library. Keys are needed; scores look for k (with rope: its second part), v and
/// output_norm (‖v·W_O‖₁ of a token, one float or one of each query head of the group), scattered rows for position
/// (i32), observe and remembered(cache) for state (f32); the others are only moved.
enum class role : std::uint8_t { k, v, k_scale, v_scale, rope, indexer, position, state, output_norm };

constexpr char const* name_of(role what) {
  constexpr char const* names[] = {"k",       "v",        "k_scale", "v_scale",    "rope",
                                   "indexer", "position", "state",   "output_norm"};
  return names[static_cast<int>(what)];
}

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
  std::int32_t group = 0;      // elements that share a scale; 0: the whole row
  std::int32_t alias_of = -1;  // index of the component whose bytes these are (MLA: V is K); moved once
  quantisation quant{};        // of codes, and of opaque rows that it decodes
  rotation turned_by = rotation::unsaid;
  // entries from a row of the page table to the row with the pages of this component, where it has its own: as many, in
  // the same columns. 0: the table's, which are K's
  std::int64_t table_offset = 0;

  constexpr bool is_quantised() const { return is_code(type) || quant.decode != nullptr; }
  /// Scores and norms can read it.
  constexpr bool has_numbers() const { return is_floating(type) || is_quantised(); }
  /// The row is blocks that hold their own scales, or that only a function can read.
  constexpr bool in_blocks() const {
    return is_quantised() && (quant.decode != nullptr || quant.place == scale_place::in_row);
  }

  /// Elements of so many bytes of a row.
  constexpr std::int64_t elements(std::int64_t bytes) const {
    if (in_blocks()) return quant.stride > 0 ? bytes / quant.stride * group : 0;
    return bytes / size_of(type) * (is_half_byte(type) ? 2 : 1);
  }
  constexpr std::int64_t width() const { return elements(rows.row_bytes()); }

  /// Bytes that every row is aligned to: scales in rows or in pages are, too.
  constexpr std::int32_t alignment() const {
    bool const within = quant.place == scale_place::in_row || quant.place == scale_place::page;
    return is_code(type) && quant.decode == nullptr && within ? size_of(quant.type) : size_of(type);
  }

  /// The same component, turned by that.
  constexpr component turned(rotation by) const {
    component out = *this;
    out.turned_by = by;
    return out;
  }
  /// The same component, whose pages are named that many entries behind the table's.
  constexpr component with_table(std::int64_t offset) const {
    component out = *this;
    out.table_offset = offset;
    return out;
  }
};

/// A component of codes: the makers say what its scales are, `c` where its rows lie, all bytes of a row included.
///
///   view.with(quantised::q8_0(k))      view.with(quantised::by_tensor(k, dtype::fp8_e4m3, 0.5f))
///
/// Cost     a reader takes the bytes of the row and of its scales, and decodes as it reads; nothing is written. Moves
///          copy rows, and rows of scale components, byte by byte: no element is ever quantised again.
namespace quantised {

constexpr component by_tensor(component c, dtype type, float scale, float zero = 0) {
  c.type = type, c.scope = quant_scope::tensor, c.quant = {};
  c.quant.scale = scale, c.quant.zero = zero;
  return c;
}
/// The scale lies in memory; of a stack, `layer_stride` bytes from layer to layer (0: all have the same).
constexpr component by_tensor(component c, dtype type, void const* scale, dtype of = dtype::f32,
                              std::int64_t layer_stride = 0) {
  c.type = type, c.scope = quant_scope::tensor, c.quant = {};
  c.quant.place = scale_place::array, c.quant.entries = scale, c.quant.type = of, c.quant.stride = size_of(of);
  c.quant.layer_stride = layer_stride;
  return c;
}
/// Scales (H), or (L,H).
constexpr component by_head(component c, dtype type, void const* scales, dtype of = dtype::f32,
                            std::int64_t layer_stride = 0) {
  c = by_tensor(c, type, scales, of, layer_stride);
  c.scope = quant_scope::head;
  return c;
}
/// Scales in component k_scale or v_scale, whose type is `of`: one a row (`token`: the heads share that row), or one
/// for every `group` elements.
constexpr component by_component(component c, dtype type, quant_scope scope, dtype of = dtype::f32,
                                 std::int32_t group = 0) {
  c.type = type, c.scope = scope, c.group = group, c.quant = {};
  c.quant.place = scale_place::component, c.quant.type = of, c.quant.stride = size_of(of);
  return c;
}
/// Blocks of `bytes` bytes and `elements` codes from `data_at` on, their scale at `scale_at`, their zero point at
/// `zero_at` or none.
constexpr component in_blocks(component c, dtype type, std::int32_t bytes, std::int32_t elements, std::int32_t data_at,
                              std::int32_t scale_at, dtype of, std::int32_t zero_at = quantisation::nowhere) {
  c.type = type, c.scope = quant_scope::token_head_group, c.group = elements, c.quant = {};
  c.quant.place = scale_place::in_row, c.quant.type = of, c.quant.stride = bytes;
  c.quant.data_at = data_at, c.quant.scale_at = scale_at, c.quant.zero_at = zero_at;
  return c;
}
/// vLLM's slots per token and head: the codes, then an f32 scale, which the row includes.
constexpr component scale_behind(component c, dtype type) {
  std::int32_t const bytes = c.rows.run_bytes, codes = bytes - 4;
  c = in_blocks(c, type, bytes, is_half_byte(type) ? 2 * codes : codes, 0, codes, dtype::f32);
  c.scope = quant_scope::token_head;
  return c;
}
/// OpenVINO's rows per token: an f32 scale, an f32 zero point, the codes (u4: the first one in the high half); or the
/// same again for every `group` elements.
constexpr component openvino(component c, dtype type, std::int32_t group = 0) {
  std::int32_t const per_byte = is_half_byte(type) ? 2 : 1,
                     bytes = group == 0 ? c.rows.run_bytes : 8 + group / per_byte;
  c = in_blocks(c, type, bytes, (bytes - 8) * per_byte, 8, 0, dtype::f32, 4);
  c.quant.nibbles = nibble_order::high_first;
  if (group == 0) c.scope = quant_scope::token_head;
  return c;
}
/// ggml's blocks of 32: f16 scale, 32 × i8; f16 scale, 16 bytes of u4 with zero point 8, low halves first.
constexpr component q8_0(component c) { return in_blocks(c, dtype::i8, 34, 32, 2, 0, dtype::f16); }
constexpr component q4_0(component c) {
  c = in_blocks(c, dtype::u4, 18, 32, 2, 0, dtype::f16);
  c.quant.zero = 8, c.quant.nibbles = nibble_order::halves;
  return c;
}
/// Any other row: `decode` makes `elements` floats of `bytes` bytes, and as many times that as a row has. Host only.
constexpr component decoded_by(component c, decode_function decode, std::int32_t elements, std::int32_t bytes) {
  c.type = dtype::opaque, c.scope = quant_scope::token_head_group, c.group = elements, c.quant = {};
  c.quant.decode = decode, c.quant.stride = bytes;
  return c;
}
/// Scales and zero points of every channel in the page, f32: those of channel d at slot 0 of the head + scale_at + 4·d.
/// Tokens of such a cache cannot move.
constexpr component by_channel(component c, dtype type, std::int32_t scale_at,
                               std::int32_t zero_at = quantisation::nowhere) {
  c.type = type, c.scope = quant_scope::page_channel, c.quant = {};
  c.quant.place = scale_place::page, c.quant.stride = 4, c.quant.scale_at = scale_at, c.quant.zero_at = zero_at;
  return c;
}

}  // namespace quantised

}  // namespace KVEVICT_ABI
}  // namespace kvevict
