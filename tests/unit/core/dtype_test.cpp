// SPDX-License-Identifier: Apache-2.0
// Halves and bfloats to floats and back: every one of them, against their definition in double.
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>

#include <kvevict/core/dtype.hpp>

#include "support/catch.hpp"
#include "support/random.hpp"

namespace core_dtype_test {

using kvevict::bf16;
using kvevict::f16;
using kvevict::from_float;
using kvevict::to_float;
using kvevict::bits::as_float;
using kvevict::bits::as_uint;

namespace {

/// Sign, `exponents` bits, `mantissa` bits: the number that they stand for.
double number(std::uint32_t bits, int exponents, int mantissa) {
  int const bias = (1 << (exponents - 1)) - 1, top = (1 << exponents) - 1;
  int const e = static_cast<int>(bits >> mantissa) & top;
  double const m = bits & ((1u << mantissa) - 1), sign = (bits >> (exponents + mantissa) & 1u) != 0 ? -1 : 1;
  if (e == top) return m == 0 ? sign * std::numeric_limits<double>::infinity() : std::nan("");
  return sign * std::ldexp(e == 0 ? m : m + (1 << mantissa), (e == 0 ? 1 : e) - bias - mantissa);
}

bool same(float got, double want) {
  return std::isnan(want) ? std::isnan(got)
                          : static_cast<double>(got) == want && std::signbit(got) == std::signbit(want);
}

/// The nearest T by trying all: ties to the even bits.
template <class T> struct nearest {
  int exponents, mantissa;
  std::uint16_t operator()(float x) const {
    double const a = std::abs(static_cast<double>(x));
    std::uint32_t low = 0, high = static_cast<std::uint32_t>(((1 << exponents) - 1) << mantissa);  // infinity
    while (high - low > 1) (number((low + high) / 2, exponents, mantissa) <= a ? low : high) = (low + high) / 2;
    double const below = number(low, exponents, mantissa);
    bool const overflow = high == static_cast<std::uint32_t>(((1 << exponents) - 1) << mantissa);
    double const above =
        overflow ? below + (below - number(low - 1, exponents, mantissa)) : number(high, exponents, mantissa);
    std::uint32_t const best = a - below < above - a || (a - below == above - a && low % 2 == 0) ? low : high;
    return static_cast<std::uint16_t>(best | (std::signbit(x) ? 0x8000u : 0u));
  }
};

template <class T> void check_all(int exponents, int mantissa) {
  std::size_t wrong = 0, back = 0;
  for (std::uint32_t i = 0; i < 65536; ++i) {
    T const x{static_cast<std::uint16_t>(i)};
    wrong += !same(to_float(x), number(i, exponents, mantissa));
    T const again = from_float<T>(to_float(x));
    back += std::isnan(to_float(x)) ? !std::isnan(to_float(again)) : again.bits != x.bits;
  }
  CHECK(wrong == 0);
  CHECK(back == 0);
  reference::generator random(3);
  nearest<T> const expected{exponents, mantissa};
  std::size_t rounded = 0;
  for (int trial = 0; trial < 200000; ++trial) {
    float const x = as_float(static_cast<std::uint32_t>(random.bits()));
    if (std::isnan(x) || std::isinf(x)) continue;
    rounded += from_float<T>(x).bits != expected(x);
  }
  for (std::uint32_t i = 0; i < 65536; ++i)  // halfway, and one float to each side of it
    for (int side = -1; side <= 1; ++side) {
      double const here = number(i & 0x7fffu, exponents, mantissa),
                   next = number((i & 0x7fffu) + 1, exponents, mantissa);
      if (!std::isfinite(here) || !std::isfinite(next)) continue;
      auto const half = static_cast<float>((here + next) / 2);
      float const x = as_float(as_uint(half) + static_cast<std::uint32_t>(side));
      if (half != 0) rounded += from_float<T>(x).bits != expected(x);
    }
  CHECK(rounded == 0);
}

}  // namespace

TEST_CASE("every half is the float that it stands for, and floats round to the nearest half") { check_all<f16>(5, 10); }
TEST_CASE("every bfloat is the float that it stands for, and floats round to the nearest bfloat") {
  check_all<bf16>(8, 7);
}

TEST_CASE("conversions work while compiling") {
  static_assert(to_float(f16{0x3c00}) == 1.0f && to_float(bf16{0xc000}) == -2.0f);
  static_assert(from_float<f16>(65504.0f).bits == 0x7bff && from_float<f16>(65520.0f).bits == 0x7c00);
  static_assert(from_float<bf16>(1.00390625f).bits == 0x3f80 && from_float<float>(3.0f) == 3.0f);
  static_assert(kvevict::with_type(kvevict::dtype::bf16, [](auto x) { return sizeof x; }) == 2);
}

}  // namespace core_dtype_test
