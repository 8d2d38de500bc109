// SPDX-License-Identifier: Apache-2.0
// Causal attention over paged keys and values: blocks of queries against tiles of keys, softmax on the fly, never N x
// N.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#pragma GCC diagnostic push  // GCC 12 warns about its own AVX-512 header (bug 105593)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <Eigen/Core>
#pragma GCC diagnostic pop

#include "cache.hpp"

namespace llama {

inline constexpr int key_tile = 128;    // keys per step
inline constexpr int query_tile = 192;  // query rows per task
inline constexpr int few_rows = 8;      // up to so many, tiles are not worth a copy: a decode step

/// Which slots later tokens see under gates: keep probability above `threshold`, the first `sinks` tokens, and each
/// token itself.
struct visibility {
  float threshold = 0.5f;
  int sinks = 0;
};

/// One task: `count` tokens of one sequence, all G query heads of one KV head.
struct attention_task {
  head_table const* table;
  float const* queries;               // (count,Hq,D) at this group's first head, rotated
  float* out;                         // (count,Hq,D) likewise
  float* lse;                         // (count,Hq) natural log
  int count, visible;                 // the last token sees `visible` slots, the one before it one less, and so on
  visibility const* flags = nullptr;  // without flags all of them
};

/// Buffers of one thread.
struct attention_scratch {
  attention_scratch(int D, int group)
      : tile(D, key_tile),
        queries(D, std::max(query_tile, group)),
        sums(D, queries.cols()),
        weights(key_tile, queries.cols()),
        peak(queries.cols()),
        total(queries.cols()) {}

  std::array<float const*, key_tile> at{};  // where a tile's keys or values lie
  Eigen::MatrixXf tile, queries, sums;      // (key_tile,D) (rows,D) (rows,D)
  Eigen::MatrixXf weights;                  // (rows,key_tile)
  Eigen::ArrayXf peak, total;               // (rows) running maximum and sum
  Eigen::Array<float, key_tile, 1> hidden;  // -inf where a flag hides a tile's slot, else 0
};

using vector_map = Eigen::Map<Eigen::VectorXf const>;

/// Finds slots [start, start+n) of a component; for many query rows they are brought together.
inline void locate(float const* component, kv_pool const& pool, head_table const& t, int start, int n, bool together,
                   attention_scratch& s) {
  int const P = pool.page_size(), D = pool.head_dim();
  for (int i = 0; i < n; ++i) s.at[i] = component + t.row(start + i, P) * D;
  for (int i = 0; together && i < n; ++i) std::copy_n(s.at[i], D, s.tile.col(i).data());
}

/// weights = q k, for every located key.
inline void add_keys(attention_scratch& s, int rows, int n) {
  if (rows > few_rows)
    s.weights.topLeftCorner(n, rows).noalias() = s.tile.leftCols(n).transpose() * s.queries.leftCols(rows);
  else
    for (int i = 0; i < n; ++i)
      for (int r = 0; r < rows; ++r) s.weights(i, r) = s.queries.col(r).dot(vector_map(s.at[i], s.queries.rows()));
}

/// sums += weights v, for every located value; a few rows take four values at a time.
inline void add_values(attention_scratch& s, int rows, int n) {
  auto const part = [&](int i, int r) { return s.weights(i, r) * vector_map(s.at[i], s.sums.rows()); };
  if (rows > few_rows)
    s.sums.leftCols(rows).noalias() += s.tile.leftCols(n) * s.weights.topLeftCorner(n, rows);
  else
    for (int i = 0; i < n; i += 4)
      for (int r = 0; r < rows; ++r)
        if (i + 4 <= n)
          s.sums.col(r) += part(i, r) + part(i + 1, r) + part(i + 2, r) + part(i + 3, r);
        else
          for (int j = i; j < n; ++j) s.sums.col(r) += part(j, r);
}

/// What the flags say of slots [start, start+n).
inline void read_flags(attention_task const& task, kv_pool const& pool, int start, int n, attention_scratch& s) {
  for (int i = 0; i < n; ++i) {
    auto const row = task.table->row(start + i, pool.page_size());
    bool const seen = pool.keep()[row] > task.flags->threshold || pool.positions()[row] < task.flags->sinks;
    s.hidden[i] = seen ? 0.0f : -std::numeric_limits<float>::infinity();
  }
}

/// Folds a tile's logits into row r: weights relative to the new maximum, earlier sums rescaled. Its own token is slot
/// `seen` - 1.
inline void fold(attention_scratch& s, int r, int n, int visible, bool flagged) {
  int const seen = std::clamp(visible, 0, n);
  auto row = s.weights.col(r).head(n).array();
  row.tail(n - seen).setZero();
  if (seen == 0) return;
  if (flagged) row.head(visible > n ? n : seen - 1) += s.hidden.head(visible > n ? n : seen - 1);
  float const peak = std::max(s.peak[r], row.head(seen).maxCoeff());
  if (peak == -std::numeric_limits<float>::infinity()) return row.setZero(), void();  // every slot so far is hidden
  float const shrink = std::exp(s.peak[r] - peak);
  row.head(seen) = (row.head(seen) - peak).exp();
  s.total[r] = s.total[r] * shrink + row.head(seen).sum();
  s.sums.col(r) *= shrink;
  s.peak[r] = peak;
}

/// Softmax(q k / sqrt D) v for one task; heads = Hq is the stride of a token.
inline void attend(kv_pool const& pool, attention_task const& task, int heads, int group, attention_scratch& s) {
  int const D = pool.head_dim(), n = task.count, rows = n * group;
  float const scale = 1.0f / std::sqrt(float(D));
  auto const offset = [&](int r) { return std::ptrdiff_t(r / group) * heads + r % group; };
  for (int r = 0; r < rows; ++r) s.queries.col(r) = scale * vector_map(task.queries + offset(r) * D, D);
  s.sums.leftCols(rows).setZero();
  s.total.setZero();
  s.peak.setConstant(-std::numeric_limits<float>::infinity());

  for (int start = 0; start < task.visible; start += key_tile) {
    int const width = std::min(key_tile, task.visible - start);
    locate(pool.keys(), pool, *task.table, start, width, rows > few_rows, s);
    add_keys(s, rows, width);
    if (task.flags) read_flags(task, pool, start, width, s);
    for (int r = 0; r < rows; ++r) fold(s, r, width, task.visible - (n - 1 - r / group) - start, task.flags != nullptr);
    locate(pool.values(), pool, *task.table, start, width, rows > few_rows, s);
    add_values(s, rows, width);
  }
  for (int r = 0; r < rows; ++r) {
    Eigen::Map<Eigen::VectorXf>(task.out + offset(r) * D, D) = s.sums.col(r) / s.total[r];
    task.lse[offset(r)] = s.peak[r] + std::log(s.total[r]);
  }
}

}  // namespace llama
