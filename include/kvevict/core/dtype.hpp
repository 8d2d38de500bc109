// SPDX-License-Identifier: Apache-2.0
// Element types, and their numbers as floats. Scoring needs a type; moving needs only bytes.
//
// Another floating type is one more struct here, with a line in `dtype`, size_of, name_of, dtype_of and with_type, a
// to_float and a from_float; every reader of elements follows. Codes that mean something only with a scale are decoded
// in one place, cache/row_code.hpp.
#pragma once

#include <cstdint>
#include <type_traits>

#include <kvevict/core/abi.hpp>
#include <kvevict/core/host_device.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// What a component's or a query's elements are. Scores read f32, f16 and bf16, and of a cache the codes from fp8_e4m3
/// on, whose scales the component names (cache/quantisation.hpp); positions are i32; `opaque` is bytes that only move,
/// unless the component brings a function that decodes them.
enum class dtype : std::uint8_t { f32, f16, bf16, i32, opaque, fp8_e4m3, fp8_e5m2, i8, u8, i4, u4 };

/// Storage of an IEEE half; arithmetic happens in float.
struct f16 {
  std::uint16_t bits;
};
/// Storage of a bfloat16: the upper half of a float.
struct bf16 {
  std::uint16_t bits;
};

/// OCP's 8-bit floats: 4 exponent bits, no infinity, ±448 at most; 5 exponent bits, the upper half of an IEEE half.
struct fp8_e4m3 {
  std::uint8_t bits;
};
struct fp8_e5m2 {
  std::uint8_t bits;
};

/// Bytes of an element; of i4 and u4, two of which share a byte, that byte.
KVEVICT_HOST_DEVICE constexpr std::int32_t size_of(dtype t) {
  return t == dtype::f32 || t == dtype::i32 ? 4 : t == dtype::f16 || t == dtype::bf16 ? 2 : 1;
}
KVEVICT_HOST_DEVICE constexpr bool is_floating(dtype t) {
  return t == dtype::f32 || t == dtype::f16 || t == dtype::bf16;
}
/// Codes that are numbers with a scale.
KVEVICT_HOST_DEVICE constexpr bool is_code(dtype t) { return t >= dtype::fp8_e4m3; }
KVEVICT_HOST_DEVICE constexpr bool is_half_byte(dtype t) { return t >= dtype::i4; }

/// Elements that a row may lie behind the start of its array, along tokens and along heads, so that their sum in bytes
/// fits into 64 bits; and the largest row that an offset of 32 bits can name.
inline constexpr std::int64_t farthest_element = std::int64_t{1} << 59, farthest_row = (std::int64_t{1} << 31) - 1;

constexpr char const* name_of(dtype t) {
  switch (t) {
    case dtype::f32: return "f32";
    case dtype::f16: return "f16";
    case dtype::bf16: return "bf16";
    case dtype::i32: return "i32";
    case dtype::fp8_e4m3: return "fp8_e4m3";
    case dtype::fp8_e5m2: return "fp8_e5m2";
    case dtype::i8: return "i8";
    case dtype::u8: return "u8";
    case dtype::i4: return "i4";
    case dtype::u4: return "u4";
    default: return "opaque";
  }
}

template <class T> struct dtype_of;
template <> struct dtype_of<float> { static constexpr dtype value = dtype::f32; };
template <> struct dtype_of<f16> { static constexpr dtype value = dtype::f16; };
template <> struct dtype_of<bf16> { static constexpr dtype value = dtype::bf16; };
template <> struct dtype_of<std::int32_t> { static constexpr dtype value = dtype::i32; };

/// f(T{}) with the storage type of a floating dtype.
template <class F> KVEVICT_HOST_DEVICE constexpr decltype(auto) with_type(dtype type, F&& f) {
  return type == dtype::f16 ? f(f16{}) : type == dtype::bf16 ? f(bf16{}) : f(float{});
}

namespace bits {
KVEVICT_HOST_DEVICE constexpr float as_float(std::uint32_t u) { return __builtin_bit_cast(float, u); }
KVEVICT_HOST_DEVICE constexpr std::uint32_t as_uint(float f) { return __builtin_bit_cast(std::uint32_t, f); }
}  // namespace bits

// Conversions have the same bits on the host, on a device and while compiling.

KVEVICT_HOST_DEVICE constexpr float to_float(float x) { return x; }
KVEVICT_HOST_DEVICE constexpr float to_float(bf16 x) {
  return bits::as_float(static_cast<std::uint32_t>(x.bits) << 16);
}

/// Exact: every half is a float. Branch-free, so that loops over it vectorise: subnormals through a float subtraction.
KVEVICT_HOST_DEVICE constexpr float to_float(f16 x) {
  std::uint32_t const magnitude = static_cast<std::uint32_t>(x.bits & 0x7fffu) << 13;
  std::uint32_t const sign = static_cast<std::uint32_t>(x.bits & 0x8000u) << 16;
  std::uint32_t const exponent = magnitude & 0x0f800000u;
  std::uint32_t u = magnitude + 0x38000000u;      // rebias 15 → 127
  if (exponent == 0x0f800000u) u += 0x38000000u;  // inf, nan
  if (exponent == 0) u = bits::as_uint(bits::as_float(u + 0x00800000u) - bits::as_float(0x38800000u));
  return bits::as_float(u | sign);
}

/// Exact, and branch-free as that of a half.
KVEVICT_HOST_DEVICE constexpr float to_float(fp8_e4m3 x) {
  std::uint32_t const magnitude = static_cast<std::uint32_t>(x.bits & 0x7fu) << 20;
  std::uint32_t u = magnitude + 0x3c000000u;  // rebias 7 → 127
  if ((magnitude & 0x07800000u) == 0) u = bits::as_uint(bits::as_float(u + 0x00800000u) - bits::as_float(0x3c800000u));
  if (magnitude == 0x07f00000u) u = 0x7fc00000u;
  return bits::as_float(u | static_cast<std::uint32_t>(x.bits & 0x80u) << 24);
}
KVEVICT_HOST_DEVICE constexpr float to_float(fp8_e5m2 x) {
  return to_float(f16{static_cast<std::uint16_t>(x.bits << 8)});
}

/// To nearest even; what a half cannot hold becomes infinity, NaN stays NaN.
template <class T> KVEVICT_HOST_DEVICE constexpr T from_float(float x) {
  static_assert(std::is_same_v<T, float> || std::is_same_v<T, bf16> || std::is_same_v<T, f16>,
                "from_float: a component's elements are float, f16 or bf16");
  std::uint32_t const u = bits::as_uint(x), sign = (u >> 16) & 0x8000u, a = u & 0x7fffffffu;
  if constexpr (std::is_same_v<T, float>) {
    return x;
  } else if constexpr (std::is_same_v<T, bf16>) {
    if (a > 0x7f800000u) return {static_cast<std::uint16_t>((u >> 16) | 0x40u)};
    return {static_cast<std::uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16)};
  } else {
    std::uint32_t h = 0;
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
}

}  // namespace KVEVICT_ABI
}  // namespace kvevict
