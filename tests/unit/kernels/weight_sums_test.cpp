// SPDX-License-Identifier: Apache-2.0
// An LSE belongs to these logits when each row's weights add up to one.
#include <kvevict/kernels/column_sums.hpp>
#include <kvevict/kernels/window_scores.hpp>
#include <kvevict/threads.hpp>

#include <cmath>
#include <functional>

#include "support/attention_case.hpp"
#include "support/catch.hpp"

namespace kernels_weight_sums_test {

using namespace kvevict;
using layouts::layout;
using reference::attention_case;
using reference::attention_shape;

namespace {

attention_shape shape_of(std::int32_t tokens, float spread = 1, dtype keys = dtype::f32) {
  attention_shape s;
  s.cache.lengths = {tokens, 20}, s.cache.heads = 2, s.cache.head_dim = 32, s.cache.type = keys;
  s.group = 2, s.spread = spread;
  return s;
}

/// Both kernels that read an LSE; what they say, or nothing.
std::string said(attention_case& a, query_rows const& q) {
  std::string out;
  auto const keep = [&](std::function<void()> const& call) {
    try {
      call();
      out += "accepted. ";
    } catch (contract_violation const& e) {
      out += std::string(e.what()) + ". ";
    }
  };
  host ctx;
  layouts::with_layout(layout::hnd, a.shape.cache, [&](auto& cache) {
    a.fill(cache);
    keep([&] { kernels::window_scores(ctx, cache.view, q, window_options{4, row_reduce::sum}, a.out()); });
    keep([&] { kernels::column_sums(ctx, cache.view, q, group_reduce::mean, a.out()); });
    threads pool(3);
    host parallel(pool.as_executor());
    keep([&] { kernels::window_scores(parallel, cache.view, q, window_options{4, row_reduce::sum}, a.out()); });
  });
  return out;
}
constexpr char const* accepted = "accepted. accepted. accepted. ";

std::size_t count(std::string const& text, std::string const& part) {
  std::size_t n = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

}  // namespace

TEST_CASE("an LSE of other logits is refused, by the sum of a row's weights and its likely cause") {
  attention_case a(shape_of(200));
  query_rows const honest = a.queries_with_lse(log_base::e);
  CHECK(said(a, honest) == accepted);
  std::vector<float> values(honest.lse, honest.lse + 220 * 4);
  // one row among all, the newest of sequence 0 and its third head
  auto const with = [&](float x) {
    auto changed = values;
    changed[199 * 4 + 2] = x;
    query_rows q = honest;
    q.lse = changed.data();
    return said(a, q);
  };
  std::string const where = "sequence 0, head 1: the attention weights of row 199 of query head 2 add up to ";
  auto const infinite = with(HUGE_VALF);
  CHECK(count(infinite, where + "0.000000 instead of 1") == 3);
  CHECK(count(infinite, "the LSE is infinite") == 3);
  CHECK(count(with(5e4f), where + "0.000000 instead of 1") == 3);
  CHECK(count(with(values[199 * 4 + 2] + 0.01f), where + "0.99") == 3);
  CHECK(count(with(values[199 * 4 + 2] - 0.01f), where + "1.01") == 3);
  CHECK(with(values[199 * 4 + 2] + 5e-4f) == accepted);
  CHECK(with(-HUGE_VALF) == accepted);  // a row that sees nothing counts for nothing

  auto const two = said(a, a.queries_with_lse(log_base::two));
  CHECK(two == accepted);
  query_rows as_natural = a.queries_with_lse(log_base::two);
  as_natural.base = log_base::e;
  CHECK(count(said(a, as_natural), "say log_base::two") == 3);
  query_rows as_two = a.queries_with_lse(log_base::e);
  as_two.base = log_base::two;
  CHECK(count(said(a, as_two), "say log_base::e") == 3);
  query_rows other_scale = a.queries_with_lse(log_base::e);
  other_scale.scale = 0.25f;
  CHECK(count(said(a, other_scale), "add up to") == 3);
}

TEST_CASE("a sum below one is right where the engine's softmax went over more tokens") {
  attention_case a(shape_of(100));
  query_rows q = a.queries_with_lse(log_base::e, true, 4);  // of four shards
  CHECK(count(said(a, q), "say so: .with_lse(…).partial()") == 3);
  q.sum = row_sum::at_most_one;
  CHECK(said(a, q) == accepted);
  q = a.queries_with_lse(log_base::e, true, 0.9);
  q.sum = row_sum::at_most_one;
  CHECK(count(said(a, q), "add up to 1.1") == 3);
}

TEST_CASE("a learned sink is a part of the sum") {
  attention_case a(shape_of(60));
  query_rows q = a.queries_with_lse(log_base::e);
  std::vector<float> const sinks{1, -1, 0.5f, 2};
  std::vector<float> lse(q.lse, q.lse + 80 * 4);
  for (std::size_t i = 0; i < lse.size(); ++i)
    lse[i] = static_cast<float>(std::log(std::exp(double{lse[i]}) + std::exp(double{sinks[i % 4]})));
  q.lse = lse.data();
  CHECK(count(said(a, q), "add up to 0.") == 3);
  q.sink_logits = sinks.data();
  CHECK(said(a, q) == accepted);
}

TEST_CASE("an honest LSE is accepted whatever its storage and size") {
  for (std::uint64_t seed = 1; seed <= 6; ++seed) {
    CAPTURE(seed);
    for (float const spread : {1.0f, 4.0f, 30.0f}) {  // logits up to some thousands
      attention_shape s = shape_of(300, spread);
      s.seed = seed;
      attention_case a(s);
      CHECK(said(a, a.queries_with_lse(log_base::e)) == accepted);
      CHECK(said(a, a.queries_with_lse(log_base::two)) == accepted);
    }
    for (dtype const keys : {dtype::bf16, dtype::f16})
      for (float const spread : {1.0f, 3.0f}) {  // the engine's attention read keys in float, before they were rounded
        attention_shape s = shape_of(300, spread);
        s.seed = seed;
        attention_case before(s);
        query_rows const q = before.queries_with_lse(log_base::e);
        s.cache.type = keys;
        attention_case rounded(s);
        CAPTURE(name_of(keys), spread);
        CHECK(said(rounded, q) == accepted);
      }
  }
}

TEST_CASE("no rounding makes up for a key or a query that is infinite") {
  for (std::int32_t const rows : {1, 20})
    for (bool const of_key : {true, false})
      for (float const bad : {HUGE_VALF, -HUGE_VALF}) {
        attention_case a(shape_of(100));
        query_rows const q = a.queries_with_lse(log_base::e);
        if (!of_key) a.numbers_of_queries()[99 * 4 * 32 + 5] = bad, a.store_queries();
        layouts::with_layout(layout::hnd, a.shape.cache, [&](auto& cache) {
          a.fill(cache);
          if (of_key) cache.set(*cache.view.find(role::k), 0, 0, 7, 3, bad);
          host ctx;
          CAPTURE(rows, of_key, bad);
          auto const refused = [&](auto const& call) {
            CHECK_THROWS_WITH(call(),
                              Catch::Contains("head 0: the attention weights of row") && Catch::Contains("add up to"));
          };
          refused([&] { kernels::window_scores(ctx, cache.view, q, window_options{rows}, a.out()); });
          refused([&] { kernels::column_sums(ctx, cache.view, q, group_reduce::mean, a.out()); });
        });
      }
}

TEST_CASE("keys that no row sees may be anything, and an honest LSE is accepted") {
  for (float const garbage : {HUGE_VALF, std::nanf("")}) {
    attention_shape s = shape_of(300, 3);
    attention_case before(s);
    std::int32_t const padding[] = {40, 0};
    std::vector<float> lse;
    for (std::int32_t b = 0; b < 2; ++b)
      for (std::int32_t i = 0; i < before.query_tokens(b); ++i)
        for (std::int32_t hq = 0; hq < before.query_heads(); ++hq) {
          double sum = 0;
          for (std::int32_t j = padding[b]; j <= i; ++j) sum += std::exp(before.logit(b, hq, i, j));
          lse.push_back(static_cast<float>(std::log(sum)));
        }
    s.cache.type = dtype::bf16;
    attention_case a(s);
    query_rows q = a.queries();
    q.lse = lse.data(), q.lse_token_stride = 4, q.lse_head_stride = 1, q.sees.first_token = padding;
    layouts::with_layout(layout::hnd, a.shape.cache, [&](auto& cache) {
      a.fill(cache);
      for (int h = 0; h < 2; ++h) cache.set(*cache.view.find(role::k), 0, h, 7, 3, garbage);
      host ctx;
      CAPTURE(garbage);
      for (std::int32_t const rows : {1, 20})
        CHECK_NOTHROW(kernels::window_scores(ctx, cache.view, q, window_options{rows}, a.out()));
      CHECK_NOTHROW(kernels::column_sums(ctx, cache.view, q, group_reduce::mean, a.out()));
    });
  }
}

}  // namespace kernels_weight_sums_test
