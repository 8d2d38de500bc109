// SPDX-License-Identifier: Apache-2.0
// Powers of two and tanh of vectors.
#pragma once

#include <kvevict/kernels/simd.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {

/// The integer n nearest to x, |n| ≤ 126 (ties to even), n as floats, and p · 2^n. It is a conversion that rounds: what
/// adds 1.5·2^23 and takes it off again is folded to x under -ffast-math.
#if defined(KVEVICT_WIDE_LANES)
inline vec to_integer(vec x) { return _mm512_maskz_roundscale_ps(0xffff, x, _MM_FROUND_TO_NEAREST_INT); }
inline vec as_floats(vec n) { return n; }
inline vec times_power(vec p, vec n) { return _mm512_maskz_scalef_ps(0xffff, p, n); }
#else
inline ivec to_integer(vec x) {
#if defined(__AVX__)
  return reinterpret_cast<ivec>(_mm256_cvtps_epi32(x));
#elif defined(__SSE2__)
  return reinterpret_cast<ivec>(_mm_cvtps_epi32(x));
#elif defined(__aarch64__)
  return reinterpret_cast<ivec>(vcvtnq_s32_f32(reinterpret_cast<float32x4_t>(x)));
#else
  return __builtin_convertvector(x + (x < 0.0f ? splat(-0.5f) : splat(0.5f)), ivec);  // ties away from zero
#endif
}
inline vec as_floats(ivec n) { return __builtin_convertvector(n, vec); }
inline vec times_power(vec p, ivec n) { return p * float_of((n + 127) << 23); }
#endif

/// 2^x of N vectors, within 2 ulp; 0 below −126.5 (also for −∞), capped at 2^126, NaN for NaN. Step by step for all of
/// them: one vector's steps wait for each other.
template <int N> [[gnu::always_inline]] inline void exp2(vec (&x)[N]) {
  decltype(to_integer(vec{})) n[N];
  vec f[N], p[N];
  auto const each = [](auto step) __attribute__((always_inline)) { unroll<N>(step); };
  each([&](auto i) { f[i] = min(splat(126.0f), max(splat(-127.0f), x[i])); });
  each([&](auto i) { n[i] = to_integer(f[i]); });
  each([&](auto i) { f[i] -= as_floats(n[i]); });  // exact, in [−1/2, 1/2]
  each([&](auto i) { p[i] = f[i] * 1.54531629e-4f + 1.33908634e-3f; });
  each([&](auto i) { p[i] = p[i] * f[i] + 9.61808256e-3f; });
  each([&](auto i) { p[i] = p[i] * f[i] + 5.55035711e-2f; });
  each([&](auto i) { p[i] = p[i] * f[i] + 2.40226508e-1f; });
  each([&](auto i) { p[i] = p[i] * f[i] + 6.93147188e-1f; });
  each([&](auto i) { p[i] = p[i] * f[i] + 1.0f; });
#if defined(KVEVICT_WIDE_LANES)
  each([&](auto i) { x[i] = x[i] < -126.5f ? vec{} : times_power(p[i], n[i]); });
#else
  each([&](auto i) { x[i] = times_power(p[i], n[i]); });  // 2^−127 is the float 0
#endif
}
inline vec exp2(vec x) {
  vec one[] = {x};
  exp2(one);
  return one[0];
}

/// tanh within 3e-7 of itself: below 1/2 by a polynomial, as the quotient's small results would be rounded like 1. A
/// softcap multiplies what is lost.
inline vec tanh(vec x) {
  vec const z = x * x,
            small = x + x * z * (((1.725699e-2f * z - 5.305295e-2f) * z + 1.3325988e-1f) * z - 3.3333150e-1f);
  return z < 0.25f ? small : 1.0f - 2.0f / (exp2(x * 2.885390081777927f) + 1.0f);
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
