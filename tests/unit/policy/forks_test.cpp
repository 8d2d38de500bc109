// SPDX-License-Identifier: Apache-2.0
// Sequences that are forks of one chain of pages are planned in one view, and evicted by all that write no common page.
#include <kvevict/kvevict.hpp>

#include "support/catch.hpp"
#include "support/forks.hpp"
#include "support/ledger.hpp"

namespace policy_forks_test {

using namespace support;
using kvevict::role;

namespace {

/// Counts what a view names; pages behind its rows are free.
template <class Entry> support::ledger<Entry> ledger_of(kvevict::layer_view<Entry> const& v) {
  support::ledger<Entry> out;
  out.refer(v, [](Entry, std::int64_t) {});
  for (std::int32_t b = 0; b < v.sequences(); ++b)  // 24 tokens more have pages
    for (std::int32_t h = 0; h < (v.pages.per_head() ? v.heads() : 1); ++h)
      for (std::int64_t i = v.length(b, h) / v.pages.page_size + 1; i < (v.length(b, h) + 24) / v.pages.page_size; ++i)
        out.free.push_back(v.pages.entry(b, h, i));
  return out;
}

std::vector<std::int32_t> list(kvevict::slice<std::int32_t const> x) { return {x.begin(), x.end()}; }

}  // namespace

TEST_CASE("forks in one view keep what each of them keeps alone, in every kind of table") {
  forks const all;
  kvevict::host ctx;
  for (layouts::layout const l : forks::tables)
    all.with(l, [&](auto& cache) {
      CAPTURE(cache.name());
      auto const before = cache.snapshot();
      forks::each_policy([&](auto const& policy) {
        auto const q = all.rows.queries();
        auto const keep = kvevict::plan(ctx, policy, kvevict::prompt(cache.view, q), forks::ask);
        for (std::int32_t b = 0; b < 3; ++b) {
          auto const one =
              kvevict::plan(ctx, policy, kvevict::prompt(forks::alone(cache.view, b), forks::alone(q, b)), forks::ask);
          for (std::int32_t h = 0; h < 2; ++h) CHECK(list(keep(b, h)) == list(one(0, h)));
        }
      });
      CHECK((cache.snapshot() == before));
    });
}

TEST_CASE("forks that were planned together are relocated, masked and dropped, and compact names the remedy") {
  forks const all;
  kvevict::host ctx;
  constexpr auto policy = kvevict::presets::keydiff({.sinks = 1, .recent = 2});
  constexpr auto by_page = policy.with(kvevict::select::pages{}).with(kvevict::heads::together{});
  for (layouts::layout const l : forks::tables)
    all.with(l, [&](auto& cache) {
      CAPTURE(cache.name());
      auto const& v = cache.view;
      auto const keep = kvevict::plan(ctx, policy, kvevict::contents(v), forks::ask);
      auto const before = cache.snapshot();
      auto const refuses = [&](auto const& call) {
        std::string const said = refusal(call);
        CHECK(contains(said, "would be written by both"));
        CHECK(contains(said, "relocate under a page_ledger"));
        CHECK((cache.snapshot() == before));
      };
      refuses([&] { compact(ctx, v, keep); });
      refuses([&] { kvevict::plan_moves(ctx, v, keep); });
      refuses([&] { kvevict::replace(ctx, v, keep); });
      auto const h2o = kvevict::presets::h2o({.recent = 2});
      refuses([&] { kvevict::observe(ctx, h2o, kvevict::step(v, all.rows.queries()), forks::ask); });

      std::vector<std::uint32_t> bits(12);  // 40 slots a row
      kvevict::mask(ctx, v, keep, kvevict::bit_rows<std::uint32_t>{bits.data(), 40, 2});
      auto const whole = kvevict::plan(ctx, by_page, kvevict::contents(v), {.tokens_per_head = 16});
      auto const dropped = kvevict::drop_pages(ctx, v, whole);
      CHECK(dropped.length(2, 0) == 16 + 21 % v.pages.page_size - (21 % v.pages.page_size == 0 ? 0 : 4));
      CHECK((cache.snapshot() == before));

      std::vector<std::vector<float>> keys;
      for (int b = 0; b < 3; ++b)
        for (int h = 0; h < 2; ++h) {
          auto const row = cache.read(role::k, b, h);
          keys.emplace_back();
          for (std::int32_t const t : keep(b, h))
            keys.back().insert(keys.back().end(), row.begin() + t * 8, row.begin() + t * 8 + 8);
        }
      auto counts = ledger_of(v);
      auto const moved = kvevict::relocate(ctx, v, keep, counts);
      REQUIRE(moved.ok());
      cache.view = moved.view(v);
      for (int b = 0; b < 3; ++b)
        for (int h = 0; h < 2; ++h) CHECK(cache.read(role::k, b, h) == keys[static_cast<std::size_t>(b * 2 + h)]);
    });
}

TEST_CASE("a page that a row has twice, or two heads or layers of a sequence, is no fork") {
  forks const all;
  kvevict::host ctx;
  auto const refused = [&](auto const& view) {
    return refusal([&] { kvevict::plan(ctx, kvevict::presets::full(), kvevict::contents(view), forks::ask); });
  };
  for (layouts::layout const l : forks::tables)
    all.with(l, [&](auto& cache) {
      CAPTURE(cache.name());
      CHECK(refused(cache.view) == "");
      auto& last = forks::entry(cache, 2, 0, 21 / cache.view.pages.page_size - 1);
      auto const was = std::exchange(last, forks::entry(cache, 2, 0, 1));
      cache.view.proof = kvevict::order_proof::by_engine;
      CHECK(contains(refused(cache.view), "are the same page; a row uses a page once"));
      last = was;
      if (!cache.per_head()) return;
      forks::entry(cache, 1, 1, 1) = forks::entry(cache, 1, 0, 1);
      CHECK(contains(refused(cache.view), "page 1 of sequence 1, head 1 is also page 1 of sequence 1, head 0"));
    });
}

}  // namespace policy_forks_test
