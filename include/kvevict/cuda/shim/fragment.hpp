// SPDX-License-Identifier: Apache-2.0
// How a warp holds the matrices of D(16×8) += A(16×16) · B(16×8): the fragments of mma.m16n8k16, PTX ISA 9.7.14.5.8.
#pragma once

#include <cstdint>
#include <type_traits>

#include <kvevict/core/dtype.hpp>
#include <kvevict/cuda/shim/platform.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

/// Place of an element in its matrix.
struct place {
  std::uint32_t row, column;
};

template <class T> inline constexpr bool multiplies = std::is_same_v<T, f16> || std::is_same_v<T, bf16>;

/// Two elements in a register, the first in the lower half.
template <class T> KVEVICT_HOST_DEVICE constexpr std::uint32_t pack(T first, T second) {
  return first.bits | static_cast<std::uint32_t>(second.bits) << 16;
}

/// A, row-major: elements 2r and 2r+1 of a lane are in registers[r].
template <class T> struct fragment_a {
  static_assert(multiplies<T>, "fragment_a: f16 or bf16");
  std::uint32_t registers[4];
  KVEVICT_HOST_DEVICE static constexpr place place_of(std::uint32_t lane, std::uint32_t i) {  // i < 8
    return {lane / 4 + i / 2 % 2 * 8, lane % 4 * 2 + i % 2 + i / 4 * 8};
  }
};

/// B, column-major: both elements of a register are neighbours in a column.
template <class T> struct fragment_b {
  static_assert(multiplies<T>, "fragment_b: f16 or bf16");
  std::uint32_t registers[2];
  KVEVICT_HOST_DEVICE static constexpr place place_of(std::uint32_t lane, std::uint32_t i) {  // i < 4
    return {lane % 4 * 2 + i % 2 + i / 2 * 8, lane / 4};
  }
};

/// C and D, in float.
struct accumulator {
  float values[4];
  KVEVICT_HOST_DEVICE static constexpr place place_of(std::uint32_t lane, std::uint32_t i) {  // i < 4
    return {lane / 4 + i / 2 * 8, lane % 4 * 2 + i % 2};
  }
};

}  // namespace kvevict::inline KVEVICT_ABI::cuda
