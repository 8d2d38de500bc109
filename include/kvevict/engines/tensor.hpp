// SPDX-License-Identifier: Apache-2.0
// A component from the shape that its engine writes down: sizes in elements in, strides in bytes out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include <kvevict/cache/component.hpp>
#include <kvevict/core/contract.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace pages {

/// Extents of an engine's tensor, all in elements.
struct sizes {
  std::int64_t pages = 0;       // in the pool; sequences, where the cache is contiguous
  std::int32_t page_size = 1;   // tokens of a page; of a sequence's room, where the cache is contiguous
  std::int32_t heads = 1;       // of a page; 1 where each head has pages of its own
  std::int32_t head_dim = 0;    // of K, or of what a row of this tensor holds
  dtype type = dtype::f32;      // opaque: an element is a byte; not i4 or u4, whose rows are described as bytes
  std::int32_t layers = 1;      // in the tensor
  std::int32_t v_head_dim = 0;  // of V, where it is another one
  std::int32_t pack = 0;        // x; 0: as many elements as 16 bytes hold
  std::int64_t page_room = 0;   // from a page to the next one, where something else lies between; 0: packed
  std::int64_t bytes = 0;       // of the whole tensor, which the shape is compared with; 0: not known
};

namespace axes {

constexpr bool of_values(role what) { return what == role::v || what == role::v_scale; }

/// stride · extent, within 64 bits.
inline std::int64_t over(std::int64_t stride, std::int64_t extent, char axis) {
  std::int64_t const n = extent < 1 ? 1 : extent;
  KVEVICT_EXPECTS(extent >= 0 && stride <= (std::int64_t{1} << 57) / n, "pages: axis ", std::string(1, axis), " has ",
                  extent, " elements, ", stride, " bytes apart; give what is there, in elements");
  return stride * n;
}

/// Walks a shape from its last axis to its first.
struct walk {
  sizes s;
  role what;
  std::int64_t stride = size_of(s.type);
  row_map rows{};

  std::int32_t pack() const { return s.pack > 0 ? s.pack : 16 / size_of(s.type); }
  std::int32_t width() const { return of_values(what) && s.v_head_dim > 0 ? s.v_head_dim : s.head_dim; }

  void packed(bool last) {
    KVEVICT_EXPECTS(last && width() % pack() == 0, "pages: rows of ", width(), " elements are not packs of ", pack(),
                    "; x is the last axis, and sizes::pack is the engine's x");
    rows.run_bytes = pack() * size_of(s.type);
    stride = over(stride, pack(), 'x');
  }
  void channels(bool last) {
    if (rows.run_bytes == 0) rows.run_bytes = size_of(s.type) * (last ? width() : 1);
    rows.n_runs = width() * size_of(s.type) / rows.run_bytes;
    rows.run_stride = rows.n_runs > 1 ? stride : 0;
    stride = over(stride, last ? width() : rows.n_runs, 'D');
  }
  void keys_then_values(bool of_rows) {
    bool const apart = s.v_head_dim > 0 && s.v_head_dim != s.head_dim;
    KVEVICT_EXPECTS(!apart || of_rows, "pages: K of ", s.head_dim, " and V of ", s.v_head_dim,
                    " elements are not halves of one axis; give each its own tensor");
    if (of_values(what)) rows.offset = apart ? over(size_of(s.type), s.head_dim, 'D') : stride;
    stride = apart ? over(size_of(s.type), std::int64_t{s.head_dim} + s.v_head_dim, '2') : over(stride, 2, '2');
  }
  std::int64_t step(std::int64_t extent, char axis) {
    std::int64_t const here = stride;
    stride = over(stride, extent, axis);
    return here;
  }
  void pages() {
    if (s.page_room > 0) {
      std::int64_t const room = over(size_of(s.type), s.page_room, 'B');
      KVEVICT_EXPECTS(room >= stride, "pages: a page is ", stride, " bytes and the next one ", room,
                      " further; sizes::page_room is in elements, and holds a page");
      stride = room;
    }
    rows.page_stride = step(s.pages, 'B');
  }
};

}  // namespace axes

/// The rows of one role in a tensor of that shape, from its outermost axis to its innermost, in vLLM's letters:
///
///   L layer   B page (block, cell, sequence)   H head   N slot of a page   D element of a row
///   2  K, then V                               x  the last axis of rows in packs, [D/x, …, x]
///
/// "BNHD" is what engines call NHD, "BHND" HND and contiguous [B,H,S,D], "BHDNx" vLLM's legacy keys, "HDB" llama.cpp's
/// values without flash attention. Where B is missing, the table holds addresses; where H is, a row serves all heads or
/// heads have tables of their own; where N is, a page is a token.
///
/// Rows of i4 or u4 are described as what they are in memory, bytes: `type` u8 and `head_dim` the bytes of a row. The
/// makers of `quantised` say then that each byte holds two codes: quantised::by_tensor(rows, dtype::i4, scale).
///
/// Errors   contract_violation: an axis twice, unknown or without elements; no D; a page of several tokens without N,
///          or of several heads without H; elements of half a byte; rows beyond 32 bits, strides beyond 64; more than
///          `bytes`.
inline component tensor(role what, void* base, sizes const& s, char const* shape) {
  KVEVICT_EXPECTS(!is_half_byte(s.type), "pages: two elements of ", name_of(s.type),
                  " share a byte, and sizes count whole ones; give u8 and the bytes of a row, and call "
                  "quantised::by_tensor or another maker with ",
                  name_of(s.type));
  axes::walk w{s, what};
  std::string_view const letters(shape);
  auto const has = [&](char axis) { return letters.find(axis) != letters.npos; };
  KVEVICT_EXPECTS(w.width() > 0 && has('D') && (s.page_size == 1 || has('N')) && (s.heads == 1 || has('H')) &&
                      (s.layers == 1 || has('L')),
                  "pages: the shape ", shape, " has no axis for rows of ", w.width(), " elements, ", s.heads,
                  " heads, ", s.page_size, " slots and ", s.layers, " layers; write D, H, N and L where they are");
  KVEVICT_EXPECTS(w.width() <= farthest_row / size_of(s.type), "pages: rows of ", w.width(), " elements of ",
                  name_of(s.type), " are longer than 2147483647 bytes; give what one head has of one token");
  for (std::size_t i = letters.size(); i-- > 0;) {
    bool const last = i + 1 == letters.size();
    KVEVICT_EXPECTS(letters.find(letters[i]) == i, "pages: the shape ", shape, " has axis ", std::string(1, letters[i]),
                    " twice; each is there once");
    switch (letters[i]) {
      case 'x': w.packed(last); break;
      case 'D': w.channels(last); break;
      case '2': w.keys_then_values(letters.substr(i) == "2D"); break;
      case 'N': w.rows.slot_stride = w.step(s.page_size, 'N'); break;
      case 'H': w.rows.head_stride = w.step(s.heads, 'H'); break;
      case 'L': w.rows.layer_stride = w.step(s.layers, 'L'); break;
      case 'B': w.pages(); break;
      default:
        contract::violate("pages: the shape ", shape, " has axis ", std::string(1, letters[i]),
                          "; write L, B, H, N, D, 2 and x, the outermost first");
    }
  }
  KVEVICT_EXPECTS(s.bytes == 0 || w.stride <= s.bytes, "pages: the shape ", shape, " takes ", w.stride,
                  " bytes and the tensor has ", s.bytes, "; sizes are in elements, of sizes::type");
  if (s.heads == 1) w.rows.head_stride = 0;
  if (s.layers == 1) w.rows.layer_stride = 0;
  w.rows.base = static_cast<std::byte*>(base);
  w.rows.page_count = s.pages;
  component c;
  c.rows = w.rows, c.type = s.type, c.what = what;
  return c;
}

/// Rows with strides of their own, in elements as torch's stride() has them.
struct strides {
  std::int64_t page = 0, head = 0, slot = 0, layer = 0;
};
inline component strided(role what, void* base, sizes const& s, strides const& by) {
  component c = tensor(what, base, {s.pages, 1, 1, s.head_dim, s.type, 1, s.v_head_dim}, "D");
  auto const bytes = [&](std::int64_t elements) { return elements * size_of(s.type); };
  KVEVICT_EXPECTS(by.page >= 0 && by.head >= 0 && by.slot >= 0 && by.layer >= 0 &&
                      (by.page | by.head | by.slot | by.layer) < std::int64_t{1} << 59,
                  "pages: strides of ", by.page, ", ", by.head, ", ", by.slot, " and ", by.layer,
                  " elements for pages, heads, slots and layers; none is negative or beyond 64 bits");
  c.rows.page_stride = bytes(by.page), c.rows.head_stride = bytes(by.head);
  c.rows.slot_stride = bytes(by.slot), c.rows.layer_stride = bytes(by.layer);
  return c;
}

}  // namespace pages
}  // namespace KVEVICT_ABI
}  // namespace kvevict
