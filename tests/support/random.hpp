// SPDX-License-Identifier: Apache-2.0
// Seeded random inputs that are the same on every machine.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

namespace reference {

/// mt19937_64 (its stream is fixed by the standard) with our own distributions (the standard's are not). Normals are
/// rounded to float: a last-bit difference of a machine's log never shows, and the values reach the library without
/// another rounding.
class generator {
 public:
  explicit generator(std::uint64_t seed) : seed_{seed}, bits_{seed} {}

  /// For the message of a failing test: CAPTURE(random.seed()).
  [[nodiscard]] std::uint64_t seed() const { return seed_; }

  std::uint64_t bits() { return bits_(); }

  /// Uniform in [0,1), a multiple of 2^-53.
  double uniform() { return static_cast<double>(bits_() >> 11) * 0x1p-53; }

  double uniform(double low, double high) { return low + (high - low) * uniform(); }

  /// Uniform in {0, …, count-1}; count > 0. (The bias of the remainder is below 2^-40 for the sizes of tests.)
  std::size_t below(std::size_t count) { return static_cast<std::size_t>(bits_() % count); }

  /// Standard normal, by Marsaglia's polar method, rounded to float.
  double normal() {
    for (;;) {
      double const a = uniform(-1.0, 1.0);
      double const b = uniform(-1.0, 1.0);
      double const s = a * a + b * b;
      if (s > 0.0 && s < 1.0) return static_cast<double>(static_cast<float>(a * std::sqrt(-2.0 * std::log(s) / s)));
    }
  }

  template <class T = double> std::vector<T> normals(std::size_t count, double deviation = 1.0) {
    std::vector<T> out(count);
    for (T& x : out) x = static_cast<T>(static_cast<float>(deviation * normal()));
    return out;
  }

  template <class T = double> std::vector<T> uniforms(std::size_t count, double low = 0.0, double high = 1.0) {
    std::vector<T> out(count);
    for (T& x : out) x = static_cast<T>(static_cast<float>(uniform(low, high)));
    return out;
  }

  /// Multiples of 1/levels in [0,1): many exact ties.
  template <class T = double> std::vector<T> tied(std::size_t count, std::size_t levels) {
    std::vector<T> out(count);
    for (T& x : out) x = static_cast<T>(static_cast<float>(below(levels)) / static_cast<float>(levels));
    return out;
  }

 private:
  std::uint64_t seed_;
  std::mt19937_64 bits_;
};

}  // namespace reference
