// SPDX-License-Identifier: Apache-2.0
// Shuffles and votes. nvcc's half of the layer (see shim.hpp): not run on a GPU yet.
#pragma once

#include <type_traits>

#include <kvevict/cuda/shim/thread.hpp>

#if defined(__CUDACC__)

namespace kvevict::inline KVEVICT_ABI::cuda {

/// Values of 4 or 8 bytes that travel between the lanes of a warp. Every lane of `mask` makes the call with the same
/// mask; reading a lane outside it is an error. No shuffle or vote orders memory: that is `sync_warp`.
template <class T> inline constexpr bool travels = std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8);

template <class T>
__device__ __forceinline__ T shuffle(thread&, T x, std::uint32_t lane, std::uint32_t mask = full_warp) {
  static_assert(travels<T>, "shuffle: give an arithmetic type of 4 or 8 bytes");
  return __shfl_sync(mask, x, static_cast<int>(lane));
}
/// From the lane `delta` below; the lowest `delta` lanes keep their own.
template <class T>
__device__ __forceinline__ T shuffle_up(thread&, T x, std::uint32_t delta, std::uint32_t mask = full_warp) {
  static_assert(travels<T>, "shuffle_up: give an arithmetic type of 4 or 8 bytes");
  return __shfl_up_sync(mask, x, delta);
}
/// From the lane whose number differs in `bits`.
template <class T>
__device__ __forceinline__ T shuffle_xor(thread&, T x, std::uint32_t bits, std::uint32_t mask = full_warp) {
  static_assert(travels<T>, "shuffle_xor: give an arithmetic type of 4 or 8 bytes");
  return __shfl_xor_sync(mask, x, static_cast<int>(bits));
}

/// Bit l is set where lane l of the mask says yes.
__device__ __forceinline__ std::uint32_t ballot(thread&, bool yes, std::uint32_t mask = full_warp) {
  return __ballot_sync(mask, yes);
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda

#endif
