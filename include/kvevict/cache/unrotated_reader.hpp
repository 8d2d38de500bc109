// SPDX-License-Identifier: Apache-2.0
// A row of keys as they were before rotation, in host code and in kernels.
#pragma once

#include <cstdint>

#include <kvevict/cache/row_reader.hpp>
#include <kvevict/core/multiply_add.hpp>
#include <kvevict/core/rope.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// A rope worked out for the rows of one component: what kernels take. `before_rotation` and `rerotate` make it.
struct turning {
  std::uint64_t const* steps = nullptr;  // (width/2) rope::step of every pair, in the context's memory
  std::int32_t width = 0;                // elements that turn; 0: none
  rope_pairs pairs = rope_pairs::halves;
  float undo = 1;                   // 1/m
  std::int32_t first_position = 0;  // of slot 0, where the cache carries no positions

  KVEVICT_HOST_DEVICE constexpr std::int32_t count() const { return width / 2; }
  KVEVICT_HOST_DEVICE constexpr element_pair pair(std::int32_t i) const { return pair_of(pairs, i, width); }
  KVEVICT_HOST_DEVICE constexpr bool is_first(std::int32_t d) const {
    return pairs == rope_pairs::halves ? d < count() : d % 2 == 0;
  }
  KVEVICT_HOST_DEVICE constexpr std::int32_t pair_with(std::int32_t d) const {
    return pairs == rope_pairs::neighbours ? d / 2 : d < count() ? d : d - count();
  }
  KVEVICT_HOST_DEVICE constexpr std::int32_t partner_of(std::int32_t d) const {
    return pairs == rope_pairs::neighbours ? d ^ 1 : d < count() ? d + count() : d - count();
  }
};

/// The tokens of one (sequence, head) in a component that a rope has turned, each turned back by its own position: in
/// chunks and products as row_reader's, which it equals where nothing turns (NoPE layers, elements behind the width).
///
///   k(a) = (k'(a)·cos(p·θ) + k'(b)·sin(p·θ)) / m,   k(b) = (k'(b)·cos(p·θ) − k'(a)·sin(p·θ)) / m
///
/// Shapes   component (H,N,D) in f32, f16 or bf16, any layout; positions (H,N) of the view's, or slots.
/// Cost     every chunk reads its partners, too; a cosine and a sine an element (neighbours: a pair).
/// Errors   none: whoever makes the turning has checked it. To 4·10⁻⁷ of a pair's length at positions up to 10⁶.
template <class Entry> class unrotated_reader {
 public:
  KVEVICT_HOST_DEVICE constexpr unrotated_reader(layer_view<Entry> const& view, component const& c, turning const& by,
                                                 std::int32_t b, std::int32_t h)
      : keys_(view, c, b, h), by_(by) {
    if (by.width == 0) return;
    component const* const positions = view.find(role::position);
    if (positions != nullptr) positions_ = view.rows_of(*positions, b, h), carried_ = true;
  }
  KVEVICT_HOST_DEVICE constexpr unrotated_reader(layer_view<Entry> const& view, component const& c, turning const& by,
                                                 row const& of)
      : unrotated_reader(view, c, by, of.sequence, of.head) {}

  KVEVICT_HOST_DEVICE constexpr std::int32_t width() const { return keys_.width(); }
  KVEVICT_HOST_DEVICE constexpr std::int64_t position(std::int64_t token) const {
    return carried_ ? std::int64_t{*reinterpret_cast<std::int32_t const*>(positions_(token))}
                    : token + by_.first_position;
  }

  /// Elements [first, first + row_chunk) of a token's row, zeros behind its last; first is a multiple of row_chunk.
  KVEVICT_HOST_DEVICE void read(std::int64_t token, std::int32_t first, float (&x)[row_chunk]) const {
    keys_.read(token, first, x);
    if (first >= by_.width) return;
    if (first + row_chunk > by_.width || (by_.pairs == rope_pairs::halves && by_.count() % row_chunk != 0))
      turn_each(token, first, x);
    else if (by_.pairs == rope_pairs::halves)
      turn_with_other_half(token, first, x);
    else
      turn_neighbours(token, first, x);
  }
  /// Σ_d row[d]·vector[d], in the order of d modulo row_chunk, whatever the layout.
  KVEVICT_HOST_DEVICE float dot(std::int64_t token, float const* vector) const {
    float sum[row_chunk] = {};
    for (std::int32_t d = 0; d < width(); d += row_chunk) {
      float x[row_chunk];
      read(token, d, x);
      for (std::int32_t i = 0; i < row_chunk && d + i < width(); ++i) sum[i] += x[i] * vector[d + i];
    }
    for (std::int32_t half = row_chunk / 2; half != 0; half /= 2)
      for (std::int32_t i = 0; i < half; ++i) sum[i] += sum[i + half];
    return sum[0];
  }

 private:
  /// Cosines and sines of pairs [i, i + N) of a token, divided by m.
  template <std::int32_t N>
  KVEVICT_HOST_DEVICE void turns_of(std::int64_t token, std::int32_t i, float (&cos)[N], float (&sin)[N]) const {
    std::int64_t const p = position(token);
    for (std::int32_t k = 0; k < N; ++k) {
      turn const t = turn_by(p, by_.steps[i + k]);
      cos[k] = t.cos * by_.undo, sin[k] = t.sin * by_.undo;
    }
  }
  /// A chunk whose partners are a chunk of the other half.
  KVEVICT_HOST_DEVICE void turn_with_other_half(std::int64_t token, std::int32_t first, float (&x)[row_chunk]) const {
    float partners[row_chunk], cos[row_chunk], sin[row_chunk];
    keys_.read(token, by_.partner_of(first), partners);
    turns_of(token, by_.pair_with(first), cos, sin);
    float const sign = by_.is_first(first) ? 1.0f : -1.0f;
    for (std::int32_t i = 0; i < row_chunk; ++i) x[i] = multiply_add(x[i], cos[i], sign * partners[i] * sin[i]);
  }
  /// A chunk of whole pairs.
  KVEVICT_HOST_DEVICE void turn_neighbours(std::int64_t token, std::int32_t first, float (&x)[row_chunk]) const {
    float cos[row_chunk / 2], sin[row_chunk / 2];
    turns_of(token, first / 2, cos, sin);
    for (std::int32_t i = 0; i < row_chunk / 2; ++i) {
      float const a = x[2 * i], b = x[2 * i + 1];
      x[2 * i] = multiply_add(a, cos[i], b * sin[i]), x[2 * i + 1] = multiply_add(b, cos[i], -a * sin[i]);
    }
  }
  /// Any other one. An element is chosen by comparison, so that on a device all stay in registers.
  KVEVICT_HOST_DEVICE void turn_each(std::int64_t token, std::int32_t first, float (&x)[row_chunk]) const {
    for (std::int32_t i = 0; i < row_chunk && first + i < by_.width; ++i) {
      std::int32_t const d = first + i;
      float cos[1], sin[1];
      turns_of(token, by_.pair_with(d), cos, sin);
      float const partner = keys_(token, by_.partner_of(d)) * (by_.is_first(d) ? sin[0] : -sin[0]);
      float const turned = multiply_add(keys_(token, d), cos[0], partner);
      for (std::int32_t k = 0; k < row_chunk; ++k) x[k] = k == i ? turned : x[k];
    }
  }

  row_reader<Entry> keys_;
  turning by_;
  token_rows<Entry> positions_{};
  bool carried_ = false;
};

/// The elements of keys before rotation, for a reduction, as row_elements are those of a component.
template <class Entry> struct unrotated_elements {
  layer_view<Entry> cache;
  component of;
  turning by;

  KVEVICT_HOST_DEVICE unrotated_reader<Entry> reader(row const& in) const { return {cache, of, by, in}; }
  KVEVICT_HOST_DEVICE void operator()(row const& in, std::int64_t token, std::int32_t first,
                                      float (&x)[row_chunk]) const {
    reader(in).read(token, first, x);
  }
};
template <class Entry> unrotated_elements(layer_view<Entry>, component, turning) -> unrotated_elements<Entry>;

namespace contract {

/// Keys of that component can be turned, by that rope: it is known how they were.
inline void expect_turned(char const* who, component const& c, rope const& r) {
  KVEVICT_EXPECTS(
      c.turned_by != rotation::opaque, who, ": component ", name_of(c.what),
      " is turned by something opaque (a Hadamard transform), which keeps dot products and no channels; "
      "nothing can turn its rows back or further, use scores of rotated keys and keep positions as they are");
  KVEVICT_EXPECTS(c.turned_by == rotation::none || c.turned_by == rotation::rope, who, ": component ", name_of(c.what),
                  " does not say what turned it; set component::turned_by to rotation::rope, or to rotation::none "
                  "where the layer has no position embedding");
  if (c.turned_by == rotation::none) return;
  KVEVICT_EXPECTS(r.is_given(), who, ": component ", name_of(c.what),
                  " is turned by a rope, and nothing says by which; give its base and scaling, scores by with_rope");
  expect_rope(who, r, c.width());
}

}  // namespace contract
}  // namespace KVEVICT_ABI
}  // namespace kvevict
