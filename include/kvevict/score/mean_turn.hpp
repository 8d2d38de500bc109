// SPDX-License-Identifier: Apache-2.0
// How later queries will be turned, on average.
#pragma once

#include <cstdint>

#include <kvevict/cache/turn_back.hpp>
#include <kvevict/core/shape.hpp>
#include <kvevict/core/token_groups.hpp>
#include <kvevict/evidence/before_rotation.hpp>
#include <kvevict/kernels/kernel.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace score {

/// Cosine and sine of an angle in parts of a turn, 2⁶⁴ of them, to 10⁻¹³ and as exact where it is small: as turn_of,
/// which is a float's.
struct fine_turn {
  double cos, sin;
};
KVEVICT_HOST_DEVICE constexpr fine_turn turn_by_parts(std::uint64_t angle) {
  std::uint64_t const quarter = (angle + (std::uint64_t{1} << 61)) >> 62;
  double const x = static_cast<double>(static_cast<std::int64_t>(angle - (quarter << 62))) *
                   (rope::pi / 9223372036854775808.0),
               z = x * x;
  double s = 0, c = 0;  // Σ (−z)ⁿ/(2n+1)!, Σ (−z)ⁿ/(2n)!
  for (int n = 8; n >= 0; --n) s = 1 - s * z / ((2 * n + 2) * (2 * n + 3)), c = 1 - c * z / ((2 * n + 1) * (2 * n + 2));
  bool const swapped = (quarter & 1) != 0;
  double const cos = swapped ? s * x : c, sin = swapped ? c : s * x;
  return {(quarter & 3) == 1 || (quarter & 3) == 2 ? -cos : cos, (quarter & 2) != 0 ? -sin : sin};
}

/// R̄ = 1/F·Σ_t R(p + t), t = 0 … F−1: the mean of what the rope does to the queries of the F positions behind the
/// newest token of a row, p the first of them. It turns and shortens pairs: R̄μ is a mean query there, k·R̄q = R̄ᵀk·q.
///
/// Pair i turns by (p + (F−1)/2)·θ_i and becomes sin(F·θ_i/2) / (F·sin(θ_i/2)) of its length, times the rope's m.
///
/// Cost     scratch 4·(D + 1) bytes a row, as long as `scratch` lives, beside before_rotation's; one read of positions.
template <class Entry> class mean_turn {
 public:
  template <class Context>
  mean_turn(Context& ctx, frame& scratch, score_rows const& rows, unrotated_elements<Entry> const& keys,
            std::int32_t positions)
      : keys_(keys), rows_(rows), turns_(nullptr) {
    if (keys.by.width == 0) return;
    float* const newest = scratch.template allocate<float>(rows.count());
    turns_ = scratch.template allocate<turn>(rows.count() * keys.by.count());
    kernels::row_max(ctx, rows, token_groups{}, 1, position_of{keys}, newest);
    kernels::each_row(ctx, rows, average{keys.by, newest, positions, turns_});
  }

  turning const& by() const { return keys_.by; }
  /// μ ← R̄μ of every row.  vectors (B·H, D)
  template <class Context> void turn_vectors(Context& ctx, std::int32_t width, float* vectors) const {
    if (keys_.by.width != 0) kernels::each_row(ctx, rows_, forward{keys_.by, turns_, width, vectors});
  }

  /// R̄ᵀk of every token, as unrotated_elements gives k.
  KVEVICT_HOST_DEVICE void operator()(row const& in, std::int64_t token, std::int32_t first,
                                      float (&x)[row_chunk]) const {
    row_reader<Entry> const k(keys_.cache, keys_.of, in);
    turn const* const turns = turns_ + rows_.index_of(in) * keys_.by.count();
    turn_back(
        keys_.by, k, token, first, [turns](std::int32_t i) { return turns[i]; }, x);
  }

  // what kernels are given, and so is public
  /// As a float: the mean over hundreds of positions does not feel one beyond 2²⁴.
  struct position_of {
    unrotated_elements<Entry> keys;
    KVEVICT_HOST_DEVICE float operator()(row const& in, std::int64_t j) const {
      return static_cast<float>(keys.reader(in).position(j));
    }
  };
  struct average {
    turning by;
    float const* newest;  // (B·H)
    std::int32_t positions;
    turn* turns;  // (B·H, width/2)

    KVEVICT_HOST_DEVICE void operator()(row const&, std::int64_t r) const {
      auto const next = static_cast<std::uint64_t>(static_cast<std::int64_t>(newest[r]) + 1);
      auto const F = static_cast<std::uint64_t>(positions);
      for (std::int32_t i = 0; i < by.count(); ++i) {
        std::uint64_t const step = by.steps[i];
        fine_turn const middle = turn_by_parts(next * step + halves(F - 1, step));
        double const sine = turn_by_parts(halves(1, step)).sin;
        double const size =
            (sine == 0 ? 1.0 : turn_by_parts(halves(F, step)).sin / (positions * sine)) / static_cast<double>(by.undo);
        turns[r * by.count() + i] = {static_cast<float>(size * middle.cos), static_cast<float>(size * middle.sin)};
      }
    }
    /// Half a step, so many times: whole turns drop out.
    KVEVICT_HOST_DEVICE static std::uint64_t halves(std::uint64_t count, std::uint64_t step) {
      return count / 2 * step + count % 2 * (step / 2);
    }
  };
  struct forward {
    turning by;
    turn const* turns;
    std::int32_t width;
    float* vectors;

    KVEVICT_HOST_DEVICE void operator()(row const&, std::int64_t r) const {
      float* const x = vectors + r * width;
      for (std::int32_t i = 0; i < by.count(); ++i) {
        auto const [a, b] = by.pair(i);
        turn const t = turns[r * by.count() + i];
        float const first = x[a], second = x[b];
        x[a] = multiply_add(first, t.cos, -second * t.sin), x[b] = multiply_add(second, t.cos, first * t.sin);
      }
    }
  };

 private:
  unrotated_elements<Entry> keys_;
  score_rows rows_;
  turn* turns_;  // (B·H, width/2)
};

/// Scratch of it and of the keys that it turns.
constexpr std::int64_t mean_turn_bytes(cache_shape const& s) {
  return scratch_step(s.rows() * 4) + scratch_step(s.rows() * s.head_dim * 4) + before_rotation_bytes(s);
}

}  // namespace score
}  // namespace KVEVICT_ABI
}  // namespace kvevict
