// SPDX-License-Identifier: Apache-2.0
// A paged cache (vLLM's NHD pages of 16 tokens in random order) with queries, and the attention in double precision.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

#include <kvevict/cache/layer_view.hpp>
#include <kvevict/core/queries.hpp>
#include <kvevict/core/score_rows.hpp>
#include <kvevict/threads.hpp>

#include "support/plain.hpp"
#include "support/roof.hpp"

namespace bench {

struct shape {
  std::int32_t Hq = 32, H = 8, N = 4096, D = 128, W = 32;
  kvevict::dtype type = kvevict::dtype::f32;

  std::string name() const {
    return "Hq:" + std::to_string(Hq) + "/H:" + std::to_string(H) + "/N:" + std::to_string(N) +
           "/D:" + std::to_string(D) + "/W:" + std::to_string(W) + "/" + kvevict::name_of(type);
  }
  double key_bytes() const { return double(H) * N * D * kvevict::size_of(type); }
};

/// A thread pool with its context and its roof.
struct context {
  explicit context(int count) : pool(count), ctx(pool.as_executor()), top(measure_roof(ctx)) {}
  kvevict::threads pool;
  kvevict::host ctx;
  roof top;
  std::string name() const { return pool.count() == 1 ? "host" : "host_threads:" + std::to_string(pool.count()); }
};
inline context& on(int threads) {
  static std::vector<std::unique_ptr<context>> all;
  for (auto& c : all)
    if (c->pool.count() == threads) return *c;
  return *all.emplace_back(std::make_unique<context>(threads));
}

inline constexpr float cheap_lse = 32;

class input {
 public:
  explicit input(shape s, std::int32_t query_tokens) : s_(s), row_begin_{0, query_tokens}, length_(s.N) {
    std::minstd_rand random(1);
    auto const some = [&] {
      float x = -6;
      for (int i = 0; i < 4; ++i) x += 3 * static_cast<float>(random()) / 2147483647.0f;
      return x;
    };
    queries_.resize(std::size_t(query_tokens) * std::size_t(s.Hq * s.D));
    for (float& x : queries_) x = some();
    std::int32_t const pages = s.N / P;
    for (std::int32_t i = 0; i < pages; ++i) ids_.push_back(i);
    std::shuffle(ids_.begin(), ids_.end(), random);
    std::int64_t const E = kvevict::size_of(s.type), row = s.D * E;
    memory_.resize(std::size_t(s.N) * std::size_t(s.H) * std::size_t(row));
    view_.pages.entries = ids_.data(), view_.pages.sequences = 1, view_.pages.heads = s.H;
    view_.pages.columns = pages, view_.pages.seq_stride = pages, view_.pages.page_size = P;
    view_.lengths.data = &length_;
    kvevict::component k;
    k.type = s.type;
    k.rows = {memory_.data(), 0, pages, P * s.H * row, row, s.H * row, 0, static_cast<std::int32_t>(row), 1};
    view_ = view_.with(k);
    for (std::size_t i = 0; i < memory_.size() / std::size_t(E); ++i) put(i, some());
    for (std::int32_t h = 0; h < s.H; ++h) {
      rows_.push_back({0, h, s.N, 0, s.N - s.W, s.N - s.W, 1024, true});
      begin_.push_back(begin_.back() + s.N);
    }
    scores_.resize(std::size_t(begin_.back()));
  }

  kvevict::layer_view<> const& view() const { return view_; }
  kvevict::score_rows out() { return {rows_.data(), 1, s_.H, begin_.data(), scores_.data(), nullptr, 0}; }
  float const* scores(std::int32_t h) const { return scores_.data() + begin_[std::size_t(h)]; }

  kvevict::query_rows queries() const {
    kvevict::query_rows q;
    q.data = queries_.data(), q.token_stride = std::int64_t{s_.Hq} * s_.D, q.head_stride = s_.D;
    q.heads = s_.Hq, q.head_dim = s_.D, q.row_begin = row_begin_;
    return q;
  }
  /// With an LSE that is cheap to make: large enough for every weight to be below 1. The work is the same.
  kvevict::query_rows queries_with_lse() {
    lse_.assign(std::size_t(row_begin_[1]) * std::size_t(s_.Hq), cheap_lse);
    kvevict::query_rows q = queries();
    q.lse = lse_.data(), q.lse_token_stride = s_.Hq, q.lse_head_stride = 1;
    [](auto& rows) {  // it is above that of any row; older headers, which bench/instructions counts, do not ask
      if constexpr (requires { rows.sum; }) rows.sum = decltype(rows.sum)::at_most_one;
    }(q);
    return q;
  }

  /// Keys of one head, dense (N,D).
  std::vector<float> keys(std::int32_t h) const {
    std::vector<float> out;
    for (std::int32_t t = 0; t < s_.N; ++t) {
      std::byte const* row = view_.row(view_.components[0], 0, h, t);
      for (std::int32_t d = 0; d < s_.D; ++d)
        out.push_back(s_.type == kvevict::dtype::f32
                          ? reinterpret_cast<float const*>(row)[d]
                          : kvevict::to_float(reinterpret_cast<kvevict::bf16 const*>(row)[d]));
    }
    return out;
  }
  float const* query(std::int32_t i, std::int32_t hq) const {
    return queries_.data() + (std::int64_t{i} * s_.Hq + hq) * s_.D;
  }

 private:
  static constexpr std::int32_t P = 16;

  void put(std::size_t i, float x) {
    if (s_.type == kvevict::dtype::f32)
      reinterpret_cast<float*>(memory_.data())[i] = x;
    else
      reinterpret_cast<kvevict::bf16*>(memory_.data())[i] = kvevict::from_float<kvevict::bf16>(x);
  }

  shape s_;
  std::int32_t row_begin_[2], length_;
  std::vector<float> queries_, lse_, scores_;
  std::vector<std::int32_t> ids_;
  std::vector<std::byte> memory_;
  std::vector<kvevict::row> rows_;
  std::vector<std::int64_t> begin_{0};
  kvevict::layer_view<> view_;
};

/// Causal attention of the last `rows` of N tokens to each of one KV head's, see plain::attention.  → (N)
template <class Number>
std::vector<Number> naive_attention(std::vector<float> const& keys, input const& in, shape const& s, std::int32_t rows,
                                    std::int32_t h, float lse = 0) {
  std::int32_t const G = s.Hq / s.H;
  auto const query = [&](std::int32_t i, std::int32_t g) { return in.query(i, h * G + g); };
  return plain::attention<Number>(keys.data(), s.N, s.D, rows, G, query, lse);
}

/// Relative to the largest, so that tokens of no weight do not decide.
inline bool close(float const* got, std::vector<double> const& want, double factor) {
  double const top = *std::max_element(want.begin(), want.end()) * factor;
  for (std::size_t j = 0; j < want.size(); ++j)
    if (!(std::abs(double(got[j]) - want[j] * factor) <= 1e-5 * std::max(want[j] * factor, 1e-3 * top))) return false;
  return true;
}

enum class bound { arithmetic, memory, cache };  // what the roof is; none is measured for what stays in the cache

/// Rates and shares of the roof: `flop` and `bytes` are of one iteration.
inline void count(benchmark::State& state, context& c, double tokens, double flop, double bytes, bound by) {
  using benchmark::Counter;
  state.counters["tokens/s"] = Counter(tokens, Counter::kIsIterationInvariantRate);
  if (flop > 0) state.counters["flop/s"] = Counter(flop, Counter::kIsIterationInvariantRate);
  state.counters["GB/s"] = Counter(bytes * 1e-9, Counter::kIsIterationInvariantRate);
  state.counters["scratch"] = static_cast<double>(c.ctx.scratch().high_water());
  if (by == bound::cache) return;
  state.counters["roof"] =
      Counter(by == bound::memory ? bytes / c.top.read : flop / c.top.flops, Counter::kIsIterationInvariantRate);
}

template <class F> void add(std::string const& name, int threads, F f) {
  auto* b = benchmark::RegisterBenchmark(name.c_str(), f);
  b->Unit(benchmark::kMillisecond);
  if (threads > 1) b->UseRealTime();
}

}  // namespace bench
