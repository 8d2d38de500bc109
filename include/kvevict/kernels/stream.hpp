// SPDX-License-Identifier: Apache-2.0
// Copies of whole cache lines that go past the caches: what is written is not read before.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include <kvevict/core/abi.hpp>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {

inline constexpr std::int32_t line_bytes = 64;

#if defined(__SSE2__)
inline constexpr bool can_stream = true;
/// Whole lines to the start of one.
inline void stream(std::byte* to, std::byte const* from, std::int32_t bytes) {
  auto* out = reinterpret_cast<__m128i*>(to);
  auto const* in = reinterpret_cast<__m128i const*>(from);
  for (auto const* const end = in + bytes / 16; in != end; in += 4, out += 4) {
    __m128i const a = _mm_loadu_si128(in), b = _mm_loadu_si128(in + 1), c = _mm_loadu_si128(in + 2),
                  d = _mm_loadu_si128(in + 3);
    _mm_stream_si128(out, a), _mm_stream_si128(out + 1, b), _mm_stream_si128(out + 2, c), _mm_stream_si128(out + 3, d);
  }
}
/// Before other threads read what this one has streamed.
inline void end_stream() { _mm_sfence(); }
#else
inline constexpr bool can_stream = false;
inline void stream(std::byte* to, std::byte const* from, std::int32_t bytes) {
  std::memcpy(to, from, static_cast<std::size_t>(bytes));
}
inline void end_stream() {}
#endif

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
