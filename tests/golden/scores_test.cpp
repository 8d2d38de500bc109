// SPDX-License-Identifier: Apache-2.0
// Scores and keep sets of the library against numbers of other implementations.
#include <regex>
#include <string>

#include <kvevict/kvevict.hpp>

#include "support/golden_scores.hpp"

namespace scores_test {

using namespace support;

namespace {

/// The queries of all tokens, without LSE, and with the fixture's in either base.
template <class F>
void for_each_lse(attention const& rows, golden::tensor const& natural, golden::tensor const& base2, F f) {
  auto const n = static_cast<std::int64_t>(natural.dim_from_end(0));
  std::vector<float> const e = natural.floats(), two = base2.floats();  // (Hq,N)
  f("no LSE", [&](auto const& view) { return kvevict::prompt(view, rows.queries()); });
  f("natural LSE", [&](auto const& view) { return kvevict::prompt(view, rows.queries()).with_lse(e.data(), 1, n); });
  f("LSE of base 2", [&](auto const& view) {
    return kvevict::prompt(view, rows.queries()).with_lse(two.data(), 1, n, kvevict::log_base::two);
  });
  f("softmax rows", [&](auto const& view) { return kvevict::prompt(view, rows.rows()); });
}

}  // namespace

TEST_CASE("golden: h2o_prefill, column sums and column means") {
  auto const file = golden::load("h2o_prefill");
  auto const in = golden::inputs().layer;
  attention const all = all_rows(batch_of(in));
  kvevict::policy const sums{kvevict::score::accumulated_attention{}};
  kvevict::policy const means{kvevict::score::accumulated_attention{kvevict::score::column_norm::rows_that_see}};
  for_each_lse(all, golden::as_tensor(file, "lse_natural"), golden::as_tensor(file, "lse_base2"),
               [&](char const* name, auto show) {
                 CAPTURE(name);
                 CHECK(worst(scores_of(in, sums, 1, show), golden::rows(file, "column_sums")) < 1e-5);
                 CHECK(worst(scores_of(in, means, 1, show), golden::rows(file, "column_means")) < float_noise);
               });
  auto const rows_that_see = golden::value<counts>(file, "rows_that_see");  // what the means are divided by
  rows const a = scores_of(in, sums, 1, [&](auto const& view) { return kvevict::prompt(view, all.queries()); });
  rows const b = scores_of(in, means, 1, [&](auto const& view) { return kvevict::prompt(view, all.queries()); });
  for (std::size_t j = 0; j < in.N(); ++j)
    CHECK(a[0][j] == Approx(b[0][j] * static_cast<double>(rows_that_see[j])).epsilon(1e-6));
}

TEST_CASE("golden: scores_kvpress, SnapKV") {
  auto const file = golden::load("scores_kvpress");
  auto const in = golden::inputs().layer;
  attention const all = all_rows(batch_of(in));
  int found = 0;
  std::regex const name("snapkv_w(\\d+)_k(\\d+)_(avg|max)");
  for (auto const& item : file.items()) {
    std::smatch part;
    if (!std::regex_match(item.key(), part, name)) continue;
    ++found;
    CAPTURE(item.key());
    auto const W = std::stoi(part[1]), k = std::stoi(part[2]);
    kvevict::pool_options const how{k, part[3] == "avg" ? kvevict::pooling::average : kvevict::pooling::max};
    rows const expected = first_columns(golden::rows(file, item.key()), in.N() - static_cast<std::size_t>(W));
    auto const policy = [&](kvevict::pool_options after, kvevict::pool_options before) {
      return kvevict::policy{kvevict::score::window_attention{W, after, kvevict::group_reduce::mean, before},
                             kvevict::protect{0, W}};
    };
    auto const show = [&](auto const& view) { return kvevict::prompt(view, all.queries()); };
    // kvpress pools before the group's mean
    CHECK(worst(scores_of(in, policy({}, how), W, show), expected) < float_noise);
    // they commute
    if (how.kind == kvevict::pooling::average)
      CHECK(worst(scores_of(in, policy(how, {}), W, show), expected) < float_noise);
  }
  CHECK(found > 0);
}

TEST_CASE("golden: scores_kvpress, key norms and observed attention") {
  auto const file = golden::load("scores_kvpress");
  auto const in = golden::inputs().layer;
  attention const all = all_rows(batch_of(in));
  auto const contents = [](auto const& view) { return kvevict::contents(view); };
  CHECK(worst(scores_of(in, kvevict::presets::knorm(), 1, contents), golden::rows(file, "knorm")) < 1e-5);
  kvevict::policy const means{kvevict::score::accumulated_attention{kvevict::score::column_norm::rows_that_see}};
  auto const show = [&](auto const& view) { return kvevict::prompt(view, all.queries()); };
  CHECK(worst(scores_of(in, means, 1, show), golden::rows(file, "observed_attention")) < float_noise);
}

TEST_CASE("golden: scores_kvpress, TOVA") {
  auto const file = golden::load("scores_kvpress");
  auto const in = golden::inputs().layer;
  attention const all = all_rows(batch_of(in));
  auto const show = [&](auto const& view) { return kvevict::prompt(view, all.queries()); };
  rows const expected = golden::rows(file, "tova");
  CHECK(worst(scores_of(in, kvevict::presets::tova(), 2, show), first_columns(expected, in.N() - 1)) < float_noise);
}

TEST_CASE("golden: scores_kvpress, KeyDiff") {
  auto const file = golden::load("scores_kvpress");
  auto const in = golden::inputs().layer;
  auto const contents = [](auto const& view) { return kvevict::contents(view); };
  CHECK(worst(scores_of(in, kvevict::presets::keydiff(), 1, contents), golden::rows(file, "keydiff")) < float_noise);
}

TEST_CASE("golden: scores_kvpress, LagKV") {
  auto const file = golden::load("scores_kvpress");
  auto const in = golden::inputs().layer;
  auto const contents = [](auto const& view) { return kvevict::contents(view); };
  int found = 0;
  std::regex const name("lagkv_(cross_)?sink(\\d+)_lag(\\d+)");
  for (auto const& item : file.items()) {
    std::smatch part;
    if (!std::regex_match(item.key(), part, name)) continue;
    ++found;
    CAPTURE(item.key());
    auto const by = part[1].matched ? kvevict::score::partition_score::share : kvevict::score::partition_score::rank;
    kvevict::score::relative_spread const score{std::stoi(part[2]), std::stoi(part[3]), by};
    CHECK(worst(scores_of(in, kvevict::policy{score}, 1, contents), golden::rows(file, item.key())) < float_noise);
  }
  CHECK(found == 2);
}

TEST_CASE("golden: scores_kvpress, streaming") {
  auto const file = golden::load("scores_kvpress");
  auto const in = golden::inputs().layer;
  std::regex const name("streaming_r([0-9.]+)_sink(\\d+)");
  int found = 0;
  for (auto const& item : file.items()) {
    std::smatch part;
    if (!std::regex_match(item.key(), part, name)) continue;
    ++found;
    CAPTURE(item.key());
    std::size_t const kept = reference::kvpress_count(in.N(), std::stod(part[1]));
    rows const expected = golden::rows(file, item.key());  // 1 kept, 0 pruned
    with_cache(batch_of(in), [&](auto& cache) {
      kvevict::host ctx;
      auto const keep = kvevict::plan(ctx, kvevict::presets::streaming_llm({.sinks = std::stoi(part[2])}),
                                      kvevict::contents(cache.view), {.tokens_per_head = int32(kept)});
      for (std::size_t h = 0; h < in.H(); ++h) {
        reference::row obtained(in.N(), 0.0);
        for (std::int32_t const j : keep(0, int32(h))) obtained[static_cast<std::size_t>(j)] = 1.0;
        CHECK(obtained == expected[h]);
      }
    });
  }
  CHECK(found > 0);
}

TEST_CASE("golden: ahakv, scores and keep sets") {
  auto const file = golden::load("ahakv");
  auto const in = golden::inputs().layer;
  attention const all = all_rows(batch_of(in));
  auto const check = [&](auto const& policy, golden::json const& c, std::size_t r, std::int32_t budget) {
    rows const expected = golden::rows(c, "scores");
    for (bool const eager : {false, true}) {  // from queries, and from softmax rows raised to the gain
      CAPTURE(eager, r, budget);
      auto const test = [&](auto show) {
        CHECK(worst(scores_of(in, policy, budget, show), expected) < 1e-5);
        with_cache(batch_of(in), [&](auto& cache) {
          kvevict::host ctx;
          index_rows const kept =
              rows_of_sequence(kvevict::plan(ctx, policy, show(cache.view), {.tokens_per_head = budget}), 0);
          index_rows const theirs = golden::index_rows(c, "keep");
          for (std::size_t h = 0; h < in.H(); ++h) {
            std::size_t const k = theirs[h].size() - r, M = in.N() - r;
            REQUIRE(kept[h].size() == theirs[h].size());
            auto const older = [&](index_row const& x) {
              return index_row(x.begin(), x.begin() + static_cast<std::ptrdiff_t>(k));
            };
            CHECK(golden::equal_up_to_ties(expected[h], k, older(theirs[h]), older(kept[h]), 1e-5));
            for (std::size_t j = 0; j < r; ++j) CHECK(kept[h][k + j] == M + j);
          }
        });
      };
      if (eager)
        test([&](auto const& view) { return kvevict::prompt(view, all.rows()); });
      else
        test([&](auto const& view) { return kvevict::prompt(view, all.queries()); });
    }
  };
  for (auto const& c : golden::member(file, "cases")) {
    auto const r = golden::size(c, "recent");
    auto const budget = golden::value<std::int32_t>(c, "budget");
    auto const weights =
        golden::value<bool>(c, "step_gain") ? kvevict::weighting::step_gain : kvevict::weighting::softmax;
    kvevict::score::recent_attention const score{int32(r), weights};
    kvevict::protect const newest{0, int32(r)};
    kvevict::pool_options const prior{golden::value<std::int32_t>(c, "value_pool"), kvevict::pooling::average};
    if (golden::value<bool>(c, "value_prior"))
      check(kvevict::policy{kvevict::score::value_prior{score, prior}, newest}, c, r, budget);
    else
      check(kvevict::policy{score, newest}, c, r, budget);
  }
}

}  // namespace scores_test
