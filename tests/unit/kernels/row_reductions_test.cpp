// SPDX-License-Identifier: Apache-2.0
// Sums, maxima and minima over the tokens of rows on the host.
#include <kvevict/kernels/row_reductions.hpp>

#include <kvevict/kernels/each.hpp>
#include <kvevict/threads.hpp>

#include "support/allocations.hpp"
#include "support/row_case.hpp"

namespace kernels_row_reductions_test {

using namespace kvevict;
using support::reduction;

namespace {

layouts::cache_shape shape_of(std::int32_t head_dim, dtype type, std::int32_t page_size) {
  layouts::cache_shape s;
  s.lengths = {150, 3, 0, 64}, s.heads = 2, s.head_dim = head_dim, s.type = type, s.page_size = page_size;
  return s;
}
template <class Cache> void fill(Cache& cache) {
  cache.fill([](int b, int h, int t, int d) { return std::sin(b + 3 * h + 7 * t + 11 * d); },
             [](int b, int h, int t, int d) { return std::cos(b + 3 * h + 7 * t + 11 * d); });
}

constexpr token_groups cuts[] = {{}, {3, 7}, {0, 64}, {1, 0, token_range::evictable}, {4, 11, token_range::evictable}};

}  // namespace

TEST_CASE("reductions over rows are what they are in double, the same bits for every layout, page size and thread") {
  threads three(3);
  for (reduction const how : {reduction::sum, reduction::max, reduction::min})
    for (token_groups const& groups : cuts) {
      std::vector<float> first;
      for (dtype const type : {dtype::f32, dtype::bf16})
        for (std::int32_t const page : {2, 16})
          layouts::for_each_layout(shape_of(24, type, page), [&](auto& cache) {
            CAPTURE(cache.name(), page, groups.first, groups.size, name_of(type), static_cast<int>(how));
            fill(cache);
            auto in = support::rows_of(cache);
            score_rows const rows = support::host_rows(in);
            component const& v = *cache.view.find(role::v);
            support::times_score const f{row_elements{cache.view, v}, rows};
            host serial, threaded(three.as_executor(0));
            std::vector<float> got(static_cast<std::size_t>(rows.count() * groups.count(rows.most_tokens) * 24), 77.0f);
            auto other = got;
            reduce(how, serial, rows, groups, 24, f, got.data());
            reduce(how, threaded, rows, groups, 24, f, other.data());
            CHECK(got == other);
            support::check_close(
                got, support::reduced(how, rows, groups, rows.most_tokens, 24, [&](row const& it, auto j, auto c) {
                  return static_cast<double>(cache.get(v, it.sequence, it.head, static_cast<int>(j), c)) *
                         static_cast<double>(rows.score(it, j));
                }));
            if (type == dtype::f32 && first.empty()) first = got;
            if (type == dtype::f32) CHECK(got == first);
          });
    }
}

TEST_CASE("reductions of one number a token, and of more channels than are read at once") {
  layouts::with_layout(layouts::layout::nhd, shape_of(8, dtype::f32, 4), [&](auto& cache) {
    auto in = support::rows_of(cache);
    score_rows const rows = support::host_rows(in);
    host ctx;
    for (reduction const how : {reduction::sum, reduction::max, reduction::min})
      for (token_groups const& groups : cuts) {
        std::vector<float> got(static_cast<std::size_t>(rows.count() * groups.count(rows.most_tokens)), 77.0f);
        reduce(how, ctx, rows, groups, 1, support::score_alone{rows}, got.data());
        support::check_close(
            got, support::reduced(how, rows, groups, rows.most_tokens, 1,
                                  [&](row const& it, auto j, int) { return static_cast<double>(rows.score(it, j)); }));
      }
    auto const f = [](row const&, std::int64_t j, std::int32_t first, float(&x)[row_chunk]) {
      for (std::int32_t i = 0; i < row_chunk; ++i) x[i] = static_cast<float>(j * (first + i));
    };
    std::vector<float> got(static_cast<std::size_t>(rows.count() * 19 + 1), 77.0f);
    kernels::row_sums(ctx, rows, token_groups{}, 19, f, got.data());
    CHECK(got.back() == 77.0f);
    got.pop_back();
    support::check_close(got, support::reduced(reduction::sum, rows, {}, 150, 19,
                                               [](row const&, auto j, auto c) { return static_cast<double>(j * c); }));
  });
}

TEST_CASE("a NaN hides behind nothing, rows without tokens hold what nothing is, and nothing is allocated") {
  layouts::with_layout(layouts::layout::nhd, shape_of(8, dtype::f32, 4), [&](auto& cache) {
    for (std::size_t const at : {0u, 63u, 64u, 149u}) {
      auto in = support::rows_of(cache);
      in.values[at] = std::numeric_limits<float>::quiet_NaN();
      score_rows const rows = support::host_rows(in);
      host ctx;
      for (reduction const how : {reduction::sum, reduction::max, reduction::min}) {
        std::vector<float> got(static_cast<std::size_t>(rows.count()));
        auto const before = allocations();
        reduce(how, ctx, rows, {}, 1, support::score_alone{rows}, got.data());
        CHECK(allocations() == before);
        CHECK(std::isnan(got[0]));
        float const none = how == reduction::sum ? 0.0f : how == reduction::max ? -INFINITY : INFINITY;
        CHECK(got[4] == none);
        CHECK(got[5] == none);
      }
    }
  });
}

TEST_CASE("reductions refuse widths and groups that mean nothing") {
  layouts::with_layout(layouts::layout::nhd, shape_of(8, dtype::f32, 4), [&](auto& cache) {
    auto in = support::rows_of(cache);
    score_rows const rows = support::host_rows(in);
    host ctx;
    float x = 0;
    support::score_alone const f{rows};
    CHECK_THROWS_WITH(kernels::row_sums(ctx, rows, token_groups{}, 0, f, &x), Catch::Contains("a width of 0"));
    CHECK_THROWS_WITH(kernels::row_max(ctx, rows, token_groups{}, 2, f, &x), Catch::Contains("gives one number"));
    CHECK_THROWS_WITH(kernels::row_min(ctx, rows, token_groups{-1}, 1, f, &x), Catch::Contains("negative"));
  });
}

TEST_CASE("each_row calls once for every active row") {
  layouts::with_layout(layouts::layout::nhd, shape_of(8, dtype::f32, 4), [&](auto& cache) {
    auto in = support::rows_of(cache);
    score_rows const rows = support::host_rows(in);
    host ctx;
    std::vector<std::int64_t> calls(in.rows.size(), 0);
    kernels::each_row(ctx, rows, [&](row const& it, std::int64_t r) {
      CHECK(rows.index_of(it) == r);
      calls[static_cast<std::size_t>(r)] += 1 + it.tokens;
    });
    CHECK(calls == std::vector<std::int64_t>{151, 151, 4, 4, 1, 1, 65, 0});
  });
}

}  // namespace kernels_row_reductions_test
