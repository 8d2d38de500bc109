// SPDX-License-Identifier: Apache-2.0
// Queries that an engine provides, with what its own softmax used.
#pragma once

#include <cstdint>

#include <kvevict/core/dtype.hpp>
#include <kvevict/core/row_places.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// Logarithm of an engine's LSE: FlashAttention and TensorRT-LLM natural, FlashInfer base 2.
enum class log_base : std::uint8_t { e, two };

/// Rotated queries of some tokens of each sequence, ragged: sequence b owns rows [row_begin[b], row_begin[b+1]).
///
///   z(t,hq,j) = softcap( scale · q(t,hq)·k(hq/G, j) ),  softcap(x) = c·tanh(x/c) or x;   weight = exp(z − lse)
///
/// Strides count elements. Read softmax weights exist only with `lse`; kernels without it normalise for themselves.
struct query_rows {
  void const* data = nullptr;  // (T, Hq, D)
  dtype type = dtype::f32;
  std::int64_t token_stride = 0, head_stride = 0;
  std::int32_t heads = 0, head_dim = 0;     // Hq, D
  std::int32_t const* row_begin = nullptr;  // (B + 1)
  std::int32_t const* positions = nullptr;  // (T) logical positions; null: row i of n is token N − n + i
  float scale = 0;                          // 0: 1/√D
  float softcap = 0;                        // 0: none
  float const* lse = nullptr;               // (T, Hq), or null
  std::int64_t lse_token_stride = 0, lse_head_stride = 0;
  log_base base = log_base::e;
  std::int32_t most_rows = 0;  // of a sequence, or more; only a device context reads it, and needs it

  constexpr row_places places() const { return {row_begin, positions}; }
  constexpr std::int32_t rows(std::int32_t b) const { return places().rows(b); }
  constexpr std::int64_t first_row(std::int32_t b) const { return places().first_row(b); }
  float logit_scale() const { return scale != 0 ? scale : 1.0f / __builtin_sqrtf(static_cast<float>(head_dim)); }
};

}  // namespace KVEVICT_ABI
}  // namespace kvevict
