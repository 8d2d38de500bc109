// SPDX-License-Identifier: Apache-2.0
// Queries that an engine provides, with what its own softmax used.
#pragma once

#include <cstddef>
#include <cstdint>

#include <kvevict/core/dtype.hpp>
#include <kvevict/core/row_places.hpp>
#include <kvevict/core/visibility.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// Logarithm of an engine's LSE: FlashAttention and TensorRT-LLM natural, FlashInfer base 2.
enum class log_base : std::uint8_t { e, two };

/// What a row's weights add up to over the tokens of the cache that it sees: one; or less, where the engine's softmax
/// also went over others: tokens of other shards, tokens that were evicted since, a learned sink.
enum class row_sum : std::uint8_t { one, at_most_one };

/// Rotated queries of some tokens of each sequence: packed, (T,Hq,D) or (Hq,T,D), each sequence owning the rows
/// [row_begin[b], row_begin[b+1]); or each where it lies, in padded batches (B,T,Hq,D) and (B,Hq,T,D), too, see
/// row_places. Of a stack in one tensor, `layer_stride` from a layer's rows to the next, or in a tensor of each layer.
///
///   z(t,hq,j) = softcap( scale · q(t,hq)·k(hq/G, j) ),  softcap(x) = c·tanh(x/c) or x;   weight = exp(z − lse)
///
/// Strides count elements. With `lse` a weight follows from its logit alone; without it kernels normalise rows first.
struct query_rows {
  void const* data = nullptr;  // (T, Hq, D)
  dtype type = dtype::f32;
  std::int64_t token_stride = 0, head_stride = 0;
  std::int32_t heads = 0, head_dim = 0;     // Hq, D
  std::int32_t const* row_begin = nullptr;  // (B + 1), or (B) with row_count
  std::int32_t const* positions = nullptr;  // (T) logical positions; null: row i of n is token N − n + i
  float scale = 0;                          // 0: 1/√D
  float softcap = 0;                        // 0: none
  float const* lse = nullptr;               // (T, Hq), or null
  std::int64_t lse_token_stride = 0, lse_head_stride = 0;
  log_base base = log_base::e;
  row_sum sum = row_sum::one;  // of weights by that LSE
  visibility sees{};
  float const* sink_logits = nullptr;  // (Hq) a learned logit of each query head in every row's softmax, or null
  std::int32_t most_rows = 0;          // of a sequence, or more; only a device context reads it, and needs it

  std::int32_t const* row_count = nullptr;  // (B), or null
  // elements from a sequence's rows to the next one's, of queries, LSE and positions; with row_count
  std::int64_t seq_stride = 0, lse_seq_stride = 0, position_stride = 0;
  std::int32_t sequences = 0;  // S: row_begin, row_count and positions are those of a layer, the same in all of a stack
  std::int64_t layer_stride = 0, lse_layer_stride = 0;  // elements from a layer's rows to the next one's; with S
  void const* const* layers = nullptr;                  // (L) in place of `data`: each layer's
  float const* const* lse_layers = nullptr;             // (L) in place of `lse`
  std::int32_t layer_alignment = 1;                     // bytes, of each of `layers`; only a device reads it

  constexpr row_places places() const { return {row_begin, row_count, sequences, positions, position_stride}; }
  constexpr bool has_data() const { return data != nullptr || layers != nullptr; }
  constexpr bool has_lse() const { return lse != nullptr || lse_layers != nullptr; }
  /// What rows of sequence b are counted from.
  KVEVICT_HOST_DEVICE std::byte const* data_of(std::int32_t b) const {
    row_places const in = places();
    auto const* const from = static_cast<std::byte const*>(layers == nullptr ? data : layers[in.layer_of(b)]);
    return from + in.offset(b, seq_stride, layers == nullptr ? layer_stride : 0) * size_of(type);
  }
  constexpr float const* lse_of(std::int32_t b) const {
    row_places const in = places();
    float const* const from = lse_layers == nullptr ? lse : lse_layers[in.layer_of(b)];
    return from == nullptr ? nullptr
                           : from + in.offset(b, lse_seq_stride, lse_layers == nullptr ? lse_layer_stride : 0);
  }
  constexpr std::int32_t const* positions_of(std::int32_t b) const { return places().positions_of(b); }
  /// Sequence b's alone, whose rows are counted from `data`, `lse` and `positions`.
  query_rows of(std::int32_t b) const {
    query_rows out = *this;
    out.data = data_of(b), out.lse = lse_of(b), out.positions = positions_of(b);
    return out;
  }
  constexpr std::int32_t rows(std::int32_t b) const { return places().rows(b); }
  constexpr std::int64_t first_row(std::int32_t b) const { return places().first_row(b); }
  float logit_scale() const { return scale != 0 ? scale : 1.0f / __builtin_sqrtf(static_cast<float>(head_dim)); }
};

}  // namespace KVEVICT_ABI
}  // namespace kvevict
