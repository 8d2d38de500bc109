// SPDX-License-Identifier: Apache-2.0
// observe() in shards and behind padding; what reads padding as tokens is refused.
#include "support/by_position.hpp"

#include <kvevict/presets/all.hpp>

namespace policy_by_position_test {

using namespace support;
using Catch::Contains;

namespace {

struct seeing {
  template <class Policy, class Cache, class Rows>
  void operator()(Policy const& policy, Cache& cache, Rows rows, kvevict::older_tokens older,
                  std::vector<std::int32_t> const& first) const {
    kvevict::host ctx;
    if (!first.empty()) rows.sees.first_token = first.data();
    kvevict::observe(ctx, policy, kvevict::prompt(cache.view, rows).with_older(older), {.tokens_per_head = 16});
  }
};

}  // namespace

TEST_CASE("by position: a shard observes rows whose tokens other processes hold") {
  shards_observe_by_position(seeing{});
}

TEST_CASE("by position: rows and new tokens that do not meet are refused") {
  rows_and_tokens_must_meet([](auto& cache, auto const& rows, std::string const& what) {
    auto const before = cache.snapshot();
    CHECK_THROWS_WITH(seeing{}(kvevict::presets::h2o(), cache, rows, kvevict::older_tokens::observed, {}),
                      Contains(what));
    CHECK((cache.snapshot() == before));
  });
}

TEST_CASE("by position: padding on the left is no token, whether the cache carries positions or not") {
  padding_is_no_token(seeing{});
}

TEST_CASE("by position: a padded sequence keeps what it would keep without padding, and drops padding first") {
  std::vector<std::int32_t> const first{5, 0};
  placed_tokens it(behind_padding(first), 1, true);
  it.set_state(0);
  auto const h2o = kvevict::presets::h2o();
  kvevict::host ctx;
  attention const all = all_rows(it.in);
  seeing{}(h2o, it.cache, all.queries(), kvevict::older_tokens::none, first);
  auto const state = kvevict::remembered(it.cache.view).with_visibility({.first_token = first.data()});
  auto const keep = kvevict::plan(ctx, h2o, state, {.tokens_per_head = 16});
  for (int b = 0; b < 2; ++b)
    for (int h = 0; h < 2; ++h) {
      std::vector<std::pair<double, int>> best;
      int const n = b == 0 ? 40 : 30, recent = 8, pad = first[std::size_t(b)];
      for (int p = 0; p < n - recent; ++p)
        best.emplace_back(-paid(it.in, std::size_t(b), std::size_t(h), std::size_t(p), 0, std::size_t(n)), pad + p);
      std::sort(best.begin(), best.end());
      std::vector<std::int32_t> want;
      for (std::size_t i = 0; i < 8; ++i) want.push_back(best[i].second);
      for (int p = n - recent; p < n; ++p) want.push_back(pad + p);
      std::sort(want.begin(), want.end());
      auto const row = keep(b, h);
      CHECK(std::vector<std::int32_t>(row.begin(), row.end()) == want);
    }
}

TEST_CASE("by position: tokens behind padding have the scores that they have without it") {
  std::vector<std::int32_t> const first{5, 0};
  auto const plain = behind_padding({0, 0}), padded = behind_padding(first);
  namespace score = kvevict::score;
  kvevict::host ctx;
  for (bool const carried : {false, true}) {
    placed_tokens with(padded, 0, carried), without(plain, 0, carried);
    attention const all = last_rows(with.in, 8);
    auto const look = [&](char const* name, auto const& policy) {
      std::vector<float> behind, alone;
      kvevict::visibility const sees{.first_token = first.data()};
      kvevict::budget const ask{.tokens_per_head = 16};
      scores(ctx, policy, kvevict::prompt(with.cache.view, all.queries()).with_visibility(sees), ask, behind);
      scores(ctx, policy, kvevict::prompt(without.cache.view, all.queries()), ask, alone);
      CAPTURE(name, carried);
      std::size_t at = 0, there = 0;
      for (std::size_t b = 0; b < 2; ++b)
        for (int h = 0; h < 2; ++h) {
          there += std::size_t(first[b]);
          for (std::size_t j = 0; j < with.in.N[b]; ++j, ++at, ++there)
            if (j + 8 < with.in.N[b]) CHECK(behind[there] == Approx(alone[at]).epsilon(1e-5));
        }
    };
    kvevict::protect const recent{.sinks = 0, .recent = 8};
    for (std::int32_t const width : {1, 5, 33}) {
      look("largest", kvevict::policy{score::largest_attention{8, width}, recent});
      look("window", kvevict::policy{score::window_attention{8, {width}}, recent});
      look("change", kvevict::policy{score::output_change{8, {width, kvevict::pooling::average}}, recent});
      for (auto const kind : {kvevict::pooling::max, kvevict::pooling::average})
        look("pooled", kvevict::policy{score::pooled{score::key_norm{}, {width, kind}}, recent});
    }
    look("varying", kvevict::presets::cake({.window = 8}));
  }
}

TEST_CASE("by position: what lies in padding refuses nothing, and is in no page's score") {
  std::vector<std::int32_t> const first{5, 0};
  placed_tokens it(behind_padding(first), 0, false);
  it.cache.fill(kvevict::role::k, [&](int b, int h, int t, int d) {
    int const p = it.at(b, t);
    return p < 0 ? std::numeric_limits<float>::quiet_NaN()
                 : it.in.layers[std::size_t(b)].keys.at(std::size_t(h), std::size_t(p), std::size_t(d));
  });
  kvevict::host ctx;
  kvevict::budget const ask{.tokens_per_head = 16};
  auto const e = kvevict::contents(it.cache.view).with_visibility({.first_token = first.data()});
  auto const by_tokens = kvevict::policy{kvevict::score::key_norm{}, kvevict::protect{}};
  std::vector<float> of_tokens, of_pages;
  scores(ctx, by_tokens, e, ask, of_tokens);
  for (auto const reduce : {kvevict::page_reduce::mean, kvevict::page_reduce::max}) {
    auto const by_pages = by_tokens.with(kvevict::select::pages{reduce});
    scores(ctx, by_pages, e, ask, of_pages);
    for (std::size_t h = 0; h < 2; ++h) {
      std::size_t const r = h * 45, page = h * 11 + 1;  // whose first token is padding, too
      double const sum = double{of_tokens[r + 5]} + of_tokens[r + 6] + of_tokens[r + 7],
                   most = std::max({of_tokens[r + 5], of_tokens[r + 6], of_tokens[r + 7]});
      CHECK(of_pages[page] == Approx(reduce == kvevict::page_reduce::max ? most : sum / 3));
    }
    auto const keep = plan(ctx, by_pages, e, ask);
    for (int h = 0; h < 2; ++h) CHECK((keep(0, h).size > 0 && *keep(0, h).begin() >= 4));
  }
}

TEST_CASE("by position: what would take padding for tokens is refused") {
  std::vector<std::int32_t> const first{5, 0};
  std::vector<std::vector<int>> padded{std::vector<int>(45, -1), std::vector<int>(30, 0)};
  placed_tokens it(padded, 1, false);
  kvevict::host ctx;
  auto const refuses = [&](auto const& policy, std::string const& what) {
    auto const e = kvevict::contents(it.cache.view).with_visibility({.first_token = first.data()});
    CHECK_THROWS_WITH(kvevict::plan(ctx, policy, e, {.tokens_per_head = 16}),
                      Contains(what) && Contains("first_token") && Contains("a view whose rows begin with a token"));
  };
  refuses(kvevict::presets::streaming_llm(), "plan: the policy protects the first 4 slots");
  refuses(kvevict::presets::keydiff(), "key_diversity: it reads all slots of a row together");
  refuses(kvevict::presets::manifoldkv(), "key_distance: ");
  refuses(kvevict::presets::leverage({.sinks = 0}), "leverage: ");
  refuses(kvevict::presets::lagkv({.lag = 4, .sinks = 0}), "relative_spread: ");
  attention const rows = all_rows(it.in);
  auto const refuses_queries = [&](auto const& policy, std::string const& what) {
    auto const e = kvevict::prompt(it.cache.view, rows.queries()).with_visibility({.first_token = first.data()});
    CHECK_THROWS_WITH(kvevict::plan(ctx, policy, e, {.tokens_per_head = 16}),
                      Contains(what) && Contains("a view whose rows begin with a token"));
  };
  refuses_queries(kvevict::presets::expected_attention({.sinks = 0}), "expected_attention: it reads all slots");
  refuses_queries(kvevict::presets::capkv({.sinks = 0}), "value_capacity: it reads all slots");
}

}  // namespace policy_by_position_test
