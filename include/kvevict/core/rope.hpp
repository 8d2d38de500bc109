// SPDX-License-Identifier: Apache-2.0
// Rotary position embedding as a description: which elements of a key turn, and how far at each position; exact enough
// for positions of 10⁶ and more, in host code and in kernels.
#pragma once

#include <cmath>
#include <cstdint>

#include <kvevict/core/contract.hpp>
#include <kvevict/core/host_device.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// How frequencies were stretched for contexts that are longer than those of the training.
enum class rope_scaling : std::uint8_t { plain, linear, llama3, yarn };

/// Which two elements turn together: i and i + width/2 (GPT-NeoX, Hugging Face), or 2i and 2i + 1 (GPT-J, DeepSeek).
enum class rope_pairs : std::uint8_t { halves, neighbours };

/// What turned the keys of a model, given once, like the scale of its logits; fields as in its configuration.
///
///   k'(a) = m·( k(a)·cos(p·θ_i) − k(b)·sin(p·θ_i) ),   k'(b) = m·( k(b)·cos(p·θ_i) + k(a)·sin(p·θ_i) )
///
/// for the i-th pair (a, b) of a key at position p, d = width, i < d/2, with
///
///   plain    θ_i = base^(−2i/d)
///   linear   θ_i ÷ factor
///   llama3   wavelength λ = 2π/θ_i: below original/high_factor θ_i, above original/low_factor θ_i ÷ factor, between
///            them from one to the other by original/λ
///   yarn     pairs that turn more than beta_fast times within the original length θ_i, those that turn less than
///            beta_slow times θ_i ÷ factor, between them from one to the other by i
///
/// Elements behind `width` do not turn. m is yarn's attention factor, else 1. Dynamic NTK scaling is `plain` with the
/// base that it has arrived at.
/// Paper    RoFormer, Su et al., arXiv:2104.09864; Llama 3.1; YaRN, Peng et al., arXiv:2309.00071.
struct rope {
  double base = 0;         // rope_theta: 10 000, 500 000 …
  std::int32_t width = 0;  // elements that turn, the first of a row; 0: all (partial rotary factor 1)
  rope_pairs pairs = rope_pairs::halves;
  rope_scaling scaling = rope_scaling::plain;
  double factor = 1;
  double original = 0;                     // original_max_position_embeddings; of llama3 and yarn
  double low_factor = 1, high_factor = 4;  // low_freq_factor, high_freq_factor; of llama3
  double beta_fast = 32, beta_slow = 1;    // of yarn
  bool whole_pairs = true;                 // of yarn: its two ends are rounded to whole pairs (`truncate`)
  double attention_factor = 0;             // of yarn; 0: 1 + ln(factor)/10

  static constexpr double pi = 3.14159265358979323846;

  KVEVICT_HOST_DEVICE constexpr bool is_given() const { return base != 0; }
  KVEVICT_HOST_DEVICE constexpr std::int32_t width_in(std::int32_t row) const { return width == 0 ? row : width; }

  /// m.
  KVEVICT_HOST_DEVICE double amplitude() const {
    if (scaling != rope_scaling::yarn) return 1;
    return attention_factor != 0 ? attention_factor : factor > 1 ? 1 + 0.1 * ::log(factor) : 1;
  }

  /// θ_i, in radians a position, where d elements turn.
  KVEVICT_HOST_DEVICE double frequency(std::int32_t i, std::int32_t d) const {
    double const plain = ::pow(base, -2.0 * i / d);
    switch (scaling) {
      case rope_scaling::linear: return plain / factor;
      case rope_scaling::llama3: {
        double const turns = original * plain / (2 * pi);  // within the original length: original/λ
        return between(plain / factor, plain, (turns - low_factor) / (high_factor - low_factor));
      }
      case rope_scaling::yarn: {
        double const fast = pair_that_turns(beta_fast, d), slow = pair_that_turns(beta_slow, d),
                     from = whole_pairs ? ::floor(fast) : fast, to = whole_pairs ? ::ceil(slow) : slow,
                     low = from < 0 ? 0 : from, high = to > d - 1 ? d - 1 : to;
        return between(plain, plain / factor, (i - low) / (high == low ? 0.001 : high - low));
      }
      default: return plain;
    }
  }

  /// How far pair i turns from a position to the next: 2⁶⁴ make a full turn. Whole turns drop out of integers by
  /// themselves, so that the angle at position p is as exact as p·θ_i·3·10⁻¹⁶.
  KVEVICT_HOST_DEVICE std::uint64_t step(std::int32_t i, std::int32_t d) const {
    double const turns = frequency(i, d) / (2 * pi);
    return static_cast<std::uint64_t>((turns - ::floor(turns)) * 18446744073709551616.0);
  }

 private:
  /// From a to b as t goes from 0 to 1.
  KVEVICT_HOST_DEVICE static double between(double a, double b, double t) {
    return t <= 0 ? a : t >= 1 ? b : (1 - t) * a + t * b;
  }
  /// The pair, as a real number, that makes so many turns within the original length.
  KVEVICT_HOST_DEVICE double pair_that_turns(double turns, std::int32_t d) const {
    return d * ::log(original / (turns * 2 * pi)) / (2 * ::log(base));
  }
};

/// The elements of pair i where d turn, and the pair that an element is of.
struct element_pair {
  std::int32_t first, second;
};
KVEVICT_HOST_DEVICE constexpr element_pair pair_of(rope_pairs how, std::int32_t i, std::int32_t d) {
  return how == rope_pairs::halves ? element_pair{i, i + d / 2} : element_pair{2 * i, 2 * i + 1};
}

/// Cosine and sine of an angle.
struct turn {
  float cos, sin;
};

/// Of an angle in parts of a turn, 2³² of them, to 1.2·10⁻⁷: the nearest quarter is taken off, the rest is a
/// polynomial. No branch, so that loops over it vectorise.
KVEVICT_HOST_DEVICE constexpr turn turn_of(std::uint32_t angle) {
  std::uint32_t const quarter = (angle + 0x20000000u) >> 30;
  float const x = static_cast<float>(static_cast<std::int32_t>(angle - (quarter << 30))) * 1.4629180792671596e-9f,
              z = x * x;
  float const s = x + x * z * (-1.6666654611e-1f + z * (8.3321608736e-3f + z * -1.9515295891e-4f)),
              c = 1 - 0.5f * z + z * z * (4.166664568e-2f + z * (-1.388731625e-3f + z * 2.443315712e-5f));
  bool const swapped = (quarter & 1) != 0;
  float const cos = swapped ? s : c, sin = swapped ? c : s;
  return {quarter == 1 || quarter == 2 ? -cos : cos, (quarter & 2) != 0 ? -sin : sin};
}
/// Of |positions| steps of a pair; backwards where they are negative.
KVEVICT_HOST_DEVICE constexpr turn turn_by(std::int64_t positions, std::uint64_t step) {
  std::uint32_t const far = static_cast<std::uint32_t>(positions < 0 ? -positions : positions);
  auto const high = static_cast<std::uint32_t>(step >> 32), low = static_cast<std::uint32_t>(step);
  turn const t = turn_of(far * high + static_cast<std::uint32_t>(std::uint64_t{far} * low >> 32));
  return {t.cos, positions < 0 ? -t.sin : t.sin};
}

namespace contract {

/// It describes a rotation of rows of that many elements.
inline void expect_rope(char const* verb, rope const& r, std::int64_t row) {
  KVEVICT_EXPECTS(r.base > 1 && r.base < 1e30, verb, ": a rope of base ", r.base,
                  "; give the model's own (rope_theta: 10000, 500000)");
  KVEVICT_EXPECTS(r.width >= 0 && r.width <= row && (r.width == 0 ? row : r.width) % 2 == 0, verb, ": a rope turns ",
                  r.width == 0 ? row : r.width, " elements of rows of ", row,
                  "; it turns pairs, of which a row has at least as many");
  KVEVICT_EXPECTS(r.pairs <= rope_pairs::neighbours && r.scaling <= rope_scaling::yarn, verb,
                  ": a rope with pairs or scaling out of range; give one of the enumerators");
  KVEVICT_EXPECTS(r.factor >= 1 && r.factor < 1e9 && r.amplitude() > 0 && r.amplitude() < 1e9, verb,
                  ": a rope that is stretched by ", r.factor, " and amplified by ", r.amplitude(),
                  "; give a factor of 1 or more, and attention_factor above 0, or 0 for its default");
  if (r.scaling == rope_scaling::llama3 || r.scaling == rope_scaling::yarn) {
    KVEVICT_EXPECTS(r.original >= 1 && r.original < 1e12, verb, ": a scaled rope of original length ", r.original,
                    "; give original_max_position_embeddings");
    KVEVICT_EXPECTS(r.low_factor > 0 && r.low_factor < r.high_factor && r.high_factor < 1e9 && r.beta_slow > 0 &&
                        r.beta_slow < r.beta_fast && r.beta_fast < 1e9,
                    verb, ": a rope whose factors are ", r.low_factor, " to ", r.high_factor, " and betas ",
                    r.beta_slow, " to ", r.beta_fast, "; give the lower one first, both above 0 and below 1e9");
  }
}

}  // namespace contract
}  // namespace KVEVICT_ABI
}  // namespace kvevict
