// SPDX-License-Identifier: Apache-2.0
// Lanes of vectors that change places: transposition, and reduction to one number.
#pragma once

#include <utility>

#include <kvevict/kernels/simd.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {

/// Lane i of the first, and of the second, half of a butterfly step that swaps blocks of S lanes between two vectors.
constexpr int low_lane(int i, int s) { return (i & s) == 0 ? i : lanes + i - s; }
constexpr int high_lane(int i, int s) { return (i & s) == 0 ? i + s : lanes + i; }

/// Lanes of two vectors, those of the second counted behind those of the first.
template <int... Lane> vec shuffled(vec a, vec b) {
#if defined(__CUDACC__)  // nvcc's front end takes the builtin with dependent lanes for a vector of one float
  constexpr int from[] = {Lane...};
  vec out = {};
  for (int i = 0; i < lanes; ++i) out[i] = from[i] < lanes ? a[from[i]] : b[from[i] - lanes];
  return out;
#else
  return __builtin_shufflevector(a, b, Lane...);
#endif
}

template <int S, int... I> void swap_blocks(vec& a, vec& b, std::integer_sequence<int, I...>) {
  vec const low = shuffled<low_lane(I, S)...>(a, b);
  b = shuffled<high_lane(I, S)...>(a, b);
  a = low;
}

/// x[i][j] ↔ x[j][i].
template <int S = lanes / 2> [[gnu::always_inline]] inline void transpose(vec (&x)[lanes]) {
  unroll<lanes>([&](auto i) {
    if constexpr ((i & S) == 0) swap_blocks<S>(x[i], x[i + S], std::make_integer_sequence<int, lanes>{});
  });
  if constexpr (S > 1) transpose<S / 2>(x);
}

template <int S, int... I> vec rotated(vec x, std::integer_sequence<int, I...>) { return shuffled<(I ^ S)...>(x, x); }

/// Folds every one of N vectors to one number; that of x[i] comes to lane i · lanes/N (and its neighbours up to the
/// next).
template <int N, int S = lanes / 2, class F> [[gnu::always_inline]] inline vec reduce(vec* x, F f) {
  if constexpr (N > 1)
    for (int i = 0; i < N / 2; ++i) {
      swap_blocks<S>(x[i], x[i + N / 2], std::make_integer_sequence<int, lanes>{});
      x[i] = f(x[i], x[i + N / 2]);
    }
  else
    x[0] = f(x[0], rotated<S>(x[0], std::make_integer_sequence<int, lanes>{}));
  if constexpr (S > 1)
    return reduce<(N > 1 ? N / 2 : 1), S / 2>(x, f);
  else
    return x[0];
}
struct add {
  vec operator()(vec a, vec b) const { return a + b; }
};
struct larger {
  vec operator()(vec a, vec b) const { return max(a, b); }
};

inline float sum_of(vec v) { return reduce<1>(&v, add{})[0]; }
inline float max_of(vec v) { return reduce<1>(&v, larger{})[0]; }

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
