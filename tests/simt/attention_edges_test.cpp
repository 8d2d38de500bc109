// SPDX-License-Identifier: Apache-2.0
// Attention on a device at its edges: ragged heads, every layout and page size, odd strides, scattered rows, what must
// stay untouched, what is refused.
#include <cmath>
#include <limits>
#include <string>

#include <kvevict/cuda/attention/attention.hpp>
#include <kvevict/cuda/attention/softmax_rows.hpp>
#include <kvevict/cuda/scores/each.hpp>
#include <kvevict/kernels/attention_rows.hpp>
#include <kvevict/kernels/host.hpp>

#include "simt/score_calls.hpp"
#include "support/attention_case.hpp"
#include "support/catch.hpp"

namespace attention_edges_test {

using namespace simt_test;
using namespace kvevict;
using layouts::layout;
using reference::attention_case;
using reference::attention_shape;

namespace {

auto window(window_options const& o) {
  return [o](auto& ctx, auto const& view, auto const& rows, score_rows const& out) {
    kernels::window_scores(ctx, view, rows, o, out);
  };
}
/// Plane k of the weights of single rows.
struct copy_plane {
  float const* from;
  std::int64_t const* begin;
  std::int32_t heads;
  constexpr void operator()(row const& in, std::int64_t j, float& x) const {
    x = from[begin[in.sequence * heads + in.head] + j];
  }
};
auto single_row(window_options const& o, std::int32_t k) {
  return [o, k](auto& ctx, auto const& view, auto const& rows, score_rows const& out) {
    kvevict::frame scratch(ctx.scratch());
    score_rows each = out;
    each.values = scratch.template allocate<float>(out.total_floats * o.rows);
    kernels::window_weights(ctx, view, rows, o, each);
    kernels::each_token(ctx, out, copy_plane{each.plane(k).values, out.begin, out.heads});
  };
}
auto all_columns(group_reduce how) {
  return [how](auto& ctx, auto const& view, auto const& rows, score_rows const& out) {
    kernels::column_sums(ctx, view, rows, how, out);
  };
}

constexpr std::int32_t head_dims[] = {16, 64, 8, 24, 128, 72, 40};
constexpr dtype types[] = {dtype::f32, dtype::bf16, dtype::f16};
double tolerance(dtype t) { return t == dtype::f32 ? 1e-5 : 2e-5; }

/// The i-th of many shapes, so that neighbours differ in everything.
attention_shape shape_at(std::size_t i) {
  attention_shape s;
  s.cache.lengths = {130, 17, 0, 64, 1}, s.cache.heads = i % 5 == 4 ? 1 : 2;
  s.cache.head_dim = head_dims[i % std::size(head_dims)], s.cache.type = types[i % 3];
  s.query_type = i % 4 == 3 ? types[(i / 3) % 3] : s.cache.type;
  s.cache.page_size = std::array<int, 4>{16, 1, 64, 7}[i % 4], s.group = std::array<int, 5>{2, 1, 4, 3, 1}[i % 5],
  s.seed = i + 1;
  return s;
}
layout layout_at(std::size_t i) { return layouts::all[(i * 7 + i / 10) % std::size(layouts::all)]; }

/// f(cache, case) in one layout; heads of a row table of their own differ in length.
template <class F> void over(std::size_t i, attention_shape s, F f) {
  layout const l = layout_at(i);
  if (layouts::has_table_per_head(l) && s.cache.heads == 2 && s.query_tokens.empty() && i % 2 == 0) {
    s.cache.head_lengths = {130, 96, 17, 3, 0, 8, 64, 65, 1, 1};
    s.query_tokens = {12, 12, 8, 12, 12};
  }
  attention_case a(s);
  for (std::size_t r = 0; r < a.rows.size(); ++r) {
    a.rows[r].active = (r + i) % 5 != 2;
    a.rows[r].last = a.rows[r].tokens - a.rows[r].tokens / 4, a.rows[r].budget = 1 + a.rows[r].tokens / 3;
  }
  scheduled const schedule(i % 6);
  layouts::with_layout(l, s.cache, [&](auto& cache) {
    a.fill(cache);
    CAPTURE(i, cache.name(), cache.shape().page_size, s.cache.head_dim, static_cast<int>(s.cache.type),
            static_cast<int>(s.query_type), s.group);
    f(cache, a);
  });
}

std::vector<window_options> all_options() {
  using gr = group_reduce;
  using rr = row_reduce;
  constexpr auto gain = weighting::step_gain;
  constexpr auto soft = weighting::softmax;
  constexpr auto causal = row_place::in_cache;
  return {{8},
          {1},
          {5, rr::sum, gr::max},
          {3, rr::sum, gr::sum, soft},
          {7, rr::mean, gr::mean, gain},
          {4, rr::sum, gr::max, gain, 0.6f},
          {6, rr::mean, gr::mean, soft, 0, causal, {5, pooling::max}},
          {2, rr::mean, gr::max, soft, 0, causal, {3, pooling::average}},
          {8, rr::mean, gr::sum, gain, 0, causal, {7, pooling::max}}};
}

/// Softmax rows of all queries of a case, a few floats between them.
struct softmax_rows {
  std::vector<float> weights;
  std::vector<std::int32_t> begin{0};
  attention_rows rows;

  explicit softmax_rows(attention_case const& a) {
    std::int32_t slots = 1;
    for (row const& r : a.rows) slots = std::max(slots, r.tokens);
    std::int64_t const Hq = a.query_heads(), row = slots + 3;
    for (std::int32_t b = 0; b < a.sequences(); ++b) {
      begin.push_back(begin.back() + a.query_tokens(b));
      for (std::int32_t i = 0; i < a.query_tokens(b); ++i)
        for (std::int32_t hq = 0; hq < a.query_heads(); ++hq) {
          std::size_t const at = weights.size();
          weights.resize(at + static_cast<std::size_t>(row), 99.0f);  // nobody may read what a row does not see
          std::int32_t const seen = a.seen(b, hq / a.shape.group, i, true);
          double const lse = a.lse(b, hq, i, true);
          for (std::int32_t j = 0; j < seen; ++j)
            weights[at + static_cast<std::size_t>(j)] = static_cast<float>(std::exp(a.logit(b, hq, i, j) - lse));
        }
    }
    rows.weights = weights.data(), rows.token_stride = Hq * row, rows.head_stride = row, rows.heads = a.query_heads(),
    rows.slots = slots, rows.row_begin = begin.data();
  }
};

std::vector<std::int32_t> shifted_positions(attention_case const& a) {
  std::vector<std::int32_t> p;
  for (std::int32_t b = 0; b < a.sequences(); ++b)
    for (std::int32_t i = 0; i < a.query_tokens(b); ++i)
      p.push_back(a.tokens(b, 0) - a.query_tokens(b) + i + 20 * b + 5);
  return p;
}

/// Tokens at the positions that shifted_positions() means.
template <class Cache> void shift_tokens(Cache& cache) {
  cache.fill(role::position, [](int b, int, int t, int) { return static_cast<float>(t + 20 * b + 5); });
}

}  // namespace

TEST_CASE("edges: window scores of ragged heads in every layout, page size and type") {
  std::size_t i = 0;
  for (int round = 0; round < 7; ++round)
    for (window_options const& o : all_options()) {
      attention_shape s = shape_at(++i);
      if (i % 3 == 0) s.query_tokens = {12, 12, 8, 12, 12};
      if (i % 4 == 1) s.softcap = 1.5f;
      if (i % 7 == 2) s.scale = 0.05f;
      over(i, s, [&](auto& cache, attention_case& a) {
        auto const base = i % 2 == 0 ? log_base::e : log_base::two;
        bool const lse = i % 3 != 1;
        auto q = lse ? a.queries_with_lse(base, true, 1.25) : a.queries();
        q.sum = row_sum::at_most_one;
        auto const positions = shifted_positions(a);
        if (i % 2 == 1) shift_tokens(cache), q.positions = positions.data();
        CAPTURE(lse, static_cast<int>(base), o.rows);
        same(cache, a.out(), q, tolerance(s.cache.type), window(o));
      });
    }
}

TEST_CASE("edges: rows that come after the cache see all of it") {
  for (std::size_t i = 0; i < 20; ++i) {
    attention_shape s = shape_at(i);
    s.query_tokens = {9, 4, 2, 30, 6};
    over(i, s, [&](auto& cache, attention_case& a) {
      window_options o{static_cast<std::int32_t>(i % 3 == 0 ? 40 : 4),
                       row_reduce::mean,
                       group_reduce::mean,
                       weighting::softmax,
                       0,
                       row_place::behind_cache};
      for (row& r : a.rows) r.active = r.active && a.query_tokens(r.sequence) >= std::min(o.rows, r.tokens);
      same(cache, a.out(), a.queries_with_lse(log_base::two, false, 1.5), tolerance(s.cache.type), window(o));
    });
  }
}

TEST_CASE("edges: column sums of ragged sequences in every layout, page size and type") {
  for (std::size_t i = 0; i < 30; ++i) {
    attention_shape s = shape_at(i);
    if (i % 4 == 1) s.softcap = 1.5f;
    s.query_tokens = s.cache.lengths;
    over(i, s, [&](auto& cache, attention_case& a) {
      auto const q = i % 2 == 0 ? a.queries() : a.queries_with_lse(i % 4 == 1 ? log_base::e : log_base::two);
      same(cache, a.out(), q, tolerance(s.cache.type), all_columns(static_cast<group_reduce>(i % 3)));
    });
  }
}

TEST_CASE("edges: newest_sums has the bits of window_scores") {
  over(3, shape_at(3), [&](auto& cache, attention_case& a) {
    window_options const o{200, row_reduce::sum};
    auto const newest = [o](auto& ctx, auto const& view, auto const& rows, score_rows const& out) {
      kernels::newest_sums(ctx, view, rows, o, out);
    };
    CHECK(there(cache, a.out(), a.queries(), newest) == there(cache, a.out(), a.queries(), window(o)));
    softmax_rows const w(a);
    CHECK(there(cache, a.out(), w.rows, newest) == there(cache, a.out(), w.rows, window(o)));
  });
}

TEST_CASE("edges: softmax rows, sharpened, with gaps between them") {
  for (std::size_t i = 0; i < 36; ++i) {
    attention_shape s = shape_at(i);
    s.cache.head_dim = 8, s.cache.type = s.query_type = dtype::f32;
    bool const all = i % 6 == 5;
    if (!all && i % 2 == 0)
      s.query_tokens = {12, 12, 0, 12, 12};
    else
      s.query_tokens = s.cache.lengths;
    over(i, s, [&](auto& cache, attention_case& a) {
      softmax_rows w(a);
      auto const positions = shifted_positions(a);
      if (i % 4 == 1) shift_tokens(cache), w.rows.positions = positions.data();
      window_options o = all_options()[i % 6];
      CAPTURE(o.rows, all);
      if (all)
        same(cache, a.out(), w.rows, 2e-5, all_columns(static_cast<group_reduce>(i / 6 % 3)));
      else
        same(cache, a.out(), w.rows, 2e-5, window(o));
    });
  }
}

TEST_CASE("edges: scattered rows have one row that sees all tokens") {
  for (std::size_t i = 0; i < 9; ++i) {
    attention_shape s = shape_at(i);
    over(i, s, [&](auto& cache, attention_case& a) {
      std::vector<std::int32_t> positions;
      for (row const& r : a.rows)
        for (std::int32_t j = 0; j < r.tokens; ++j) positions.push_back((j * 37 + 5) % 1009);
      score_rows out = a.out();
      out.positions = positions.data();
      std::size_t at = 0;
      for (row const& r : a.rows)
        for (std::int32_t j = 0; j < r.tokens; ++j)
          element<std::int32_t>(cache.view, *cache.view.find(role::position), r.sequence, r.head, j) = positions[at++];
      cache.view.order = row_order::scattered;
      window_options o{1};
      if (i % 3 == 2) o.weights = weighting::step_gain, o.min_gain = 0.5f;
      auto q = i % 3 == 1 ? a.queries_with_lse(log_base::e, false, 2) : a.queries();
      q.sum = row_sum::at_most_one;
      same(cache, out, q, tolerance(s.cache.type), window(o));
    });
  }
}

TEST_CASE("edges: head dimensions beyond the registers, tables of 64-bit ids") {
  std::size_t i = 0;
  for (std::int32_t const D : {136, 256, 576})
    for (dtype const type : types) {
      attention_shape s;
      s.cache.lengths = {37, 9}, s.cache.heads = 2, s.cache.head_dim = D, s.cache.page_size = 16,
      s.cache.type = s.query_type = type, s.seed = ++i;
      attention_case a(s);
      layouts::cache<std::int64_t> cache(i % 2 == 0 ? layout::hnd : layout::head_pages, s.cache);
      a.fill(cache);
      CAPTURE(D, static_cast<int>(type));
      same(cache, a.out(), a.queries(), tolerance(type), window({4}));
      same(cache, a.out(), a.queries_with_lse(log_base::e), tolerance(type), all_columns(group_reduce::mean));
    }
}

TEST_CASE("edges: queries with any stride and start") {
  for (std::size_t i = 0; i < 12; ++i) {
    attention_shape s;
    s.cache.lengths = {50, 13}, s.cache.head_dim = 64, s.cache.type = s.query_type = types[i % 3], s.seed = i + 1;
    over(i, s, [&](auto& cache, attention_case& a) {
      query_rows const dense = a.queries();
      std::int64_t const gap = std::array<int, 4>{1, 8, 2, 16}[i / 3], front = i / 3 == 3 ? 1 : 0,
                         size = size_of(s.query_type), T = dense.row_begin[a.sequences()], Hq = a.query_heads();
      query_rows q = dense;
      q.head_stride = 64 + gap, q.token_stride = Hq * q.head_stride + gap;
      // NaN between the rows
      std::vector<std::byte> bytes(static_cast<std::size_t>((T * q.token_stride + front) * size), std::byte{0xff});
      for (std::int64_t t = 0; t < T; ++t)
        for (std::int64_t h = 0; h < Hq; ++h)
          std::memcpy(
              bytes.data() + (front + t * q.token_stride + h * q.head_stride) * size,
              static_cast<std::byte const*>(dense.data) + (t * dense.token_stride + h * dense.head_stride) * size,
              static_cast<std::size_t>(64 * size));
      q.data = bytes.data() + front * size;
      CAPTURE(gap, front);
      same(cache, a.out(), q, tolerance(s.cache.type), window({5}));
    });
  }
}

TEST_CASE("edges: column sums of more than one block of query rows against double precision") {
  for (dtype const type : {dtype::f32, dtype::bf16}) {
    attention_shape s;
    s.cache.lengths = {1100, 1030}, s.cache.heads = 1, s.cache.head_dim = 8, s.cache.page_size = 16,
    s.cache.type = s.query_type = type, s.group = 1;
    attention_case a(s);
    layouts::cache<std::int32_t> cache(layout::hnd, s.cache);
    a.fill(cache);
    for (bool const lse : {false, true}) {
      auto const got =
          there(cache, a.out(), lse ? a.queries_with_lse(log_base::two) : a.queries(), all_columns(group_reduce::mean));
      double worst = 0;
      for (std::int32_t b = 0; b < 2; ++b) {
        auto const want = a.summed(b, 0, 0, a.tokens(b, 0));
        for (std::size_t j = 0; j < want.size(); ++j)
          worst = std::max(worst, std::abs(got[static_cast<std::size_t>(b) * 1100 + j] - want[j]) / want[j]);
      }
      CAPTURE(static_cast<int>(type), lse);
      CHECK(worst < tolerance(type));
    }
  }
}

TEST_CASE("edges: the first row beyond the budget is sharpened, those within it are not") {
  attention_shape s;
  s.cache.lengths = {44}, s.cache.head_dim = 8, s.query_tokens = {8};
  attention_case a(s);
  for (row& r : a.rows) r.budget = 40;  // window rows i = 37 to 44
  layouts::cache<std::int32_t> cache(layout::hnd, s.cache);
  a.fill(cache);
  same(cache, a.out(), a.queries(), tolerance(dtype::f32),
       window({8, row_reduce::mean, group_reduce::mean, weighting::step_gain}));
}

TEST_CASE("edges: a division by a known number is the division") {
  std::int32_t const most = std::numeric_limits<std::int32_t>::max();
  for (std::int32_t const d :
       {1, 2, 3, 5, 7, 16, 48, 100, 641, 1023, 1 << 20, (1 << 20) + 1, 1 << 30, (1 << 30) + 1, most - 1, most}) {
    cuda::divisor const divided(d);
    std::size_t wrong = 0;
    for (std::int64_t const quotient : {0, 1, 2, 3, 1000, most / d - 1, most / d})
      for (std::int64_t n = quotient * d - 2; n <= quotient * d + 2; ++n)
        wrong += n >= 0 && n <= most && divided(static_cast<std::int32_t>(n)) != n / d;
    CAPTURE(d);
    CHECK(wrong == 0);
  }
}

TEST_CASE("edges: splits whose largest logits are hundreds apart still sum to one") {
  for (std::uint64_t const seed : {1u, 2u, 3u, 4u}) {
    attention_shape s;
    s.cache.lengths = {seed == 4 ? 9300 : 2100}, s.cache.heads = 1, s.cache.head_dim = 8, s.cache.page_size = 16,
    s.group = 1, s.query_tokens = {4};
    s.spread = 12, s.scale = 2, s.seed = seed;
    attention_case a(s);
    layouts::cache<std::int32_t> cache(layout::hnd, s.cache);
    a.fill(cache);
    double sum = 0;
    for (float const x : there(cache, a.out(), a.queries(), window({4}))) sum += static_cast<double>(x);
    CAPTURE(seed);
    CHECK(std::abs(sum - 1) < 1e-3);
  }
}

TEST_CASE("edges: the bits of scores depend on neither schedule nor page size") {
  for (dtype const type : types) {
    attention_shape s;
    s.cache.lengths = {140, 33}, s.cache.head_dim = 32, s.cache.type = s.query_type = type;
    attention_case a(s);
    softmax_rows const w(a);
    std::vector<std::vector<float>> first;
    for (std::int32_t const P : {1, 16, 64})
      for (std::uint64_t schedule = 0; schedule < 5; ++schedule) {
        s.cache.page_size = P;
        layouts::cache<std::int32_t> cache(schedule % 2 == 0 ? layout::nhd : layout::head_pages, s.cache);
        a.fill(cache);
        scheduled const order(schedule);
        window_options sharp{9};
        sharp.weights = weighting::step_gain;
        window_options pooled = sharp;
        pooled.pool_before_group = {3, pooling::average};
        std::vector<std::vector<float>> const got{there(cache, a.out(), a.queries(), window({9})),
                                                  there(cache, a.out(), a.queries(), all_columns(group_reduce::max)),
                                                  there(cache, a.out(), a.queries(), window(pooled)),
                                                  there(cache, a.out(), w.rows, window(sharp))};
        if (first.empty()) first = got;
        CAPTURE(P, schedule, static_cast<int>(type));
        CHECK(got == first);
      }
  }
}

TEST_CASE("edges: a key that is not a number is not hidden") {
  attention_shape s;
  s.cache.lengths = {80}, s.cache.heads = 1;
  attention_case a(s);
  layouts::cache<std::int32_t> cache(layout::hnd, s.cache);
  a.fill(cache);
  cache.set(*cache.view.find(role::k), 0, 0, 41, 3, std::numeric_limits<float>::quiet_NaN());
  for (group_reduce const how : {group_reduce::mean, group_reduce::max}) {
    same(cache, a.out(), a.queries_with_lse(log_base::e), 1e-5, window({4, row_reduce::mean, how}));
    same(cache, a.out(), a.queries(), 1e-5, window({4, row_reduce::mean, how}));
    same(cache, a.out(), a.queries(), 1e-5, all_columns(how));
  }
  cache.set(*cache.view.find(role::k), 0, 0, 41, 3, std::numeric_limits<float>::infinity());
  std::string text;
  there(cache, a.out(), a.queries_with_lse(log_base::e), window({4}), -1, &text);
  INFO(text);
  CHECK(text.find("the attention weights of row") != std::string::npos);
}

TEST_CASE("edges: a row whose logits are all -inf has no softmax") {
  attention_shape s;
  s.cache.lengths = {80}, s.cache.heads = 1;
  attention_case a(s);
  for (float& x : a.numbers_of_queries()) x = std::abs(x) + 0.1f;
  a.store_queries();
  layouts::cache<std::int32_t> cache(layout::hnd, s.cache);
  a.fill(cache);
  for (std::int32_t t = 0; t < 80; ++t)
    cache.set(*cache.view.find(role::k), 0, 0, t, 3, -std::numeric_limits<float>::infinity());
  for (std::int32_t const rows : {1, 4, 40}) same(cache, a.out(), a.queries(), 1e-5, window({rows}));
  same(cache, a.out(), a.queries(), 1e-5, all_columns(group_reduce::mean));
  CHECK(std::isnan(there(cache, a.out(), a.queries(), window({4}), -1).front()));
}

TEST_CASE("edges: weights of single rows, from queries and from softmax rows") {
  for (std::size_t i = 0; i < 30; ++i) {
    attention_shape s = shape_at(i);
    bool const weights = i % 3 == 2;
    if (weights) s.cache.head_dim = 8, s.cache.type = s.query_type = dtype::f32;
    if (i % 4 == 1) s.softcap = 1.5f;
    over(i, s, [&](auto& cache, attention_case& a) {
      window_options o{std::vector<std::int32_t>{1, 5, 17, 20}[i % 4], row_reduce::sum,
                       static_cast<group_reduce>(i % 3)};
      if (i % 2 == 1) o.weights = weighting::step_gain, o.min_gain = 0.6f;
      for (row& r : a.rows) r.active = r.active && std::min(r.tokens, a.query_tokens(r.sequence)) >= o.rows;
      CAPTURE(i, o.rows);
      softmax_rows const w(a);
      for (std::int32_t const k : {0, o.rows / 2, o.rows - 1}) {
        if (weights)
          same(cache, a.out(), w.rows, 2e-5, single_row(o, k));
        else
          same(cache, a.out(), i % 5 == 0 ? a.queries_with_lse(log_base::e) : a.queries(), tolerance(s.cache.type),
               single_row(o, k));
      }
    });
  }
}

TEST_CASE("edges: weights of single rows are refused where a window's are, and where one is not finite") {
  attention_shape s;
  s.cache.lengths = {40, 6}, s.cache.heads = 2, s.cache.head_dim = 16, s.query_tokens = {40, 6};
  attention_case a(s);
  layouts::cache<std::int32_t> cache(layout::hnd, s.cache);
  a.fill(cache);
  auto const says = [&](auto const& rows, window_options const& o, std::string const& part) {
    std::string text = "accepted";
    there(cache, a.out(), rows, single_row(o, 0), -1, &text);
    INFO(text);
    CHECK(text.find(part) != std::string::npos);
  };
  softmax_rows w(a);
  says(a.queries(), window_options{8}, "8 rows are asked for and sequence 1 has 6 tokens");
  says(w.rows, window_options{8}, "8 rows are asked for and sequence 1 has 6 tokens");
  says(a.queries_with_lse(log_base::e, true, 0.01), window_options{4}, "add up to");
  float* const newest = w.weights.data() + 45 * w.rows.token_stride;
  newest[3] = 2;
  says(w.rows, window_options{4}, "above 1");
  newest[3] = std::numeric_limits<float>::quiet_NaN();
  says(w.rows, window_options{4}, "the score of token 3 of sequence 1, head 0 in layer 0 is NaN");
  cache.set(*cache.view.find(role::k), 1, 1, 2, 3, std::numeric_limits<float>::quiet_NaN());
  says(a.queries(), window_options{4}, "of sequence 1, head 1 in layer 0 is NaN");
}

TEST_CASE("edges: what is wrong with rows is refused, and nothing is written behind it") {
  attention_shape s;
  s.cache.lengths = {40, 25}, s.cache.heads = 2, s.cache.head_dim = 16, s.query_tokens = {40, 25};
  attention_case a(s);
  layouts::cache<std::int32_t> cache(layout::hnd, s.cache);
  a.fill(cache);
  softmax_rows const w(a);
  auto const q = a.queries();
  auto const says = [&](auto rows, auto call, std::string const& part, std::int32_t most_rows = -1,
                        bool before = true) {
    std::string text = "accepted";
    auto const values = there(cache, a.out(), rows, call, most_rows, &text);
    INFO(text);
    CHECK(text.find(part) != std::string::npos);
    if (before) CHECK(values == std::vector<float>(values.size(), untouched));
  };
  std::int32_t const few[] = {0, 40, 45}, many[] = {0, 30, 65};
  auto short_q = q, moved_q = q;
  short_q.row_begin = few, moved_q.row_begin = many;
  auto short_w = w.rows;
  short_w.row_begin = few;
  says(short_q, window({7}), "sequence 1 provides 5 query rows and the window needs 7");
  says(short_w, window({7}), "sequence 1 provides 5 softmax rows and the score reads 7");
  says(short_q, all_columns(group_reduce::mean), "sequence 1 provides 5 query rows for 25 tokens");
  says(short_w, all_columns(group_reduce::mean), "sequence 1 provides 5 softmax rows for 25 tokens");
  says(moved_q, all_columns(group_reduce::mean), "sequence 0 provides 30 query rows for 40 tokens");
  says(q, window({4}), "sequence 0 provides 40 rows, but most_rows is 39", 39);
  says(w.rows, window({4}), "sequence 0 provides 40 rows, but most_rows is 39", 39);
  says(w.rows, window({30, row_reduce::mean, group_reduce::mean, weighting::step_gain}), "but most_rows is 8", 8);
  says(q, window({4}), "most_rows", 0);
  says(q, all_columns(group_reduce::mean), "most_rows", 0);
  says(w.rows, window({4}), "most_rows", 0);
  says(a.queries_with_lse(log_base::e, true, 0.01), window({4}), "add up to", -1, false);
  says(a.queries_with_lse(log_base::e, true, 0.9), all_columns(group_reduce::mean), "add up to", -1, false);
  softmax_rows wrong(a);
  wrong.weights[39 * static_cast<std::size_t>(wrong.rows.token_stride) + 7] = 1.01f;
  says(wrong.rows, window({4}), "above 1", -1, false);
  // a row that nobody reads is nobody's business
  a.rows[2].active = a.rows[3].active = false;
  std::string text;
  there(cache, a.out(), short_q, window({8}), -1, &text);
  there(cache, a.out(), short_w, all_columns(group_reduce::sum), -1, &text);
  CHECK(text.empty());
}

TEST_CASE("edges: nothing to score launches nothing that reads") {
  for (auto const& lengths : {std::vector<std::int32_t>{0, 0}, std::vector<std::int32_t>{0}}) {
    attention_shape s;
    s.cache.lengths = lengths, s.cache.spare_tokens = 4;
    attention_case a(s);
    layouts::cache<std::int32_t> cache(layout::hnd, s.cache);
    auto const values = there(cache, a.out(), a.queries(), window({4}));
    CHECK(values == std::vector<float>(values.size(), untouched));
    CHECK(there(cache, a.out(), a.queries(), all_columns(group_reduce::mean)) == values);
  }
}

}  // namespace attention_edges_test
