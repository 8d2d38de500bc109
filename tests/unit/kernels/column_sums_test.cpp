// SPDX-License-Identifier: Apache-2.0
#include <kvevict/kernels/column_sums.hpp>

#include <kvevict/kernels/window_scores.hpp>
#include <kvevict/threads.hpp>

#include "support/allocations.hpp"
#include "support/attention_case.hpp"
#include "support/catch.hpp"

namespace kernels_column_sums_test {

using namespace kvevict;
using layouts::layout;
using reference::attention_case;
using reference::attention_shape;

namespace {

void check(attention_case& a, group_reduce how, double tolerance = 1e-5) {
  for (std::size_t r = 0; r < a.rows.size(); ++r) {
    row const& in = a.rows[r];
    std::vector<std::vector<double>> heads;
    for (std::int32_t g = 0; g < a.shape.group; ++g)
      heads.push_back(a.summed(in.sequence, in.head * a.shape.group + g, 0, in.tokens));
    auto const want = reference::reduced(heads, how);
    double worst = 0;
    for (std::size_t j = 0; j < want.size(); ++j)
      worst = std::max(worst, std::abs(double{a.values[static_cast<std::size_t>(a.begin[r]) + j]} - want[j]) / want[j]);
    CAPTURE(r, in.tokens, a.shape.group);
    CHECK(worst <= tolerance);
  }
}

std::vector<float> sums(attention_case& a, layout l, host& ctx, query_rows const& q,
                        group_reduce how = group_reduce::mean) {
  layouts::with_layout(l, a.shape.cache, [&](auto& cache) {
    a.fill(cache);
    kernels::column_sums(ctx, cache.view, q, how, a.out());
  });
  return a.values;
}

attention_shape shape_of(std::vector<std::int32_t> lengths, std::int32_t heads, std::int32_t group,
                         std::int32_t head_dim, std::uint64_t seed = 1) {
  attention_shape s;
  s.cache.lengths = std::move(lengths), s.cache.heads = heads, s.cache.head_dim = head_dim;
  s.group = group, s.seed = seed;
  return s;
}

}  // namespace

TEST_CASE("column sums are all the attention that a token has received") {
  host ctx;
  std::uint64_t seed = 1;
  constexpr std::int32_t tile = kernels::tile_tokens, strip = kernels::strip_tokens;
  for (std::int32_t const group : {1, 2, 3, 8})
    for (std::int32_t const D : {16, 20}) {
      attention_case a(shape_of({strip + 1, 5, tile, 1, 2 * tile - 1, 0}, 2, group, D, ++seed));
      for (auto const how : {group_reduce::mean, group_reduce::max, group_reduce::sum}) {
        sums(a, layout::bnsh, ctx, a.queries(), how);
        check(a, how);
        sums(a, layout::hnd, ctx, a.queries_with_lse(how == group_reduce::max ? log_base::two : log_base::e), how);
        check(a, how);
      }
    }
}

TEST_CASE("column sums of longer rows, softcap and scale") {
  host ctx;
  auto s = shape_of({3 * kernels::strip_tokens + 11}, 1, 2, 8);
  s.softcap = 3, s.scale = 0.4f;
  attention_case a(s);
  sums(a, layout::x_packed, ctx, a.queries());
  check(a, group_reduce::mean);
  sums(a, layout::x_packed, ctx, a.queries_with_lse(log_base::two));
  check(a, group_reduce::mean);
}

TEST_CASE("column sums of types") {
  host ctx;
  for (dtype const type : {dtype::f16, dtype::bf16}) {
    auto s = shape_of({90}, 2, 2, 24);
    s.cache.type = s.query_type = type;
    attention_case a(s);
    sums(a, layout::nhd, ctx, a.queries());
    check(a, group_reduce::mean);
  }
}

TEST_CASE("a row of attention sums to one, so all columns sum to N") {
  host ctx;
  attention_case a(shape_of({1500}, 1, 1, 8));
  sums(a, layout::bnsh, ctx, a.queries());
  double sum = 0;
  for (float const x : a.values) sum += double{x};
  CHECK(sum == Approx(1500.0).epsilon(1e-6));
}

TEST_CASE("no bit of a column sum depends on layout, page size or threads") {
  threads two(2), five(5);
  host serial, pair(two.as_executor(0)), many(five.as_executor(0));
  for (bool const lse : {false, true}) {
    attention_case a(shape_of({kernels::strip_tokens + 50, 31}, 2, 3, 24));
    query_rows const q = lse ? a.queries_with_lse(log_base::e) : a.queries();
    auto const first = sums(a, layout::bnsh, serial, q);
    for (std::int32_t const page : {1, 7, 64})
      for (layout const l : layouts::all) {
        a.shape.cache.page_size = page;
        CAPTURE(page, layouts::name_of(l), lse);
        CHECK(sums(a, l, pair, q) == first);
      }
    CHECK(sums(a, layout::bnsh, many, q) == first);
  }
}

TEST_CASE("column sums refuse what cannot be right") {
  host ctx;
  auto s = shape_of({60, 20}, 2, 2, 16);
  s.query_tokens = {60, 19};
  attention_case a(s);
  CHECK_THROWS_WITH(sums(a, layout::bnsh, ctx, a.queries()),
                    Catch::Contains("sequence 1 provides 19 query rows for 20 tokens"));
  a.rows[2].active = a.rows[3].active = false;
  CHECK_NOTHROW(sums(a, layout::bnsh, ctx, a.queries()));
  CHECK(a.values.back() == -7.0f);
  query_rows wrong = a.queries_with_lse(log_base::e);
  wrong.scale = 1;
  CHECK_THROWS_WITH(sums(a, layout::bnsh, ctx, wrong), Catch::Contains("log_base"));
  std::vector<std::int32_t> const positions(a.values.size(), 0);
  score_rows out = a.out();
  out.positions = positions.data();
  CHECK_THROWS_WITH(kernels::column_sums(ctx, layer_view<>{}, a.queries(), group_reduce::mean, out),
                    Catch::Contains("scattered"));
}

TEST_CASE("column sums allocate once and stay within their scratch bound") {
  threads two(2);
  for (bool const lse : {false, true}) {
    host ctx(two.as_executor(0));
    attention_case a(shape_of({300, 90, 7}, 2, 3, 24));
    query_rows const q = lse ? a.queries_with_lse(log_base::e) : a.queries();
    layouts::with_layout(layout::nhd, a.shape.cache, [&](auto& cache) {
      a.fill(cache);
      kernels::column_sums(ctx, cache.view, q, group_reduce::mean, a.out());
      auto const before = allocations();
      for (int i = 0; i < 5; ++i) kernels::column_sums(ctx, cache.view, q, group_reduce::mean, a.out());
      CHECK(allocations() == before);
      CHECK(static_cast<std::int64_t>(ctx.scratch().high_water()) <=
            kernels::column_sums_bytes(std::ssize(a.rows), a.begin.back(), {3, 24, 300, lse}, 2));
    });
  }
}

}  // namespace kernels_column_sums_test
