// SPDX-License-Identifier: Apache-2.0
// Element types. Scoring needs a type; moving needs only bytes.
#pragma once

#include <cstdint>
#include <cstring>

#include <kvevict/core/abi.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// What a component's or a query's elements are. Scores read f32, f16 and bf16, positions are i32; `opaque` is bytes
/// that only move.
enum class dtype : std::uint8_t { f32, f16, bf16, i32, opaque };

/// Storage of an IEEE half; arithmetic happens in float.
struct f16 {
  std::uint16_t bits;
};
/// Storage of a bfloat16: the upper half of a float.
struct bf16 {
  std::uint16_t bits;
};

constexpr std::int32_t size_of(dtype t) { return t == dtype::f32 || t == dtype::i32 ? 4 : t == dtype::opaque ? 1 : 2; }
constexpr bool is_floating(dtype t) { return t == dtype::f32 || t == dtype::f16 || t == dtype::bf16; }

constexpr char const* name_of(dtype t) {
  switch (t) {
    case dtype::f32: return "f32";
    case dtype::f16: return "f16";
    case dtype::bf16: return "bf16";
    case dtype::i32: return "i32";
    default: return "opaque";
  }
}

template <class T> struct dtype_of;
template <> struct dtype_of<float> { static constexpr dtype value = dtype::f32; };
template <> struct dtype_of<f16> { static constexpr dtype value = dtype::f16; };
template <> struct dtype_of<bf16> { static constexpr dtype value = dtype::bf16; };
template <> struct dtype_of<std::int32_t> { static constexpr dtype value = dtype::i32; };

namespace bits {
inline float as_float(std::uint32_t u) {
  float f;
  std::memcpy(&f, &u, 4);
  return f;
}
inline std::uint32_t as_uint(float f) {
  std::uint32_t u;
  std::memcpy(&u, &f, 4);
  return u;
}
}  // namespace bits

inline float to_float(float x) { return x; }
inline float to_float(bf16 x) { return bits::as_float(static_cast<std::uint32_t>(x.bits) << 16); }

/// Exact: every half is a float. Branch-free, so that loops over it vectorise: subnormals through a float subtraction.
inline float to_float(f16 x) {
  std::uint32_t const magnitude = static_cast<std::uint32_t>(x.bits & 0x7fffu) << 13;
  std::uint32_t const sign = static_cast<std::uint32_t>(x.bits & 0x8000u) << 16;
  std::uint32_t const exponent = magnitude & 0x0f800000u;
  std::uint32_t u = magnitude + 0x38000000u;      // rebias 15 → 127
  if (exponent == 0x0f800000u) u += 0x38000000u;  // inf, nan
  if (exponent == 0) u = bits::as_uint(bits::as_float(u + 0x00800000u) - bits::as_float(0x38800000u));
  return bits::as_float(u | sign);
}

template <class T> T from_float(float x);
template <> inline float from_float<float>(float x) { return x; }
/// Round to nearest even; NaN stays NaN.
template <> inline bf16 from_float<bf16>(float x) {
  std::uint32_t const u = bits::as_uint(x);
  if ((u & 0x7fffffffu) > 0x7f800000u) return {static_cast<std::uint16_t>((u >> 16) | 0x40u)};
  return {static_cast<std::uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16)};
}
/// Round to nearest even, overflow to infinity; NaN stays NaN.
template <> inline f16 from_float<f16>(float x) {
  std::uint32_t const u = bits::as_uint(x), sign = (u >> 16) & 0x8000u, a = u & 0x7fffffffu;
  std::uint32_t h;
  if (a > 0x7f800000u)
    h = 0x7e00u;
  else if (a >= 0x477ff000u)
    h = 0x7c00u;
  else if (a < 0x38800000u)
    h = bits::as_uint(bits::as_float(a) + 0.5f) - 0x3f000000u;
  else
    h = (a - 0x38000000u + 0xfffu + ((a >> 13) & 1u)) >> 13;
  return {static_cast<std::uint16_t>(h | sign)};
}

}  // namespace KVEVICT_ABI
}  // namespace kvevict
