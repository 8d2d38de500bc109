// SPDX-License-Identifier: Apache-2.0
// Rotary position embedding in long double, written from the modelling code of transformers (modeling_rope_utils) and
// llama.cpp, independent of the library.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

namespace reference {

using real = long double;
inline constexpr real two_pi = 6.283185307179586476925286766559005768L;

struct rope_config {
  real base = 10000;
  std::string type = "default";  // linear, llama3, yarn
  real factor = 1, original = 0, low_freq_factor = 1, high_freq_factor = 4, beta_fast = 32, beta_slow = 1;
  bool truncate = true;
};

/// inv_freq of `dim` elements.
inline std::vector<real> inverse_frequencies(rope_config const& c, int dim) {
  std::vector<real> out;
  for (int i = 0; i < dim; i += 2) out.push_back(1 / std::pow(c.base, static_cast<real>(i) / dim));
  if (c.type == "linear")
    for (real& f : out) f /= c.factor;
  if (c.type == "llama3")
    for (real& f : out) {
      real const wavelength = two_pi / f, low = c.original / c.low_freq_factor, high = c.original / c.high_freq_factor,
                 smooth = (c.original / wavelength - c.low_freq_factor) / (c.high_freq_factor - c.low_freq_factor);
      real const smoothed = (1 - smooth) * f / c.factor + smooth * f;
      f = wavelength > low ? f / c.factor : wavelength < high ? f : smoothed;
    }
  if (c.type == "yarn") {
    auto const correction = [&](real rotations) {
      return dim * std::log(c.original / (rotations * two_pi)) / (2 * std::log(c.base));
    };
    real low = correction(c.beta_fast), high = correction(c.beta_slow);
    if (c.truncate) low = std::floor(low), high = std::ceil(high);
    low = std::max<real>(low, 0), high = std::min<real>(high, dim - 1);
    if (low == high) high += 0.001L;
    for (std::size_t i = 0; i < out.size(); ++i) {
      real const ramp = std::clamp<real>((static_cast<real>(i) - low) / (high - low), 0, 1), extrapolation = 1 - ramp;
      out[i] = out[i] / c.factor * (1 - extrapolation) + out[i] * extrapolation;
    }
  }
  return out;
}

/// The first `dim` elements of x turned by a position, which may be negative.
inline std::vector<real> rotated(std::vector<real> x, std::vector<real> const& inverse, real position, bool interleaved,
                                 real amplitude = 1) {
  std::size_t const half = inverse.size();
  for (std::size_t i = 0; i < half; ++i) {
    std::size_t const a = interleaved ? 2 * i : i, b = interleaved ? 2 * i + 1 : i + half;
    real const c = std::cos(position * inverse[i]), s = std::sin(position * inverse[i]), u = x[a], v = x[b];
    x[a] = amplitude * (u * c - v * s), x[b] = amplitude * (v * c + u * s);
  }
  return x;
}

}  // namespace reference
