// SPDX-License-Identifier: Apache-2.0
// Atomic operations on shared or global memory. nvcc's half of the layer (see shim.hpp): not run on a GPU yet.
#pragma once

#include <cstdint>
#include <type_traits>

#include <kvevict/cuda/shim/thread.hpp>

#if defined(__CUDACC__)

namespace kvevict::inline KVEVICT_ABI::cuda {

template <class T> inline constexpr bool is_word = std::is_same_v<T, std::uint32_t> || std::is_same_v<T, std::int32_t>;

/// All return what was there before. Relaxed: they order no other access, so data goes from block to block in another
/// launch.
template <class T> __device__ __forceinline__ T atomic_add(thread&, T* p, std::type_identity_t<T> x) {
  static_assert(is_word<T> || std::is_same_v<T, std::uint64_t>, "atomic_add: int32, uint32 or uint64");
  if constexpr (is_word<T>)
    return atomicAdd(p, x);
  else
    return atomicAdd(reinterpret_cast<unsigned long long*>(p), static_cast<unsigned long long>(x));
}
template <class T> __device__ __forceinline__ T atomic_max(thread&, T* p, std::type_identity_t<T> x) {
  static_assert(is_word<T> || std::is_same_v<T, std::uint64_t>, "atomic_max: int32, uint32 or uint64");
  if constexpr (is_word<T>)
    return atomicMax(p, x);
  else
    return atomicMax(reinterpret_cast<unsigned long long*>(p), static_cast<unsigned long long>(x));
}
template <class T> __device__ __forceinline__ T atomic_or(thread&, T* p, std::type_identity_t<T> x) {
  static_assert(is_word<T> || std::is_same_v<T, std::uint64_t>, "atomic_or: int32, uint32 or uint64");
  if constexpr (is_word<T>)
    return atomicOr(p, x);
  else
    return atomicOr(reinterpret_cast<unsigned long long*>(p), static_cast<unsigned long long>(x));
}
/// Writes `x` where `expected` was.
template <class T>
__device__ __forceinline__ T atomic_compare_exchange(thread&, T* p, std::type_identity_t<T> expected,
                                                     std::type_identity_t<T> x) {
  static_assert(is_word<T>, "atomic_compare_exchange: int32 or uint32");
  return atomicCAS(p, expected, x);
}
/// What is there now, which others may be changing.
template <class T> __device__ __forceinline__ T atomic_load(thread&, T const* p) {
  static_assert(is_word<T> || std::is_same_v<T, std::uint64_t>, "atomic_load: int32, uint32 or uint64");
  return *static_cast<T const volatile*>(p);
}

/// f() of one thread after the other among those that share `turn`, a word that is 0 before and behind; each sees what
/// those before it wrote. For what is rare: the others wait busily. Of a warp one lane at a time asks for the word: one
/// that has it must not wait for lanes of its warp that ask.
template <class F> __device__ __forceinline__ void one_by_one(thread& t, std::uint32_t* turn, F f) {
  unsigned const together = __match_any_sync(__activemask(), reinterpret_cast<unsigned long long>(turn));
  for (unsigned left = together; left != 0; left &= left - 1) {
    if (static_cast<int>(t.lane()) == __ffs(static_cast<int>(left)) - 1) {
      while (atomicCAS(turn, 0u, 1u) != 0) __nanosleep(64);
      __threadfence();
      f();
      __threadfence();
      atomicExch(turn, 0u);
    }
    __syncwarp(together);
  }
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda

#endif
