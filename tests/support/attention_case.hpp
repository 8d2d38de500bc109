// SPDX-License-Identifier: Apache-2.0
// A ragged batch of queries over a cache of any layout, and its attention in double precision.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include <kvevict/core/queries.hpp>
#include <kvevict/core/score_rows.hpp>
#include <kvevict/kernels/kernel.hpp>

#include "support/layouts.hpp"
#include "support/random.hpp"

namespace reference {

struct attention_shape {
  layouts::cache_shape cache;
  std::int32_t group = 2;
  std::vector<std::int32_t> query_tokens;  // (B) rows that each sequence provides; empty: one for every token
  kvevict::dtype query_type = kvevict::dtype::f32;
  float scale = 0, softcap = 0, spread = 1;  // spread: standard deviation of q and k
  std::uint64_t seed = 1;
};

inline float round_to(kvevict::dtype type, float x) {
  if (type == kvevict::dtype::f16) return kvevict::to_float(kvevict::from_float<kvevict::f16>(x));
  if (type == kvevict::dtype::bf16) return kvevict::to_float(kvevict::from_float<kvevict::bf16>(x));
  return x;
}

/// Owns the keys and queries as numbers, the query tensor as bytes, and rows to score into.
class attention_case {
 public:
  explicit attention_case(attention_shape s) : shape(std::move(s)), random_(shape.seed) {
    auto const& c = shape.cache;
    if (shape.query_tokens.empty()) shape.query_tokens = c.lengths;
    for (std::int32_t b = 0; b < sequences(); ++b) {
      for (std::int32_t h = 0; h < c.heads; ++h) {
        auto const n = static_cast<std::size_t>(tokens(b, h));
        keys_.push_back(random_.normals<float>(n * static_cast<std::size_t>(c.head_dim), shape.spread));
        for (float& x : keys_.back()) x = round_to(c.type, x);
        rows.push_back({b, h, tokens(b, h), 0, tokens(b, h), tokens(b, h), 1, true});
        begin.push_back(begin.back() + tokens(b, h));
      }
      row_begin_.push_back(row_begin_.back() + shape.query_tokens[static_cast<std::size_t>(b)]);
    }
    values.assign(static_cast<std::size_t>(begin.back()), -7.0f);
    queries_ = random_.normals<float>(static_cast<std::size_t>(row_begin_.back()) * row_floats(), shape.spread);
    store_queries();
  }

  attention_shape shape;
  std::vector<kvevict::row> rows;
  std::vector<std::int64_t> begin{0};
  std::vector<float> values;

  std::int32_t sequences() const { return static_cast<std::int32_t>(shape.cache.lengths.size()); }
  std::int32_t heads() const { return shape.cache.heads; }
  std::int32_t query_heads() const { return heads() * shape.group; }
  std::int32_t tokens(std::int32_t b, std::int32_t h) const {
    auto const& c = shape.cache;
    return c.head_lengths.empty() ? c.lengths[static_cast<std::size_t>(b)]
                                  : c.head_lengths[static_cast<std::size_t>(b * c.heads + h)];
  }
  std::int32_t query_tokens(std::int32_t b) const { return shape.query_tokens[static_cast<std::size_t>(b)]; }

  template <class Cache> void fill(Cache& cache) const {
    auto const D = shape.cache.head_dim;
    auto const k = [&](int b, int h, int t, int d) {
      return keys_[static_cast<std::size_t>(b * heads() + h)][static_cast<std::size_t>(t * D + d)];
    };
    cache.fill(k, [](int b, int h, int t, int d) { return static_cast<float>(b + h + t % 7 - d % 3) * 0.25f; });
  }

  kvevict::score_rows out() {
    kvevict::score_rows s{rows.data(), sequences(), heads(), begin.data(), values.data(), nullptr, 0};
    s.total_floats = begin.back();
    return s;
  }

  kvevict::query_rows queries() const {
    kvevict::query_rows q;
    q.data = bytes_.data(), q.type = shape.query_type;
    q.token_stride = static_cast<std::int64_t>(row_floats()), q.head_stride = shape.cache.head_dim;
    q.heads = query_heads(), q.head_dim = shape.cache.head_dim, q.row_begin = row_begin_.data();
    q.scale = shape.scale, q.softcap = shape.softcap;
    return q;
  }
  /// The same with the LSE of causal attention; `more` is attention mass outside the cache, as a factor on the sum.
  kvevict::query_rows queries_with_lse(kvevict::log_base base, bool causal = true, double more = 1) {
    kvevict::query_rows q = queries();
    lse_.clear();
    for (std::int32_t b = 0; b < sequences(); ++b)
      for (std::int32_t i = 0; i < query_tokens(b); ++i)
        for (std::int32_t hq = 0; hq < query_heads(); ++hq) {
          double const x = lse(b, hq, i, causal) + std::log(more);
          lse_.push_back(static_cast<float>(base == kvevict::log_base::e ? x : x / std::log(2.0)));
        }
    q.lse = lse_.data(), q.lse_token_stride = query_heads(), q.lse_head_stride = 1, q.base = base;
    return q;
  }

  double logit(std::int32_t b, std::int32_t hq, std::int32_t i, std::int32_t j) const {
    auto const D = static_cast<std::size_t>(shape.cache.head_dim);
    std::size_t const t = static_cast<std::size_t>(row_begin_[static_cast<std::size_t>(b)] + i);
    float const* q = queries_.data() + t * row_floats() + static_cast<std::size_t>(hq) * D;
    float const* k =
        keys_[static_cast<std::size_t>(b * heads() + hq / shape.group)].data() + static_cast<std::size_t>(j) * D;
    double dot = 0;
    for (std::size_t d = 0; d < D; ++d) dot += double{q[d]} * double{k[d]};
    double const z = dot * (shape.scale == 0 ? 1 / std::sqrt(static_cast<double>(D)) : double{shape.scale});
    return shape.softcap == 0 ? z : double{shape.softcap} * std::tanh(z / double{shape.softcap});
  }

  /// Tokens that query row i sees.
  std::int32_t seen(std::int32_t b, std::int32_t h, std::int32_t i, bool causal) const {
    return causal ? std::max(0, tokens(b, h) - query_tokens(b) + i + 1) : tokens(b, h);
  }
  double lse(std::int32_t b, std::int32_t hq, std::int32_t i, bool causal, double gain = 1) const {
    std::int32_t const n = seen(b, hq / shape.group, i, causal);
    double top = -std::numeric_limits<double>::infinity(), sum = 0;
    for (std::int32_t j = 0; j < n; ++j) top = std::max(top, gain * logit(b, hq, i, j));
    for (std::int32_t j = 0; j < n; ++j) sum += std::exp(gain * logit(b, hq, i, j) - top);
    return n == 0 ? 0 : top + std::log(sum);
  }

  /// Σ over query rows [first, last) of one query head's weights.  → (N)
  std::vector<double> summed(std::int32_t b, std::int32_t hq, std::int32_t first, std::int32_t last, bool causal = true,
                             double more = 1, std::vector<double> const& gains = {}) const {
    std::vector<double> out(static_cast<std::size_t>(tokens(b, hq / shape.group)), 0.0);
    for (std::int32_t i = first; i < last; ++i) {
      double const gain = gains.empty() ? 1 : gains[static_cast<std::size_t>(i - first)];
      double const whole = lse(b, hq, i, causal, gain) + std::log(more);
      for (std::int32_t j = 0; j < seen(b, hq / shape.group, i, causal); ++j)
        out[static_cast<std::size_t>(j)] += std::exp(gain * logit(b, hq, i, j) - whole);
    }
    return out;
  }

  std::vector<float>& numbers_of_queries() { return queries_; }
  void store_queries() {
    auto const size = static_cast<std::size_t>(kvevict::size_of(shape.query_type));
    bytes_.resize(queries_.size() * size);
    for (std::size_t i = 0; i < queries_.size(); ++i) {
      float const x = queries_[i] = round_to(shape.query_type, queries_[i]);
      auto const put = [&](auto y) { std::memcpy(bytes_.data() + i * size, &y, sizeof y); };
      if (shape.query_type == kvevict::dtype::f16)
        put(kvevict::from_float<kvevict::f16>(x));
      else if (shape.query_type == kvevict::dtype::bf16)
        put(kvevict::from_float<kvevict::bf16>(x));
      else
        put(x);
    }
  }

 private:
  std::size_t row_floats() const {
    return static_cast<std::size_t>(query_heads()) * static_cast<std::size_t>(shape.cache.head_dim);
  }

  generator random_;
  std::vector<std::vector<float>> keys_;  // (B·H)(N·D)
  std::vector<std::int32_t> row_begin_{0};
  std::vector<float> queries_, lse_;  // (T,Hq,D), (T,Hq)
  std::vector<std::byte> bytes_;
};

/// Reduces per-head vectors of one KV head.
inline std::vector<double> reduced(std::vector<std::vector<double>> const& heads, kvevict::group_reduce how) {
  std::vector<double> out = heads[0];
  for (std::size_t g = 1; g < heads.size(); ++g)
    for (std::size_t j = 0; j < out.size(); ++j)
      out[j] = how == kvevict::group_reduce::max ? std::max(out[j], heads[g][j]) : out[j] + heads[g][j];
  if (how == kvevict::group_reduce::mean)
    for (double& x : out) x /= static_cast<double>(heads.size());
  return out;
}

}  // namespace reference
