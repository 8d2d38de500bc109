// SPDX-License-Identifier: Apache-2.0
// What keep sets say of themselves: overlap, places, ranges; why a token stays or goes; an engine's counters.
#include <kvevict/kvevict.hpp>
#include <kvevict/measure/measure.hpp>

#include <map>
#include <set>

#include "support/batch_cache.hpp"
#include "support/catch.hpp"
#include "support/keep_sets.hpp"

namespace measure_keep_sets_test {

using namespace support;
namespace measure = kvevict::measure;
namespace presets = kvevict::presets;
using kvevict::role;
using measure::rule;

namespace {

batch const& input() {
  static batch const in = random_batch(21, {.Hq = 4, .H = 2, .N = {60, 33}});
  return in;
}
template <class F> void with_view(F f) {
  with_cache(input(), [&](auto& cache) {
    kvevict::host ctx;
    f(ctx, cache);
  });
}
std::set<std::int32_t> set_of(kvevict::keep_set const& keep, std::int64_t r) {
  return {keep.row(r).begin(), keep.row(r).end()};
}

}  // namespace

TEST_CASE("measure: the overlap of two keep sets is that of sets") {
  with_view([&](kvevict::host&, auto& cache) {
    reference::generator random(1);
    for (int i = 0; i < 20; ++i) {
      auto const a = random_keep(random, cache.view, true), b = random_keep(random, cache.view, true);
      auto const found = measure::overlaps(a, b);
      double both_all = 0, any_all = 0;
      for (std::int64_t r = 0; r < 4; ++r) {
        auto const x = set_of(a, r), y = set_of(b, r);
        std::set<std::int32_t> any = x;
        any.insert(y.begin(), y.end());
        double both = 0;
        for (std::int32_t const j : x) both += y.count(j) != 0 ? 1 : 0;
        both_all += both, any_all += static_cast<double>(any.size());
        CHECK(found.of_rows[static_cast<std::size_t>(r)] ==
              Approx(any.empty() ? 1 : both / static_cast<double>(any.size())));
      }
      CHECK(measure::overlap(a, b) == Approx(any_all == 0 ? 0 : both_all / any_all));
      CHECK(found.least() <= found.most());
      CHECK(measure::overlap(a, a) == (a.kept() == 0 ? 0 : 1));
    }
    auto const a = random_keep(random, cache.view, true);
    auto shape = a, length = a, refused = a;
    shape.sequences = 1, shape.heads = 4, length.lengths[3] = 34, refused.refused = true;
    CHECK(refusal([&] {
            measure::overlap(a, shape);
          }).find("overlap: keep sets of 2 sequences with 2 heads and of 1") == 0);
    CHECK(refusal([&] { measure::overlap(a, length); }).find("overlap: sequence 1, head 1 has 33 tokens in one") == 0);
    CHECK(refusal([&] { measure::overlap(refused, a); }).find("overlap") == 0);
    CHECK(refusal([&] { measure::overlaps(a, a)(2, 0); }).find("measure: there is no sequence 2") == 0);
  });
}

TEST_CASE("measure: places are positions, bins share a row evenly, and ranges are counted over heads") {
  with_view([&](kvevict::host& ctx, auto& cache) {
    // gaps: token j of sequence 1 is at position 3j
    auto const& at = *cache.view.find(role::position);
    for (std::int32_t h = 0; h < 2; ++h)
      for (std::int32_t j = 0; j < 33; ++j) *reinterpret_cast<std::int32_t*>(cache.view.row(at, 1, h, j)) = 3 * j;
    auto const position = [](int b, int j) { return b == 0 ? j : 3 * j; };
    reference::generator random(2);
    auto const keep = random_keep(random, cache.view, true);
    for (std::int32_t const bins : {1, 4, 7, 200}) {
      auto const found = measure::where_kept(ctx, cache.view, keep, bins);
      std::vector<std::int64_t> kept(static_cast<std::size_t>(bins), 0), held = kept;
      for (std::int64_t r = 0; r < 4; ++r) {
        int const b = static_cast<int>(r / 2), n = keep.lengths[static_cast<std::size_t>(r)];
        auto const in = set_of(keep, r);
        for (int j = 0; j < n; ++j) {
          double const at = static_cast<double>(position(b, j)) / (position(b, n - 1) + 1);
          auto const bin = static_cast<std::size_t>(at * bins + 1e-9);
          ++held[bin], kept[bin] += in.count(j) != 0;
        }
      }
      CHECK(found.kept == kept);
      CHECK(found.held == held);
      double entropy = 0;
      for (std::int64_t const x : kept)
        if (x != 0) {
          double const p = static_cast<double>(x) / static_cast<double>(keep.kept());
          entropy -= p * std::log(p);
        }
      CHECK(found.entropy() == Approx(entropy).margin(1e-12));
    }
    CHECK(refusal([&] { measure::where_kept(ctx, cache.view, keep, 0); }) == "where_kept: 0 bins; give at least one");

    std::vector<measure::stretch> const ranges{{0, 5, 20}, {0, 20, 31}, {1, 10, 40}};
    double kept = 0, held = 0;
    for (auto const& range : ranges)
      for (std::int32_t h = 0; h < 2; ++h) {
        auto const in = set_of(keep, 2 * range.sequence + h);
        for (int j = 0; j < keep.lengths[static_cast<std::size_t>(2 * range.sequence + h)]; ++j)
          if (position(range.sequence, j) >= range.first && position(range.sequence, j) < range.last)
            held += 1, kept += in.count(j) != 0 ? 1 : 0;
      }
    CHECK(measure::kept_share(ctx, cache.view, keep, ranges) == Approx(kept / held));
    auto const says = [&](std::vector<measure::stretch> const& of) {
      return refusal([&] { measure::kept_share(ctx, cache.view, keep, of); });
    };
    CHECK(says({}).find("kept_share: no range") == 0);
    CHECK(says({{2, 0, 1}}).find("kept_share: the range [0, 1) of sequence 2 among 2") == 0);
    CHECK(says({{0, 4, 4}}).find("kept_share: the range [4, 4)") == 0);
    CHECK(says({{0, -1, 4}}).find("kept_share: the range [-1, 4)") == 0);
    CHECK(says({{0, 5, 9}, {0, 8, 12}}).find("kept_share: the range [8, 12) of sequence 0 begins before the end") == 0);
    CHECK(says({{0, 5, 9}, {1, 0, 40}, {0, 5, 9}}).find("kept_share: the range [5, 9) of sequence 0 begins before") ==
          0);
    CHECK(says({{0, 9, 12}, {1, 0, 40}, {0, 5, 9}}).find("kept_share: the range [5, 9) of sequence 0 begins before") ==
          0);
    CHECK(says({{0, 5, 9}, {1, 0, 40}, {0, 9, 12}}).empty());
    CHECK(says({{0, 60, 70}}).find("kept_share: the range [60, 70) of sequence 0 holds no token") == 0);
    auto other = keep;
    other.lengths[0] = 59;
    CHECK(refusal([&] { measure::kept_share(ctx, cache.view, other, ranges); }).find("kept_share: ") == 0);
    *reinterpret_cast<std::int32_t*>(cache.view.row(*cache.view.find(role::position), 0, 0, 0)) = -3;
    auto const unproven = cache.view.with_order(kvevict::row_order::ascending, kvevict::order_proof::by_engine);
    CHECK(refusal([&] {
            measure::where_kept(ctx, unproven, keep, 3);
          }).find("where_kept: sequence 0, head 0 has a token at position -3") == 0);
  });
}

TEST_CASE("measure: an explanation agrees with the plan, token by token") {
  attention const rows = last_rows(input(), 8);
  std::int32_t const read_only[] = {16, 0};
  with_view([&](kvevict::host& ctx, auto& cache) {
    auto const view = cache.view;
    auto const check = [&](auto const& policy, auto const& e, kvevict::budget const& b) {
      auto const keep = plan(ctx, policy, e, b);
      std::vector<float> values;
      std::map<rule, int> found;
      scores(ctx, policy, e, b, values);
      for (std::int32_t r = 0, at = 0; r < 4; at += keep.lengths[static_cast<std::size_t>(r++)]) {
        auto const in = set_of(keep, r);
        std::vector<std::int64_t> ranks;
        for (std::int32_t j = 0; j < keep.lengths[static_cast<std::size_t>(r)]; ++j) {
          auto const why = measure::explain(ctx, policy, e, b, {r / 2, r % 2, j});
          CAPTURE(r, j, measure::text_of(why));
          ++found[why.why];
          CHECK(why.is_kept == (in.count(j) != 0));
          CHECK((why.why == rule::evicted || why.why == rule::unseen) == !why.is_kept);
          if (why.rank == 0) continue;
          ranks.push_back(why.rank);
          CHECK(why.score == values[static_cast<std::size_t>(at + j)]);
          CHECK(why.is_kept == (why.rank <= why.quota));
          CHECK((why.is_kept ? why.score >= why.threshold : why.score <= why.threshold));
          CHECK(measure::text_of(why).find("rank " + std::to_string(why.rank)) != std::string::npos);
        }
        std::sort(ranks.begin(), ranks.end());
        for (std::size_t i = 0; i < ranks.size(); ++i) CHECK(ranks[i] == static_cast<std::int64_t>(i) + 1);
      }
      return found;
    };
    auto const e = kvevict::prompt(view, rows.queries());
    using kvevict::protect;
    auto found = check(presets::snapkv({.window = 8, .pool = 1}).with(protect{2, 8}), e, {.tokens_per_head = 34});
    CHECK(found ==
          std::map<rule, int>{
              {rule::kept_whole, 66}, {rule::sinks, 4}, {rule::recent, 16}, {rule::chosen, 48}, {rule::evicted, 52}});
    found = check(presets::ada_snapkv({.window = 8}), kvevict::prompt(view.with_read_only(read_only), rows.queries()),
                  {.tokens_per_head = 30});
    CHECK(found[rule::read_only] == 32);
    CHECK(found[rule::chosen] == 4 * 30 - 32 - 4 * 8);
    auto const seen = e.with_visibility({.window = 10});
    found = check(presets::snapkv({.window = 8, .pool = 1}), seen, {.tokens_per_head = 20});
    CHECK(found[rule::chosen] == 8);  // positions 10 and 9 back, and the eight of the window
    CHECK(found[rule::unseen] == 2 * (60 - 10) + 2 * (33 - 10));
    CHECK(refusal([&] {
            measure::explain(ctx, presets::snapkv(), e, {.tokens_per_head = 40}, {1, 0, 33});
          }).find("explain: there is no token 33 of sequence 1, head 0") == 0);
    CHECK(refusal([&] {
            measure::explain(ctx, presets::snapkv({.window = 8}), e, {.tokens_per_head = 4}, {1, 0, 3});
          }).find("plan: a budget of 4") == 0);
  });
}

TEST_CASE("measure: of several scores and of chunks, an explanation still says what the plan does") {
  with_view([&](kvevict::host& ctx, auto& cache) {
    namespace score = kvevict::score;
    auto const e = kvevict::contents(cache.view);
    kvevict::budget const b{.tokens_per_head = 20};
    auto const check = [&](auto const& policy) {
      auto const keep = plan(ctx, policy, e, b);
      std::int64_t above = 0;
      for (std::int32_t j = 0; j < 60; ++j) {
        auto const why = measure::explain(ctx, policy, e, b, {0, 1, j});
        CHECK(why.is_kept == (set_of(keep, 1).count(j) != 0));
        CHECK((why.why == rule::sinks) == (j < 2));
        CHECK((why.why == rule::recent) == (j >= 55));
        if (why.rank == 0) continue;
        CHECK((why.quota == 13 && why.candidates == 53));
        above += why.is_kept && why.rank > 13;
      }
      CHECK(above > 0);
    };
    check(kvevict::policy{score::shares{score::share{500, score::key_diversity{}}, score::share{500, score::random{3}}},
                          kvevict::protect{.sinks = 2, .recent = 5}});
    check(presets::keydiff({.sinks = 2, .recent = 5}).with(kvevict::select::chunks{5}));
  });
}

TEST_CASE("measure: where pages stay whole, an explanation is of a token's page") {
  with_view([&](kvevict::host& ctx, auto& cache) {
    auto const policy = presets::keydiff({.sinks = 1, .recent = 1}).with(kvevict::select::pages{});
    kvevict::budget const b{.tokens_per_head = 46};
    auto const e = kvevict::contents(cache.view);  // pages of 16: 60 tokens are three and 12
    auto const keep = plan(ctx, policy, e, b);
    for (std::int32_t j = 0; j < 60; ++j) {
      auto const why = measure::explain(ctx, policy, e, b, {0, 1, j});
      CHECK(why.is_kept == (set_of(keep, 1).count(j) != 0));
      CHECK((why.why == rule::sinks) == (j < 16));
      CHECK((why.why == rule::part_filled) == (j >= 48));
      if (why.rank == 0) continue;
      CHECK((why.candidates == 2 && why.quota == 1));
      CHECK(why.is_kept == (why.rank == 1));
    }
  });
}

TEST_CASE("measure: rows in no order are explained by position") {
  batch const in = random_batch(22, {.Hq = 2, .H = 2, .N = {40}});
  with_cache(in, [&](auto& cache) {
    kvevict::host ctx;
    auto const& at = *cache.view.find(role::position);
    for (std::int32_t h = 0; h < 2; ++h)
      for (std::int32_t j = 0; j < 40; ++j)
        *reinterpret_cast<std::int32_t*>(cache.view.row(at, 0, h, j)) = j * 7 % 40 + 5;
    auto const view = cache.view.with_order(kvevict::row_order::scattered);
    auto const e = kvevict::contents(view);
    for (std::int32_t const budget : {6, 12}) {
      auto const policy = presets::keydiff({.sinks = 2, .recent = 4});
      auto const keep = plan(ctx, policy, e, {.tokens_per_head = budget});
      for (std::int32_t j = 0; j < 40; ++j) {
        auto const why = measure::explain(ctx, policy, e, {.tokens_per_head = budget}, {0, 1, j});
        CHECK(why.position == j * 7 % 40 + 5);
        CHECK((why.why == rule::sinks) == (why.position < 7));
        CHECK((why.why == rule::recent) == (why.position >= 41));
        CHECK(why.is_kept == (set_of(keep, 1).count(j) != 0));
      }
    }
  });
}

TEST_CASE("measure: counters add up what plans and results say") {
  with_view([&](kvevict::host& ctx, auto& cache) {
    measure::counters total;
    auto const e = kvevict::contents(cache.view);
    auto const keep = plan(ctx, presets::random(), e, {.tokens_per_head = 40});
    total.add(keep);
    CHECK((total.plans == 1 && total.cut_rows == 2 && total.kept_tokens == 2 * 40 + 2 * 33 &&
           total.evicted_tokens == 2 * 20));
    auto const pages = plan(ctx, presets::keydiff({.sinks = 1, .recent = 1}).with(kvevict::select::pages{}), e,
                            {.tokens_per_head = 46});
    measure::counters dropped;
    dropped.add(drop_pages(ctx, cache.view, pages));
    CHECK((dropped.freed_pages == 2 && dropped.moved_bytes == 0 && dropped.plans == 0));
    auto const done = compact(ctx, cache.view, keep);
    total.add(done);
    CHECK((total.moved_bytes == done.bytes_moved() && total.moved_bytes > 0));
    CHECK((total.freed_pages == done.freed_pages().size && total.freed_pages == 2));
    total.add(dropped);
    CHECK((total.freed_pages == 4 && total.plans == 1 && total.evicted_tokens == 40));
    auto const before = total;
    kvevict::keep_set refused = keep;
    refused.refused = true;
    CHECK(!refusal([&] { total.add(refused); }).empty());
    CHECK(!refusal([&] { total.add(kvevict::compacted<std::int32_t>{}); }).empty());
    CHECK((before.plans == total.plans && before.freed_pages == total.freed_pages &&
           before.moved_bytes == total.moved_bytes));
  });
}

}  // namespace measure_keep_sets_test
