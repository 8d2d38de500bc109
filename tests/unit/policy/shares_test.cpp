// SPDX-License-Identifier: Apache-2.0
// Several scores with shares of one budget: the tokens of all turns, against a naive order of every candidate.
#include <kvevict/heads/over_ranks.hpp>
#include <kvevict/threads.hpp>

#include "support/batch_cache.hpp"
#include "support/shares.hpp"

namespace policy_shares_test {

using namespace support;
namespace score = kvevict::score;
namespace heads = kvevict::heads;

TEST_CASE("shares keep what a naive order of the candidates keeps, turn by turn, in every division among heads") {
  kvevict::threads pool(3);
  for (std::uint64_t seed = 1; seed <= 400; ++seed) {
    std::deque<std::vector<std::byte>> memory;
    shares::check(
        seed, [&](auto const& x) { return together::keep_bytes(memory, x); },
        [&](auto const& policy, auto const& view, kvevict::budget const& b) {
          kvevict::host ctx, threaded(pool.as_executor(0));
          auto const keep = plan(ctx, policy, kvevict::contents(view), b);
          CHECK(plan(threaded, policy, kvevict::contents(view), b).tokens == keep.tokens);
          kvevict::cache_shape const shape{view.sequences(), view.heads(), view.heads(), 1, 64,
                                           view.rows(),      view.rows()};
          CHECK(static_cast<std::int64_t>(ctx.scratch().high_water()) <= workspace_bytes(ctx, policy, shape));
          auto const counts = plan_counts(ctx, policy, view, b);
          for (std::int64_t r = 0; r < keep.rows(); ++r)
            if (std::int32_t const n = counts.rows[static_cast<std::size_t>(r)];
                n != kvevict::planned_counts::by_scores)
              CHECK(n == keep.row(r).size);
          for (std::int32_t s = 0; s < view.sequences(); ++s) {
            std::int64_t sum = 0;
            for (std::int32_t h = 0; h < view.heads(); ++h) sum += keep(s, h).size;
            std::int64_t const want = counts.sequences[static_cast<std::size_t>(s)];
            if (want != kvevict::planned_counts::by_scores) CHECK(sum == want);
          }
          return keep;
        });
  }
}

namespace {

using kept_rows = std::vector<std::vector<std::int32_t>>;

kept_rows rows_of(kvevict::keep_set const& keep) {
  kept_rows out;
  for (std::int64_t r = 0; r < keep.rows(); ++r) out.emplace_back(keep.row(r).begin(), keep.row(r).end());
  return out;
}

/// What 700 and 300 permille of one row keep beside `kept`, of `left` items with two scores each, newer ones first.
std::vector<std::int32_t> naive(std::set<std::size_t> kept, std::vector<std::size_t> left, std::size_t quota,
                                std::vector<std::vector<int>> const& scores) {
  std::vector<std::vector<std::int64_t>> order(1);
  for (std::size_t j = 0; j < scores[0].size(); ++j) order[0].push_back(static_cast<std::int64_t>(j));
  shares::sequence s{order, {std::move(left)}, {std::move(kept)}};
  shares::take_all(s, shares::division::rows, {700, 300}, {{scores[0]}, {scores[1]}}, {quota}, 0);
  return {s.kept[0].begin(), s.kept[0].end()};
}

/// What row r keeps of a policy whose rows have budgets of their own; `summed` over all rows of its sequence.
std::vector<std::int32_t> naive_row(shares::beside const& c, std::size_t r, bool summed, bool paged, bool seen) {
  auto const N = static_cast<std::size_t>(c.m.lengths[r]), P = paged ? std::size_t{4} : 1, n = N / P;
  auto const B = static_cast<std::size_t>(c.budget), H = static_cast<std::size_t>(c.m.H);
  std::vector<std::vector<int>> scores(2, std::vector<int>(n, 0));
  for (std::size_t t = 0; t < 2; ++t)
    for (std::size_t other = 0; other < c.m.rows(); ++other)
      for (std::size_t j = 0; j < n * P; ++j)
        if (other == r || (summed && other / H % 2 == r / H % 2))
          scores[t][j / P] += static_cast<int>(c.tables[t][c.m.at(other, j)]);
  std::set<std::size_t> kept;
  std::vector<std::size_t> left;
  std::size_t const recent = std::max<std::size_t>(1, (B + 3) / 4), room = (B - N % P) / P;
  for (std::size_t j = 0; j < n; ++j)
    if (j * P < 2 || (j + 1) * P > N - (paged ? 1 : recent)) kept.insert(j);
  for (std::size_t j = n; paged && j-- > 0;)  // the newest share of the budget, as far as whole pages hold it
    if ((j + 1) * P > N - recent && kept.size() < room) kept.insert(j);
  for (std::size_t j = 0; j < n; ++j)
    if (kept.count(j) == 0 && (!seen || j + 18 >= N)) left.push_back(j);
  return naive(kept, left, std::min(room - kept.size(), left.size()), scores);
}

std::vector<std::int32_t> tokens_of(std::vector<std::int32_t> const& pages, std::int32_t N) {
  std::vector<std::int32_t> out;
  for (std::int32_t const p : pages)
    for (std::int32_t i = 0; i < 4; ++i) out.push_back(4 * p + i);
  for (std::int32_t t = N / 4 * 4; t < N; ++t) out.push_back(t);
  return out;
}

}  // namespace

TEST_CASE("shares of whole pages, of one set for all heads and layers, and of what is seen, are a naive order's") {
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    shares::beside const c(seed);
    std::deque<std::vector<std::byte>> memory;
    c.each([&](auto const& x) { return together::keep_bytes(memory, x); },
           [&](std::string const& what, auto const& policy, auto const& view, auto const& ask, auto const& sees) {
             kvevict::host ctx;
             CAPTURE(seed, what, c.budget, c.m.lengths, c.m.L, c.m.H);
             auto const keep = plan(ctx, policy, kvevict::contents(view).with_visibility(sees), ask);
             std::int64_t const pool = 16 * view.rows();
             kvevict::cache_shape const shape{view.sequences(), view.heads(), view.heads(), 1, 64, pool, pool};
             CHECK(static_cast<std::int64_t>(ctx.scratch().high_water()) <= workspace_bytes(ctx, policy, shape));
             if (what != "seen") {
               auto const counts = plan_counts(ctx, policy, view, ask);
               for (std::int32_t b = 0; b < keep.sequences; ++b) {
                 std::int64_t sum = 0;
                 for (std::int32_t h = 0; h < keep.heads; ++h) sum += keep(b, h).size;
                 CHECK(sum == counts.sequences[static_cast<std::size_t>(b)]);
               }
             }
             bool const paged = what.find("pages") != std::string::npos, summed = what.find("one set") == 0;
             if (what.find("share") != std::string::npos) return;  // sums alone
             kept_rows const got = rows_of(keep);
             for (std::size_t r = 0; r < c.m.rows(); ++r) {
               std::int32_t const N = c.m.lengths[r];
               auto const want = naive_row(c, r, summed, paged, what == "seen");
               CAPTURE(r);
               if (N > c.budget) CHECK(got[r] == (paged ? tokens_of(want, N) : want));
             }
           });
  }
}

namespace {

struct broken {
  template <class Context, class Evidence>
  void operator()(Context& ctx, Evidence const&, kvevict::score_rows& out) const {
    kvevict::kernels::each_token(ctx, out, [](kvevict::row const& in, std::int64_t j, float& x) {
      x = in.sequence == 1 && j == 9 ? std::numeric_limits<float>::quiet_NaN() : 0;
    });
  }
};

}  // namespace

TEST_CASE("a sequence whose second score is at fault is kept whole with outcomes, and else refuses the plan") {
  shares::beside const c(3);
  kvevict::host ctx;
  std::deque<std::vector<std::byte>> memory;
  auto const put = [&](auto const& x) { return together::keep_bytes(memory, x); };
  auto const view = c.m.view(put);
  together::given const first{put(c.tables[0]), 64};
  kvevict::policy const p{score::shares{score::share{500, first}, score::share{500, broken{}}}};
  kvevict::budget const ask{.tokens_per_head = 12, .layer_count = c.m.L};
  kvevict::keep_set keep;
  CHECK_THROWS_WITH(plan(ctx, p, kvevict::contents(view), ask, keep), Catch::Contains("plan: the score of token 9"));
  CHECK(keep.refused);
  std::vector<kvevict::outcome> outcomes;
  plan(ctx, p, kvevict::contents(view), ask, keep, outcomes);
  for (std::int32_t b = 0; b < keep.sequences; ++b)
    CHECK(keep(b, 0).size == (b == 1 ? c.m.lengths[static_cast<std::size_t>(c.m.H)] : 12));
  CHECK_FALSE(outcomes[1].sound());
}

TEST_CASE("shares that do not add up are refused when they are made, and scores() tells the first one's") {
  CHECK_THROWS_WITH((score::shares{score::share{700, score::none{}}, score::share{299, score::none{}}}),
                    Catch::Contains("shares: they add up to 999 thousandths"));
  CHECK_THROWS_WITH((score::shares{score::share{1100, score::none{}}, score::share{-100, score::none{}}}),
                    Catch::Contains("one is negative"));
  shares::beside const c(5);
  kvevict::host ctx;
  std::deque<std::vector<std::byte>> memory;
  auto const put = [&](auto const& x) { return together::keep_bytes(memory, x); };
  auto const view = c.m.view(put);
  together::given const each[] = {{put(c.tables[0]), 64}, {put(c.tables[1]), 64}};
  kvevict::policy const p{score::shares{score::share{1, each[0]}, score::share{999, each[1]}}};
  kvevict::budget const ask{.tokens_per_head = 12, .layer_count = c.m.L};
  std::vector<float> got, want;
  kvevict::scores(ctx, p, kvevict::contents(view), ask, got);
  kvevict::scores(ctx, p.with(each[0]), kvevict::contents(view), ask, want);
  CHECK(got == want);
  kvevict::scores(ctx, p.with(p.score.at<1>().score), kvevict::contents(view), ask, got);
  CHECK(got != want);
  // one score in every share is that score
  kvevict::policy const alike{score::shares{score::share{400, each[0]}, score::share{600, each[0]}}};
  CHECK(plan(ctx, alike, kvevict::contents(view), ask).tokens ==
        plan(ctx, p.with(each[0]), kvevict::contents(view), ask).tokens);
}

namespace {

struct alone {
  template <class... Any> void operator()(Any&&...) const {}
};

}  // namespace

TEST_CASE("several processes divide all shares together, or are refused") {
  shares::beside const c(4);
  kvevict::host ctx;
  std::deque<std::vector<std::byte>> memory;
  auto const put = [&](auto const& x) { return together::keep_bytes(memory, x); };
  auto const view = c.m.view(put);
  together::given const each[] = {{put(c.tables[0]), 64}, {put(c.tables[1]), 64}};
  score::shares const both{score::share{400, each[0]}, score::share{600, each[1]}};
  kvevict::policy const p{both};
  heads::over_ranks<alone> const ranks{{}, c.m.H};
  kvevict::budget const ask{.tokens_per_head = 12, .layer_count = c.m.L};
  auto const e = kvevict::contents(view);
  CHECK_THROWS_WITH(plan(ctx, p.with(ranks), e, ask), Catch::Contains("dividing(heads_divide::whole_budget)"));
  auto const once = p.with(both.dividing(score::heads_divide::whole_budget));
  CHECK(plan(ctx, once.with(ranks), e, ask).tokens == plan(ctx, once.with(heads::over_layers{}), e, ask).tokens);
}

TEST_CASE("shares of which one remembers observe into its state, and plan from it") {
  batch const in = random_batch(7, {.Hq = 4, .H = 2, .D = 16, .N = {40, 25}, .future = 0});
  attention const rows = all_rows(in);
  auto const observed = [&](auto const& policy, auto const& f) {
    layouts::cache_shape shape = cache_shape_of(in);
    shape.state_floats = 1;
    with_cache(layouts::layout::head_pages, shape, in, [&](auto& cache) {
      kvevict::host ctx;
      kvevict::observe(ctx, policy, kvevict::prompt(cache.view, rows.queries()), {.tokens_per_head = 12});
      f(plan(ctx, policy, kvevict::remembered(cache.view), {.tokens_per_head = 12}), cache.snapshot());
    });
  };
  score::accumulated_attention const sums;
  kvevict::policy const one{sums};
  kvevict::policy const two{score::shares{score::share{500, score::key_diversity{}}, score::share{500, sums}}};
  observed(one, [&](kvevict::keep_set const& alone, auto const& bytes) {
    observed(two, [&](kvevict::keep_set const& both, auto const& same) {
      CHECK(bytes == same);
      CHECK(both.row_begin == alone.row_begin);
      CHECK(both.tokens != alone.tokens);
    });
  });
}

TEST_CASE("a score that refines finds the scores of the share before it, whatever was done to rank them") {
  auto const seed = static_cast<std::uint64_t>(GENERATE(range(1, 12)));
  shares::beside const c(seed);
  std::deque<std::vector<std::byte>> memory;
  auto const put = [&](auto const& x) { return together::keep_bytes(memory, x); };
  std::vector<float> sum;
  for (std::size_t i = 0; i < c.tables[0].size(); ++i) sum.push_back(3 * c.tables[0][i] + c.tables[1][i]);
  together::given const first{put(c.tables[0]), 64}, second{put(c.tables[1]), 64}, both{put(sum), 64};
  kvevict::policy const refined{
      score::shares{score::share{500, first}, score::share{500, shares::on_top_of_it{second}}}};
  kvevict::policy const plain{score::shares{score::share{500, first}, score::share{500, both}}};
  kvevict::budget const ask{.tokens_per_head = 12, .layer_count = c.m.L};
  auto const same = [&](auto const& change, kvevict::visibility const& sees) {
    kvevict::host ctx;
    auto const e = kvevict::contents(c.m.view(put)).with_visibility(sees);
    CHECK(plan(ctx, change(refined), e, ask).tokens == plan(ctx, change(plain), e, ask).tokens);
  };
  same([](auto const& p) { return p; }, kvevict::visibility{.window = 14});
  same([](auto const& p) { return p.with(heads::together{}); }, kvevict::visibility{});
  same([](auto const& p) { return p.with(kvevict::layers::together{}); }, kvevict::visibility{});
}

}  // namespace policy_shares_test
