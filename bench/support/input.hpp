// SPDX-License-Identifier: Apache-2.0
// A cache in vLLM's NHD pages of 16 tokens in random order, or contiguous, with queries; the attention in double
// precision; and what every program counts.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
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

#include "support/lines.hpp"
#include "support/plain.hpp"
#include "support/roof.hpp"

namespace bench {

struct shape {
  std::int32_t Hq = 32, H = 8, N = 4096, D = 128, W = 32;
  kvevict::dtype type = kvevict::dtype::f32;
  bool contiguous = false;  // [H,N,D] in place of pages

  std::string name() const {
    return "Hq:" + std::to_string(Hq) + "/H:" + std::to_string(H) + "/N:" + std::to_string(N) +
           "/D:" + std::to_string(D) + "/W:" + std::to_string(W) + "/" + kvevict::name_of(type) +
           (contiguous ? "/contiguous" : "");
  }
  std::int32_t page() const { return contiguous ? N : 16; }
  double key_bytes() const { return double(H) * N * D * kvevict::size_of(type); }
};

/// A thread pool with its context and its roof.
struct context {
  explicit context(int count) : pool(count), ctx(pool.as_executor()), top(count) {}
  kvevict::threads pool;
  kvevict::host ctx;
  roof top;
};
/// With scratch that nobody has used: its high water is that of one benchmark.
inline context& on(int threads) {
  static std::map<int, context> all;
  context& c = all.try_emplace(threads, threads).first->second;
  c.ctx = kvevict::host(c.pool.as_executor());
  return c;
}
inline std::string host_name(int threads) { return threads == 1 ? "host" : "host_threads:" + std::to_string(threads); }

/// What `make` returns, made once for a name: all repetitions share inputs and checks, which take longer than what is
/// timed.
template <class F> auto& once(std::string const& name, F make) {
  static std::map<std::string, std::unique_ptr<decltype(make())>> all;
  auto& it = all[name];
  if (it == nullptr) it.reset(new decltype(make())(make()));
  return *it;
}

inline constexpr float cheap_lse = 32;

class input {
 public:
  static constexpr std::int32_t budget = 1024;

  explicit input(shape s, std::int32_t query_tokens) : s_(s), row_begin_{0, query_tokens}, length_(s.N) {
    std::minstd_rand random(1);
    auto const some = [&] {
      float x = -6;
      for (int i = 0; i < 4; ++i) x += 3 * static_cast<float>(random()) / 2147483647.0f;
      return x;
    };
    queries_.resize(std::size_t(query_tokens) * std::size_t(s.Hq * s.D));
    for (float& x : queries_) x = some();
    std::int32_t const P = s.page(), pages = s.N / P;
    for (std::int32_t i = 0; i < pages; ++i) ids_.push_back(i);
    std::shuffle(ids_.begin(), ids_.end(), random);
    std::int64_t const E = kvevict::size_of(s.type), row = s.D * E;
    memory_.resize(std::size_t(s.N) * std::size_t(s.H) * std::size_t(row));
    view_.pages.entries = ids_.data(), view_.pages.sequences = 1, view_.pages.heads = s.H;
    view_.pages.columns = pages, view_.pages.seq_stride = pages, view_.pages.page_size = P;
    view_.lengths.data = &length_;
    kvevict::component k;
    k.type = s.type;
    std::int64_t const head = s.contiguous ? P * row : row, slot = s.contiguous ? row : s.H * row;
    k.rows = {memory_.data(), 0, pages, P * s.H * row, head, slot, 0, static_cast<std::int32_t>(row), 1};
    view_ = view_.with(k);
    for (std::size_t i = 0; i < memory_.size() / std::size_t(E); ++i) put(i, some());
    for (std::int32_t h = 0; h < s.H; ++h) {
      rows_.push_back({0, h, s.N, 0, s.N - s.W, s.N - s.W, budget, true});
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
      kvevict::with_type(s_.type, [&](auto type) {
        for (std::int32_t d = 0; d < s_.D; ++d)
          out.push_back(kvevict::to_float(reinterpret_cast<decltype(type) const*>(row)[d]));
      });
    }
    return out;
  }
  float const* query(std::int32_t i, std::int32_t hq) const {
    return queries_.data() + (std::int64_t{i} * s_.Hq + hq) * s_.D;
  }

 private:
  void put(std::size_t i, float x) {
    kvevict::with_type(s_.type, [&](auto type) {
      using T = decltype(type);
      reinterpret_cast<T*>(memory_.data())[i] = kvevict::from_float<T>(x);
    });
  }

  shape s_;
  std::int32_t row_begin_[2], length_;
  lines_of<float> queries_, lse_, scores_;
  std::vector<std::int32_t> ids_;
  lines_of<std::byte> memory_;
  std::vector<kvevict::row> rows_;
  std::vector<std::int64_t> begin_{0};
  kvevict::layer_view<> view_;
};

/// Causal attention of the last `rows` of N tokens to each of one KV head's, see plain::attention.  → (N)
template <class Number>
std::vector<Number> naive_attention(std::vector<float> const& keys, input const& in, shape const& s, std::int32_t rows,
                                    std::int32_t h, float lse = 0, std::int32_t budget = 0) {
  std::int32_t const G = s.Hq / s.H;
  auto const query = [&](std::int32_t i, std::int32_t g) { return in.query(i, h * G + g); };
  return plain::attention<Number>(keys.data(), s.N, s.D, rows, G, query, lse, budget);
}

/// With an LSE a token needs no other: the mean over the group of its weights in query rows [from, to), summed.
inline double weights_of(float const* key, input const& in, shape const& s, std::int32_t h, std::int32_t from,
                         std::int32_t to) {
  std::int32_t const G = s.Hq / s.H;
  double sum = 0;
  for (std::int32_t i = from; i < to; ++i)
    for (std::int32_t g = 0; g < G; ++g) {
      double const dot = std::inner_product(key, key + s.D, in.query(i, h * G + g), 0.0);
      sum += std::exp(dot / std::sqrt(double(s.D)) - double{cheap_lse}) / G;
    }
  return sum;
}

/// Relative to the largest, so that tokens of no weight do not decide.
inline bool close(float const* got, std::vector<double> const& want, double factor, double tolerance = 1e-5) {
  double const top = *std::max_element(want.begin(), want.end()) * factor;
  for (std::size_t j = 0; j < want.size(); ++j)
    if (!(std::abs(double(got[j]) - want[j] * factor) <= tolerance * std::max(want[j] * factor, 1e-3 * top)))
      return false;
  return true;
}

/// Rates and the share of the roof, which is measured now, next to what is compared with it. `flop` and `bytes` are of
/// one iteration.
inline void count(benchmark::State& state, context& c, double tokens, double flop, double bytes, bound by) {
  using benchmark::Counter;
  state.counters["tokens/s"] = Counter(tokens, Counter::kIsIterationInvariantRate);
  if (flop > 0) state.counters["flop/s"] = Counter(flop, Counter::kIsIterationInvariantRate);
  state.counters["GB/s"] = Counter(bytes * 1e-9, Counter::kIsIterationInvariantRate);
  state.counters["scratch"] = static_cast<double>(c.ctx.scratch().high_water());
  if (by == bound::cache) return;
  double const top = c.top.measure(c.ctx, by);
  state.counters["roof"] = Counter((by == bound::arithmetic ? flop : bytes) / top, Counter::kIsIterationInvariantRate);
}

template <class F> void add(std::string const& name, int threads, F f) {
  auto* b = benchmark::RegisterBenchmark(name.c_str(), f);
  b->Unit(benchmark::kMillisecond);
  if (threads > 1) b->UseRealTime();
}

/// What has been added, as Google Benchmark's arguments say; one that it does not know is refused before anything runs.
inline int run_added(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

}  // namespace bench
