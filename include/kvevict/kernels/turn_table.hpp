// SPDX-License-Identifier: Apache-2.0
// Cosines and sines of a few tokens, worked out once for all heads that have them at the same positions.
#pragma once

#include <algorithm>

#include <kvevict/cache/unrotated_reader.hpp>
#include <kvevict/kernels/simd.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {

inline constexpr int tokens_abreast = 16;  // that a table holds

struct turn_vectors {
  vec cos, sin;
};

/// turn_of of every lane.
inline turn_vectors turns_of(wide_vec angle) {
  wide_vec const quarter = (angle + 0x20000000u) >> 30;
  vec const x = __builtin_convertvector(reinterpret_cast<ivec>(angle - (quarter << 30)), vec) * 1.4629180792671596e-9f,
            z = x * x;
  vec const p = multiply_add(z, splat(-1.9515295891e-4f), splat(8.3321608736e-3f)),
            q = multiply_add(z, splat(2.443315712e-5f), splat(-1.388731625e-3f)),
            s = multiply_add(x * z, multiply_add(z, p, splat(-1.6666654611e-1f)), x),
            c = multiply_add(z * z, multiply_add(z, q, splat(4.166664568e-2f)),
                             multiply_add(z, splat(-0.5f), splat(1.0f)));
  vec const cos = (quarter & 1u) != 0u ? s : c, sin = (quarter & 1u) != 0u ? c : s;
  return {float_of(bits_of(cos) ^ reinterpret_cast<ivec>(((quarter + 1u) & 2u) << 30)),
          float_of(bits_of(sin) ^ reinterpret_cast<ivec>((quarter & 2u) << 30))};
}

/// What turns keys back, of up to tokens_abreast tokens. A token's turn depends on its position alone.
///
///   halves       x(i)·cos[i] + x(i + d/2)·sin[i], x(i + d/2)·cos[i] − x(i)·sin[i]        (2, d/2) floats a token
///   neighbours   x(i)·cos[i] + x(i^1)·sin[i], sines of odd elements with the other sign   (2, d)
class turn_table {
 public:
  static constexpr std::int64_t floats(std::int64_t width) { return tokens_abreast * padded(2 * width, lanes); }

  turn_table(turning const& by, float* memory)
      : by_(by), memory_(memory), n_(by.pairs == rope_pairs::neighbours ? by.width : by.count()) {}

  /// Those of `count` tokens; what is there already is left.
  void hold(std::int64_t const* positions, int count) {
    for (int i = 0; i < count; ++i)
      if (i >= held_ || positions_[i] != positions[i]) work_out(i, positions_[i] = positions[i]);
    held_ = std::max(held_, count);
  }
  /// Its cosines, then its sines.
  float const* of(int i) const { return memory_ + i * padded(2 * n_, lanes); }

  /// A row of token i, element by element.
  void turn(int i, float* x) const {
    float const *const cos = of(i), *const sin = cos + n_;
    for (std::int32_t k = 0; k < by_.count(); ++k) {
      element_pair const e = by_.pair(k);
      std::int32_t const at = by_.pairs == rope_pairs::neighbours ? 2 * k : k;
      float const a = x[e.first], b = x[e.second];
      x[e.first] = kvevict::multiply_add(a, cos[at], b * sin[at]);
      x[e.second] = kvevict::multiply_add(b, cos[at], -a * sin[at]);
    }
  }

 private:
  void work_out(int i, std::int64_t position) {
    float *const cos = memory_ + i * padded(2 * n_, lanes), *const sin = cos + n_;
    auto const far = static_cast<std::uint32_t>(position < 0 ? -position : position);
    vec const m = splat(by_.undo), n = splat(position < 0 ? -by_.undo : by_.undo);
    for (std::int32_t k = 0; k < by_.count(); k += lanes) {
      turn_vectors t = turns_of(angles(far, k));
      t.cos *= m, t.sin *= n;
      std::int32_t const count = std::min(lanes, by_.count() - k);
      if (by_.pairs == rope_pairs::halves)
        store_some(cos + k, t.cos, count), store_some(sin + k, t.sin, count);
      else
        store_twice(t, count, cos + 2 * k, sin + 2 * k);
    }
  }
  /// How far pairs [k, k + lanes) turn: 2³² make a full turn, see turn_by.
  wide_vec angles(std::uint32_t far, std::int32_t k) const {
    std::uint32_t angle[lanes] = {};
    std::uint64_t const* const steps = by_.steps + k;
    if (k + lanes <= by_.count())
      for (int i = 0; i < lanes; ++i) angle[i] = static_cast<std::uint32_t>(far * steps[i] >> 32);
    else
      for (int i = 0; i < by_.count() - k; ++i) angle[i] = static_cast<std::uint32_t>(far * steps[i] >> 32);
    wide_vec out;
    std::memcpy(&out, angle, sizeof out);
    return out;
  }
  static void store_twice(turn_vectors const& t, int count, float* cos, float* sin) {
    for (int i = 0; i < count; ++i) {
      cos[2 * i] = cos[2 * i + 1] = t.cos[i];
      sin[2 * i] = t.sin[i], sin[2 * i + 1] = -t.sin[i];
    }
  }

  turning by_;
  float* memory_;
  std::int32_t n_;
  std::int64_t positions_[tokens_abreast] = {};
  int held_ = 0;
};

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
