// SPDX-License-Identifier: Apache-2.0
// One vector of floats, as wide as the instruction set of this translation unit, in the vector extension that g++ and
// clang share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include <kvevict/core/abi.hpp>
#include <kvevict/core/dtype.hpp>
#include <kvevict/core/multiply_add.hpp>

#if defined(__AVX__)
#include <immintrin.h>
#elif defined(__SSE2__)
#include <emmintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#define KVEVICT_WIDE_LANES
inline constexpr int lanes = 16;
#elif defined(__AVX__)
inline constexpr int lanes = 8;
#else
inline constexpr int lanes = 4;
#endif

using vec __attribute__((vector_size(lanes * 4))) = float;
using ivec __attribute__((vector_size(lanes * 4))) = std::int32_t;
using half_vec __attribute__((vector_size(lanes * 2))) = std::uint16_t;
using wide_vec __attribute__((vector_size(lanes * 4))) = std::uint32_t;

/// n rounded up to a multiple of `unit`.
constexpr std::int64_t padded(std::int64_t n, std::int64_t unit) { return (n + unit - 1) / unit * unit; }

/// f(0), …, f(N−1) with constant arguments, so that arrays of vectors stay in registers.
template <int N, class F> [[gnu::always_inline]] inline void unroll(F&& f) {
  [&]<int... I>(std::integer_sequence<int, I...>) __attribute__((always_inline)) {
    (f(std::integral_constant<int, I>{}), ...);
  }
  (std::make_integer_sequence<int, N>{});
}

inline vec splat(float x) { return x - vec{}; }
inline vec load(void const* p) {
  vec v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
/// The first min(n, lanes) floats, zeros behind them.
inline vec load_some(float const* p, std::int64_t n) {
  if (n >= lanes) return load(p);
  vec v = {};
  std::memcpy(&v, p, static_cast<std::size_t>(n) * sizeof(float));
  return v;
}
inline void store(float* p, vec v) { std::memcpy(p, &v, sizeof v); }
/// The first min(n, lanes) floats.
inline void store_some(float* p, vec v, std::int64_t n) {
  if (n >= lanes)
    store(p, v);
  else
    std::memcpy(p, &v, static_cast<std::size_t>(n) * sizeof(float));
}
/// N floats, zeros behind them.
template <int N> vec load_first(float const* p) {
  static_assert(N <= lanes);
  vec v = {};
  std::memcpy(&v, p, N * sizeof(float));
  return v;
}
/// What several multiply-adds use stays in a register: else g++ 12 reads it from memory in each of them, and loads are
/// then the bound, not arithmetic. By value: a reference would have it written to memory, too.
[[gnu::always_inline]] inline vec in_register(vec v) {
#if defined(__CUDACC__)  // nvcc's front end knows no vectors here
#elif defined(__SSE2__)
  asm("" : "+v"(v));
#elif defined(__aarch64__)
  asm("" : "+w"(v));
#endif
  return v;
}
inline ivec bits_of(vec v) { return reinterpret_cast<ivec>(v); }
inline vec float_of(ivec v) { return reinterpret_cast<vec>(v); }
/// NaN in place of what is not finite; by the bits, as -ffast-math may fold arithmetic that does it.
inline vec finite_or_nan(vec v) { return (bits_of(v) & 0x7fffffff) < 0x7f800000 ? v : splat(__builtin_nanf("")); }
/// The second operand wins when one is NaN: what x86 has an instruction for, which g++ 12 does not see in a ? b : c.
#if defined(KVEVICT_WIDE_LANES)
inline vec max(vec a, vec b) { return _mm512_maskz_max_ps(0xffff, a, b); }
inline vec min(vec a, vec b) { return _mm512_maskz_min_ps(0xffff, a, b); }
#elif defined(__AVX__)
inline vec max(vec a, vec b) { return _mm256_max_ps(a, b); }
inline vec min(vec a, vec b) { return _mm256_min_ps(a, b); }
#elif defined(__SSE2__)
inline vec max(vec a, vec b) { return _mm_max_ps(a, b); }
inline vec min(vec a, vec b) { return _mm_min_ps(a, b); }
#else
inline vec max(vec a, vec b) { return a > b ? a : b; }
inline vec min(vec a, vec b) { return a < b ? a : b; }
#endif
/// a·b + c of every lane, as multiply_add of floats.
inline vec multiply_add(vec a, vec b, vec c) {
#if defined(KVEVICT_WIDE_LANES)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__FMA__)
  return _mm256_fmadd_ps(a, b, c);
#elif defined(__ARM_NEON) && defined(__aarch64__)
  using four = float32x4_t;
  return reinterpret_cast<vec>(
      vfmaq_f32(reinterpret_cast<four>(c), reinterpret_cast<four>(a), reinterpret_cast<four>(b)));
#else
  return a * b + c;
#endif
}
/// NaN when either operand is.
inline vec max_or_nan(vec a, vec b) { return ((a > b) | (a != a)) ? a : b; }

/// 1/√x; 0 for 0, NaN where x is not finite: inverse_root of every lane.
inline vec inverse_root(vec x) {
#if defined(KVEVICT_WIDE_LANES)
  vec const root = _mm512_maskz_sqrt_ps(0xffff, x);
#elif defined(__AVX__)
  vec const root = _mm256_sqrt_ps(x);
#elif defined(__SSE2__)
  vec const root = _mm_sqrt_ps(x);
#else
  vec root;
  for (int i = 0; i < lanes; ++i) root[i] = __builtin_sqrtf(x[i]);
#endif
  return x == 0.0f ? vec{} : x - x + 1.0f / root;
}

/// `lanes` consecutive elements of storage type T as floats.
template <class T> vec load_as_float(std::byte const* p);
template <> inline vec load_as_float<float>(std::byte const* p) { return load(p); }
template <> inline vec load_as_float<bf16>(std::byte const* p) {
#if defined(KVEVICT_WIDE_LANES)  // of convertvector g++ 12 makes two halves and puts them together
  auto const x = _mm512_maskz_cvtepu16_epi32(0xffff, _mm256_loadu_si256(reinterpret_cast<__m256i const*>(p)));
  return reinterpret_cast<vec>(reinterpret_cast<wide_vec>(x) << 16);
#elif defined(__AVX2__)
  auto const x = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<__m128i const*>(p)));
  return reinterpret_cast<vec>(reinterpret_cast<wide_vec>(x) << 16);
#else
  half_vec v;
  std::memcpy(&v, p, sizeof v);
  return reinterpret_cast<vec>(__builtin_convertvector(v, wide_vec) << 16);
#endif
}
template <> inline vec load_as_float<f16>(std::byte const* p) {
#if defined(KVEVICT_WIDE_LANES)
  return _mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<__m256i const*>(p)));
#elif defined(__F16C__)
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<__m128i const*>(p)));
#elif defined(__aarch64__)
  __fp16 __attribute__((vector_size(lanes * 2))) v;
  std::memcpy(&v, p, sizeof v);
  return __builtin_convertvector(v, vec);
#else
  float out[lanes];
  for (int i = 0; i < lanes; ++i) {
    f16 x;
    std::memcpy(&x, p + i * 2, 2);
    out[i] = to_float(x);
  }
  return load(out);
#endif
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
