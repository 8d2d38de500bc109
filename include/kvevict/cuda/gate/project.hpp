// SPDX-License-Identifier: Apache-2.0
// A gate's call on a device, and its first step: queries, keys and values of the new tokens.
#pragma once

#include <cmath>

#include <kvevict/core/gate.hpp>
#include <kvevict/cuda/context/float_at.hpp>
#include <kvevict/cuda/evidence/rows.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

struct gate_call {
  watched watch;
  gate_weights w;
  feature_rows in;
  gate_mask sees;
  std::int32_t sequences, heads;
  float* queries;  // (B·most_rows, A), then C
  float* own;      // K' and V' (B·most_rows, 2·A) where the caller keeps no memory
  float* p;        // (T,H), of padded rows (B·most_rows, H)
  std::uint32_t tiles = 0;
  std::uint32_t splits = 1;  // of the memory's rows, each another block's
  float* parts = nullptr;    // (B, splits, most_rows, Hg, dg + 2) of those

  KVEVICT_DEVICE std::int32_t earlier(std::int32_t b) const {
    return in.memory.rows == nullptr ? 0 : in.memory.tokens[b];
  }
  KVEVICT_DEVICE std::int64_t first_row(std::int32_t b) const { return in.room_before(b); }
  KVEVICT_DEVICE float* own_values(std::int32_t b, std::int32_t i, std::int32_t h) const {
    return queries + (first_row(b) + i) * w.width() + h * w.head_dim;
  }
  KVEVICT_DEVICE float* part(std::int32_t b, std::int64_t s, std::int32_t i, std::int32_t h) const {
    return parts + (((b * std::int64_t{splits} + s) * in.most_rows + i) * w.heads + h) * (w.head_dim + 2);
  }
  /// Rows of the memory that new token i sees.
  KVEVICT_DEVICE std::int64_t seen(std::int32_t b, std::int32_t i) const {
    return std::int64_t{earlier(b)} + (sees == gate_mask::causal ? std::min(i + 1, in.rows(b)) : in.rows(b));
  }
  KVEVICT_DEVICE float* memory(std::int32_t b) const {
    return in.memory.rows != nullptr ? in.memory.rows + b * in.memory.seq_stride : own + first_row(b) * 2 * w.width();
  }
};

/// The memory has room; one thread per sequence.
///
/// Shapes   token counts (B) → nothing.
struct check_gate_kernel {
  static constexpr int max_threads = 128;
  gate_call c;

  KVEVICT_DEVICE void operator()(thread& t) const {
    std::int64_t const i = std::int64_t{t.block().x} * t.block_size().x + t.linear_index();
    if (i >= c.sequences || c.watch.stopped(t)) return;
    auto const b = static_cast<std::int32_t>(i);
    std::int32_t const rows = c.in.rows(b), earlier = c.earlier(b);
    if (rows < 0) c.watch.refuse(t, fault::row_begin, b, 0);
    if (rows > c.in.most_rows) c.watch.refuse(t, fault::most_rows, b, 0, rows, c.in.most_rows);
    if (rows > 0 && c.in.data == nullptr) c.watch.refuse(t, fault::no_hidden_states, b, 0);
    if (c.in.memory.rows == nullptr) return;
    if (earlier < 0 || std::int64_t{earlier} + rows > c.in.memory.capacity)
      c.watch.refuse(t, fault::gate_memory_full, b, 0, earlier, c.in.memory.capacity, 0, rows);
    if (c.sees == gate_mask::bidirectional && rows > 0 && earlier != 0)
      c.watch.refuse(t, fault::gate_continues, b, 0, earlier);
  }
};

/// 64 tokens by 96 outputs, each a chain of additions over the features. Q' in base 2 and scaled to scratch, K' and V'
/// to the memory.
///
/// Shapes   features (T,E), weights (3·A,E) → queries (B·most_rows, A), memory rows (·, 2·A).
struct project_kernel {
  static constexpr int max_threads = 256;
  static constexpr std::int32_t tokens = 64, outputs = 96, depth = 32, pitch = depth + 1, down = tokens / 8,
                                across = outputs / 32;
  gate_call c;
  float scale;
  std::uint32_t groups;  // of outputs

  KVEVICT_DEVICE void operator()(thread& t) const {
    if (c.watch.stopped(t)) return;
    KVEVICT_SHARED(t, float, x, tokens* pitch);
    KVEVICT_SHARED(t, float, m, outputs* pitch);
    auto const b = static_cast<std::int32_t>(t.block().x / groups / c.tiles);
    auto const first = static_cast<std::int32_t>(t.block().x / groups % c.tiles) * tokens,
               output = static_cast<std::int32_t>(t.block().x % groups) * outputs;
    if (first >= c.in.rows(b)) return;
    auto const column = static_cast<std::int32_t>(t.linear_index() % 32),
               line = static_cast<std::int32_t>(t.linear_index() / 32);
    float sums[down][across] = {};
    for (std::int32_t e = 0; e < c.w.features; e += depth) {
      for (std::int32_t k = line; k < tokens; k += 8) x[k * pitch + column] = feature(b, first + k, e + column);
      for (std::int32_t k = line; k < outputs; k += 8) m[k * pitch + column] = weight(output + k, e + column);
      t.sync_block();
      for (std::int32_t d = 0; d < depth; ++d) {
        float of[across];
        KVEVICT_UNROLL
        for (std::int32_t j = 0; j < across; ++j) of[j] = m[(column + 32 * j) * pitch + d];
        KVEVICT_UNROLL
        for (std::int32_t k = 0; k < down; ++k) KVEVICT_UNROLL
        for (std::int32_t j = 0; j < across; ++j) sums[k][j] = fma(x[(line + 8 * k) * pitch + d], of[j], sums[k][j]);
      }
      t.sync_block();
    }
    KVEVICT_UNROLL
    for (std::int32_t k = 0; k < down; ++k) KVEVICT_UNROLL
    for (std::int32_t j = 0; j < across; ++j) put(b, first + line + 8 * k, output + column + 32 * j, sums[k][j]);
  }

 private:
  KVEVICT_DEVICE float feature(std::int32_t b, std::int32_t i, std::int32_t e) const {
    if (i >= c.in.rows(b) || e >= c.w.features) return 0;
    return float_at(c.in.type, c.in.data, c.in.at(b, i) + e);
  }
  KVEVICT_DEVICE float weight(std::int32_t o, std::int32_t e) const {
    std::int32_t const A = c.w.width();
    if (o >= 3 * A || e >= c.w.features) return 0;
    return float_at(c.w.type, o < A ? c.w.q : o < 2 * A ? c.w.k : c.w.v, std::int64_t{o % A} * c.w.features + e);
  }
  KVEVICT_DEVICE void put(std::int32_t b, std::int32_t i, std::int32_t o, float y) const {
    std::int64_t const A = c.w.width();
    if (i >= c.in.rows(b) || o >= 3 * A) return;
    if (o < A)
      c.queries[(c.first_row(b) + i) * A + o] = multiply(y, scale);
    else
      c.memory(b)[(std::int64_t{c.earlier(b)} + i) * 2 * A + o - A] = y;
  }
};

inline void project(device& ctx, gate_call c) {
  c.tiles = blocks_for(c.in.most_rows, project_kernel::tokens);
  std::uint32_t const groups = blocks_for(3 * std::int64_t{c.w.width()}, project_kernel::outputs);
  float const scale = 1.44269504088896341f / std::sqrt(static_cast<float>(c.w.head_dim));
  ctx.launch({static_cast<std::uint32_t>(c.sequences) * c.tiles * groups}, {256}, 0, project_kernel{c, scale, groups});
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda
