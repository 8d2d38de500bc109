// Causal attention over paged keys and values: blocks of queries against tiles of keys, softmax on the fly, never N x N.
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <limits>

#include "cache.hpp"

namespace llama {

inline constexpr int key_tile = 128;     // keys per step
inline constexpr int query_tile = 192;   // query rows of one KV head's group per task

/// One task: `count` tokens of one sequence, all G query heads of one KV head.
struct attention_task {
  head_table const* table;
  float const* queries;  // (count,Hq,D) at this group's first head, rotated
  float* out;            // (count,Hq,D) likewise
  float* lse;            // (count,Hq) natural log
  int count, visible;    // the last token sees `visible` slots, the one before it one less, and so on
};

/// Buffers of one thread.
struct attention_scratch {
  attention_scratch(int head_dim, int group)
      : keys(head_dim, key_tile), values(head_dim, key_tile), queries(head_dim, std::max(query_tile, group)), sums(head_dim, queries.cols()),
        weights(key_tile, queries.cols()), peak(queries.cols()), total(queries.cols()) {}

  Eigen::MatrixXf keys, values, queries, sums;  // rows of D floats
  Eigen::MatrixXf weights;                      // (rows,key_tile)
  Eigen::ArrayXf peak, total;                   // (rows) running maximum and sum
};

using float_rows = Eigen::Map<Eigen::MatrixXf const>;  // a column is a row of D floats

/// Slots [start, start+n) as one block: in place where they lie in one page, else copied to `tile`.
inline float_rows gather(float const* rows, kv_pool const& pool, head_table const& t, int start, int n, Eigen::MatrixXf& tile) {
  int const P = pool.page_size(), D = pool.head_dim();
  auto const address = [&](int slot) { return rows + t.row(slot, P) * std::size_t(D); };
  if (start % P + n <= P) return {address(start), D, n};
  for (int i = 0, run = 0; i < n; i += run) {
    run = std::min(n - i, P - (start + i) % P);
    std::copy_n(address(start + i), run * D, tile.data() + i * D);
  }
  return {tile.data(), D, n};
}

/// Folds a tile's logits into row r: weights relative to the new maximum, earlier sums rescaled.
inline void fold(attention_scratch& s, int r, int n, int seen) {
  auto row = s.weights.col(r).head(n).array();
  row.tail(n - seen).setZero();
  if (seen == 0) return;
  float const peak = std::max(s.peak[r], row.head(seen).maxCoeff());
  row.head(seen) = (row.head(seen) - peak).exp();
  if (peak != s.peak[r]) {
    float const shrink = std::exp(s.peak[r] - peak);
    s.sums.col(r) *= shrink;
    s.total[r] *= shrink;
    s.peak[r] = peak;
  }
  s.total[r] += row.head(seen).sum();
}

/// Softmax(q k / sqrt D) v for one task; heads = Hq is the stride of a token.
inline void attend(kv_pool const& pool, attention_task const& task, int heads, int group, attention_scratch& s) {
  int const D = pool.head_dim(), n = task.count, rows = n * group;
  float const scale = 1.0f / std::sqrt(float(D));
  auto const offset = [&](int r) { return std::ptrdiff_t(r / group) * heads + r % group; };
  for (int r = 0; r < rows; ++r) s.queries.col(r) = scale * Eigen::Map<Eigen::VectorXf const>(task.queries + offset(r) * D, D);
  auto const q = s.queries.leftCols(rows);  // (rows,D)
  auto sums = s.sums.leftCols(rows);        // (rows,D)
  sums.setZero();
  s.total.setZero();
  s.peak.setConstant(-std::numeric_limits<float>::infinity());

  for (int start = 0; start < task.visible; start += key_tile) {
    int const width = std::min(key_tile, task.visible - start);
    auto const k = gather(pool.keys(), pool, *task.table, start, width, s.keys);      // (width,D)
    auto const v = gather(pool.values(), pool, *task.table, start, width, s.values);  // (width,D)
    auto weights = s.weights.topLeftCorner(width, rows);                              // (rows,width)
    weights.noalias() = k.transpose() * q;
    for (int r = 0; r < rows; ++r) fold(s, r, width, std::clamp(task.visible - (n - 1 - r / group) - start, 0, width));
    sums.noalias() += v * weights;
  }
  for (int r = 0; r < rows; ++r) {
    Eigen::Map<Eigen::VectorXf>(task.out + offset(r) * D, D) = sums.col(r) / s.total[r];
    task.lse[offset(r)] = s.peak[r] + std::log(s.total[r]);
  }
}

}  // namespace llama
