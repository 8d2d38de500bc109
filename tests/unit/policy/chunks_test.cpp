// SPDX-License-Identifier: Apache-2.0
// by::chunks against chunks that are chosen one by one, and what it refuses.
#include <limits>

#include <kvevict/kvevict.hpp>
#include <kvevict/select/chunks.hpp>

#include "support/batch_cache.hpp"
#include "support/catch.hpp"
#include "support/chunk_case.hpp"
#include "support/keep_sets.hpp"

namespace policy_chunks_test {

using namespace support;
namespace presets = kvevict::presets;
namespace by = kvevict::select;
using kvevict::role;

TEST_CASE("evenness in whole numbers is that of entropy") {
  namespace spread = kvevict::spread;
  reference::generator random(1);
  for (int i = 0; i < 2000; ++i) {
    auto const x = static_cast<std::uint64_t>(1 + random.bits() % (i % 2 == 0 ? 100 : std::uint64_t{1} << 32));
    double const want = std::log2(static_cast<double>(x)),
                 got = std::ldexp(static_cast<double>(spread::log2_steps(x)), -20);
    CHECK((got <= want + 1e-12 && got >= want - 2e-6));
    std::vector<float> scores;
    double sum = 0, entropy = 0;
    for (int n = 2 + i % 30; n > 0; --n) scores.push_back(static_cast<float>(std::exp(3 * random.normal())));
    for (float const s : scores) sum += double{s};
    for (float const s : scores) entropy -= double{s} / sum * std::log(double{s} / sum);
    by::chunk const whole{scores.data(), 0, static_cast<std::int32_t>(scores.size())};
    CHECK(double{whole.evenness()} == Approx(entropy / std::log(static_cast<double>(scores.size()))).margin(1e-5));
  }
  CHECK(spread::log2_steps(1) == 0);
  CHECK((spread::part(0) == 0 && spread::part(1) == 0 && spread::part(0.5f) == std::int64_t{1} << 31));
  float const equal[] = {3, 3, 3, 3}, one[] = {-1, -1, 5, -1};
  CHECK((by::chunk{equal, 0, 4}.evenness() == 1 && by::chunk{one, 0, 4}.evenness() == 0));
}

TEST_CASE("by::chunks keeps what chunks chosen one by one keep, whatever the budget") {
  kvevict::host ctx;
  std::int64_t gated = 0;
  for (std::uint64_t seed = 1; seed <= 400; ++seed) {
    chunk_case c = random_chunks(seed);
    for (std::int32_t const size : {1, 3, 5, 10, 12, 200})
      for (std::int32_t const peak : {0, 1, 4}) {
        if (peak >= size) continue;
        kvevict::keep_set keep, plain;
        by::chunks{size, peak}(ctx, c.view(), keep);
        by::chunks{size}(ctx, c.view(), plain);
        gated += keep.tokens != plain.tokens;
        for (std::size_t r = 0; r < c.rows.size(); ++r) {
          auto const row = keep.row(static_cast<std::int64_t>(r));
          CAPTURE(seed, size, peak, r, c.rows[r].first, c.rows[r].last, c.rows[r].budget);
          CHECK(index_row(row.begin(), row.end()) ==
                c.expected(r, static_cast<std::size_t>(size), static_cast<std::size_t>(peak)));
        }
      }
  }
  CHECK(gated > 300);
}

TEST_CASE("chunks of one token are select::best, and one chunk is, too") {
  batch const in = random_batch(4, {.Hq = 4, .H = 2, .N = {60, 33}});
  with_cache(in, [&](auto& cache) {
    kvevict::host ctx;
    auto const e = kvevict::contents(cache.view);
    auto const best = presets::keydiff({.sinks = 2, .recent = 5});
    constexpr std::int32_t largest = std::numeric_limits<std::int32_t>::max();
    for (auto const& stage : {by::chunks{1}, by::chunks{100}, by::chunks{largest}, by::chunks{largest, 3}}) {
      auto const keep = plan(ctx, best.with(stage), e, {.tokens_per_head = 20});
      CHECK(keep.tokens == plan(ctx, best, e, {.tokens_per_head = 20}).tokens);
    }
    auto const ragged = best.with(kvevict::heads::adaptive{}).with(by::chunks{7, 2});
    CHECK(plan(ctx, ragged, e, {.tokens_per_head = 20}).kept() == 4 * 20);
  });
}

TEST_CASE("chunks never keep a token that no later row sees, and cut none for it") {
  batch const in = random_batch(5, {.Hq = 4, .H = 2, .N = {60, 60}});
  with_cache(in, [&](auto& cache) {
    kvevict::host ctx;
    for (auto const& stage : {by::chunks{8}, by::chunks{8, 3}})
      for (std::int32_t const budget : {12, 20, 30}) {
        auto const e = kvevict::contents(cache.view).with_visibility({.window = 21, .sinks = 5});
        auto const one = presets::keydiff({.recent = 2}).with(stage);
        auto const all = one.with(kvevict::heads::together{});
        for (auto const& keep :
             {plan(ctx, one, e, {.tokens_per_head = budget}), plan(ctx, all, e, {.tokens_per_head = budget})})
          for (std::int64_t r = 0; r < 4; ++r) {
            CHECK(keep.row(r).size == std::min(budget, 26));
            for (std::int32_t const j : keep.row(r)) CHECK((j < 5 || j >= 60 - 21));
          }
      }
  });
}

TEST_CASE("what chunks cannot keep is refused in clear words") {
  batch const in = random_batch(6, {.Hq = 4, .H = 2, .N = {60}});
  with_cache(in, [&](auto& cache) {
    kvevict::host ctx;
    kvevict::keep_set keep;
    auto const says = [&](by::chunks const& stage, auto const& view) {
      return refusal(
          [&] { plan(ctx, presets::keydiff().with(stage), kvevict::contents(view), {.tokens_per_head = 20}, keep); });
    };
    CHECK(says({}, cache.view).empty());
    CHECK(!keep.refused);
    CHECK(says({0}, cache.view).find("select::chunks: chunks of 0 tokens") == 0);
    CHECK(keep.refused);
    CHECK(says({4, 4}, cache.view).find("select::chunks: chunks of 4 tokens, of which 4 stay") == 0);
    CHECK(says({4, -1}, cache.view).find("select::chunks: ") == 0);
    CHECK(says({}, cache.view.with_order(kvevict::row_order::scattered))
              .find("select::chunks: tokens have no neighbours") == 0);
  });
}

TEST_CASE("chunks take the scratch that workspace_bytes says, and no other memory") {
  batch const in = random_batch(7, {.Hq = 4, .H = 2, .N = {300, 129}});
  with_cache(in, [&](auto& cache) {
    for (std::int32_t const peak : {0, 4}) {
      auto const policy = presets::keydiff().with(by::chunks{10, peak});
      kvevict::host ctx;
      kvevict::keep_set keep;
      plan(ctx, policy, kvevict::contents(cache.view), {.tokens_per_head = 50}, keep);
      std::int64_t const pages = cache.view.components[0].rows.page_count;
      auto const promised =
          kvevict::workspace_bytes(ctx, policy, {2, 4, 2, 8, 300, cache.view.pages.rows() * pages, pages});
      CHECK(static_cast<std::int64_t>(ctx.scratch().high_water()) <= promised);
      CHECK(keep.kept() == 4 * 50);
    }
  });
}

}  // namespace policy_chunks_test
