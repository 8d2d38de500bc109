// SPDX-License-Identifier: Apache-2.0
// The gate's arithmetic. Lanes are tokens: each output of a token is one chain of additions over features, then over
// earlier tokens in order, so that no bit depends on chunks, batches or threads.
#pragma once

#include <algorithm>

#include <kvevict/kernels/kernel.hpp>
#include <kvevict/kernels/tile.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {
/// Rows that lie wherever they are, and those of a block, side by side in every column.
struct separate_rows {
  float const* at[row_block];
  [[gnu::always_inline]] float operator()(int r, std::int64_t d) const { return at[r][d]; }
};
struct packed_rows {
  float const* at;
  [[gnu::always_inline]] float operator()(int r, std::int64_t d) const { return at[d * row_block + r]; }
};

/// sums[r][v] += rows(r, d) · tile[d][v] for d < depth.
template <class Rows>
[[gnu::always_inline]] inline void add_products(Rows const& rows, std::int64_t depth, float const* tile,
                                                vec (&sums)[row_block][tile_vectors]) {
  vec sum[row_block][tile_vectors];  // local, so that it stays in registers
  unroll<row_block>([&](auto r) { unroll<tile_vectors>([&](auto v) { sum[r][v] = sums[r][v]; }); });
  for (std::int64_t d = 0; d < depth; ++d, tile += tile_tokens) {
    vec x[tile_vectors];
    unroll<tile_vectors>([&](auto v) { x[v] = in_register(load(tile + v * lanes)); });
    unroll<row_block>([&](auto r) {
      vec const s = splat(rows(r, d));
      unroll<tile_vectors>([&](auto v) { sum[r][v] = multiply_add(s, x[v], sum[r][v]); });
    });
  }
  unroll<row_block>([&](auto r) { unroll<tile_vectors>([&](auto v) { sums[r][v] = sum[r][v]; }); });
}

inline vec seen_by(ivec last, std::int32_t key, vec z) { return last < key ? splat(-__builtin_inff()) : z; }

/// −∞ where key j + r is behind what a lane sees: itself, token now + lane, or all `seen` tokens.
[[gnu::always_inline]] inline void hide(vec (&z)[row_block][tile_vectors], std::int64_t j, gate_mask sees,
                                        std::int64_t now, std::int64_t seen) {
  bool const causal = sees == gate_mask::causal;
  if (j + row_block <= (causal ? now + 1 : seen)) return;
  unroll<tile_vectors>([&](auto v) {
    // a choice between vectors stops nvcc 13.0
    ivec const last = count_from(causal ? now + v * lanes : seen - 1, causal ? 1 : 0);
    unroll<row_block>([&](auto r) { z[r][v] = seen_by(last, static_cast<std::int32_t>(j + r), z[r][v]); });
  });
}

/// K' and V' of the tokens that a tile sees, from one head's K' on: those in the memory, then those that are new.
struct gate_tokens {
  float const *memory, *fresh;  // (tokens, 2·Hg·dg)
  std::int64_t remembered;

  float const* row(std::int64_t j, std::int64_t A) const {
    return j < remembered ? memory + j * 2 * A : fresh + (j - remembered) * 2 * A;
  }
};

/// C of one gate head.  queries (dg, tile_tokens), tokens (seen, 2·Hg·dg) from this head's K' → values (dg,
/// tile_tokens)
inline void gate_attention(float const* queries, gate_tokens const& tokens, std::int64_t A, std::int64_t dg,
                           gate_mask sees, std::int64_t now, std::int64_t seen, float* values) {
  vec peak[tile_vectors], sum[tile_vectors] = {};
  for (vec& x : peak) x = splat(-1e30f);
  kvevict::fill_n(values, dg * tile_tokens, 0.0f);
  for (std::int64_t j = 0; j < seen; j += row_block) {
    separate_rows rows;  // K', and A floats on V'; behind the last token the last one again, with weight 0
    for (int r = 0; r < row_block; ++r) rows.at[r] = tokens.row(std::min(j + r, seen - 1), A);
    vec z[row_block][tile_vectors] = {}, shrink[tile_vectors];
    add_products(rows, dg, queries, z);
    hide(z, j, sees, now, seen);
    unroll<tile_vectors>([&](auto v) {
      vec top = peak[v];
      for (int r = 0; r < row_block; ++r) top = max(z[r][v], top);
      shrink[v] = exp2(peak[v] - top);
      peak[v] = top;
      sum[v] *= shrink[v];
      for (int r = 0; r < row_block; ++r) z[r][v] = exp2(z[r][v] - top), sum[v] += z[r][v];
    });
    for (std::int64_t d = 0; d < dg; ++d) {
      vec total[tile_vectors];
      float* const c = values + d * tile_tokens;
      unroll<tile_vectors>([&](auto v) { total[v] = load(c + v * lanes) * shrink[v]; });
      unroll<row_block>([&](auto r) {
        vec const x = splat(rows(r, A + d));
        unroll<tile_vectors>([&](auto v) { total[v] = multiply_add(x, z[r][v], total[v]); });
      });
      unroll<tile_vectors>([&](auto v) { store(c + v * lanes, total[v]); });
    }
  }
  for (std::int64_t d = 0; d < dg; ++d)
    for (int v = 0; v < tile_vectors; ++v)
      store(values + d * tile_tokens + v * lanes, load(values + d * tile_tokens + v * lanes) / sum[v]);
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
