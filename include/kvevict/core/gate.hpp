// SPDX-License-Identifier: Apache-2.0
// A gate of Attention-Gate and what it reads. Everything belongs to the caller.
#pragma once

#include <cstdint>

#include <kvevict/core/aligned.hpp>
#include <kvevict/core/contract.hpp>
#include <kvevict/core/dtype.hpp>
#include <kvevict/core/row_places.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// The weights of one layer's gate: matrices row-major, a row per output, as PyTorch's Linear keeps them.
///
///   Q', K', V' = X Wqᵀ, X Wkᵀ, X Wvᵀ;   C = concat_h softmax(Q'_h K'_hᵀ / √dg) V'_h;   p = sigmoid(C Woᵀ + b)
///
/// `flags` is H, or Hq = G·H when the gate was trained per query head: a KV head then takes the largest p of its group,
/// which is OR.
struct gate_weights {
  void const *q = nullptr, *k = nullptr, *v = nullptr;  // (Hg·dg, E)
  void const* o = nullptr;                              // (flags, Hg·dg)
  void const* bias = nullptr;                           // (flags)
  dtype type = dtype::f32;                              // of all five
  std::int32_t heads = 0, head_dim = 0;                 // Hg, dg
  std::int32_t features = 0;                            // E
  std::int32_t flags = 0;                               // H or Hq

  constexpr std::int32_t width() const { return heads * head_dim; }
};

/// The gate's own keys and values of all tokens so far, evicted ones too: row t of sequence b is K'_t and V'_t side by
/// side, at rows[b·seq_stride + t·2·Hg·dg]. A call writes the rows of its new tokens behind the `tokens[b]` that are
/// there, of sequences that are kept whole (budget::whole) or left out (outcomes) none; the caller then advances
/// `tokens`. Needed for chunked prefill and decoding; a complete prompt does without.
struct gate_memory {
  float* rows = nullptr;                 // (B, capacity, 2·Hg·dg)
  std::int64_t seq_stride = 0;           // floats
  std::int32_t capacity = 0;             // tokens a sequence
  std::int32_t const* tokens = nullptr;  // (B)
};

/// Hidden states of the newest tokens: the input of the layer's q/k/v projections, (T,E) or (B,T,E), placed like
/// `query_rows`.
struct feature_rows {
  void const* data = nullptr;  // (T, E)
  dtype type = dtype::f32;
  std::int64_t token_stride = 0;            // elements
  std::int32_t width = 0;                   // E
  std::int32_t const* row_begin = nullptr;  // (B + 1), or (B) with row_count
  gate_memory memory{};
  std::int32_t most_rows = 0;  // of a sequence, or more; only a device context reads it, and needs it

  std::int32_t const* row_count = nullptr;  // (B), or null
  std::int64_t seq_stride = 0;              // elements from a sequence's rows to the next one's
  // (B) not 0: of that sequence no row is read, nor its memory written; plan and observe put budget::whole here
  std::uint8_t const* whole = nullptr;

  constexpr row_places places() const { return {row_begin, row_count}; }
  constexpr bool has_data() const { return data != nullptr; }
  /// Where sequence b's rows begin among those of all, side by side: packed as they are, else with room for `most_rows`
  /// of each. Of a device, which cannot add counts up.
  constexpr std::int64_t room_before(std::int32_t b) const {
    return row_count == nullptr ? row_begin[b] - row_begin[0] : std::int64_t{b} * most_rows;
  }
  /// The sequence's i-th hidden state, in elements from `data`.
  constexpr std::int64_t at(std::int32_t b, std::int64_t i) const {
    return b * seq_stride + (first_row(b) + i) * token_stride;
  }
  constexpr std::int32_t rows(std::int32_t b) const { return whole != nullptr && whole[b] != 0 ? 0 : places().rows(b); }
  constexpr std::int64_t first_row(std::int32_t b) const { return places().first_row(b); }
};

/// The hidden state of row `last`, the largest that may be read, lies a stride of its own behind the one before it.
inline void expect_feature_stride(feature_rows const& in, std::int64_t last) {
  KVEVICT_EXPECTS(last <= 0 || (in.token_stride >= in.width && in.token_stride <= farthest_element / last),
                  "gate: a token_stride of ", in.token_stride, " elements for rows of ", in.width,
                  "; give the distance from one token's hidden state to the next");
}

/// What needs no look at the arrays, and every context checks.
inline void expect_gate(gate_weights const& w, feature_rows const& in, std::int32_t sequences, std::int32_t heads) {
  KVEVICT_EXPECTS(
      w.q != nullptr && w.k != nullptr && w.v != nullptr && w.o != nullptr && w.bias != nullptr && is_floating(w.type),
      "gate: a weight is missing, or their type ", name_of(w.type),
      " is not f32, f16 or bf16; give q, k, v, o and bias");
  KVEVICT_EXPECTS(w.heads > 0 && w.head_dim > 0 && w.features > 0 && std::int64_t{w.heads} * w.head_dim <= 4096 &&
                      w.features <= 1 << 20,
                  "gate: ", w.heads, " gate heads of width ", w.head_dim, " on ", w.features,
                  " features; give sizes above 0, at most 4096 "
                  "in all heads");
  KVEVICT_EXPECTS(heads > 0 && w.flags > 0 && w.flags % heads == 0, "gate: ", w.flags, " flags for ", heads,
                  " KV heads; a gate has one per KV head, or one per query head");
  KVEVICT_EXPECTS(in.width == w.features && is_floating(in.type), "gate: hidden states of ", in.width,
                  " elements of type ", name_of(in.type), " for weights of ", w.features,
                  "; provide the input of this layer's q/k/v projections");
  for (void const* const weights : {w.q, w.k, w.v, w.o, w.bias}) expect_aligned("gate", "weights", weights, w.type);
  expect_aligned("gate", "hidden states", in.data, in.type);
  expect_aligned("gate", "rows of the memory", in.memory.rows, dtype::f32);
  KVEVICT_EXPECTS(in.row_begin != nullptr || in.row_count != nullptr,
                  "gate: hidden states without data or row_begin; provide (T,E) rows with their (B+1) offsets");
  gate_memory const& m = in.memory;
  KVEVICT_EXPECTS(m.rows == nullptr || sequences <= 1 ||
                      (m.seq_stride >= std::int64_t{m.capacity} * 2 * w.width() && m.seq_stride >= 0 &&
                       m.seq_stride <= farthest_element / sequences),
                  "gate: a seq_stride of ", m.seq_stride, " floats for ", m.capacity, " rows of ", 2 * w.width(),
                  "; give gate_memory::seq_stride ≥ capacity·2·Hg·dg");
  KVEVICT_EXPECTS(m.rows == nullptr || m.tokens != nullptr,
                  "gate: a memory without its token counts; give gate_memory::tokens (B)");
}

}  // namespace KVEVICT_ABI
}  // namespace kvevict
