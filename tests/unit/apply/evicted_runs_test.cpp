// SPDX-License-Identifier: Apache-2.0
#include <kvevict/apply/evicted_runs.hpp>

#include <set>

#include "support/allocations.hpp"
#include "support/catch.hpp"
#include "support/keep_sets.hpp"
#include "support/layouts.hpp"

namespace apply_evicted_runs_test {

using namespace kvevict;
using layouts::layout;
using reference::generator;
using support::contains, support::keep_of, support::refusal;

namespace {

using runs = std::vector<token_run>;

runs list(slice<token_run const> x) { return {x.begin(), x.end()}; }

/// Maximal runs of a set of names, number by number.
runs naive_runs(std::set<std::int64_t> const& names) {
  runs out;
  for (std::int64_t const x : names) {
    if (names.count(x - 1) == 0) out.push_back({x, x});
    ++out.back().last;
  }
  return out;
}

template <class Name> runs naive_row(keep_set const& keep, std::int64_t r, Name name) {
  std::set<std::int32_t> const kept(keep.row(r).begin(), keep.row(r).end());
  std::set<std::int64_t> gone;
  for (std::int32_t t = 0; t < keep.lengths[static_cast<std::size_t>(r)]; ++t)
    if (kept.count(t) == 0) gone.insert(name(t));
  return naive_runs(gone);
}

component const& positions(layer_view<std::int32_t> const& v) { return *v.find(role::position); }

}  // namespace

TEST_CASE("evicted_runs: runs and kept tokens are all tokens, runs ascend and do not touch, in every layout") {
  host ctx;
  for (std::uint64_t seed = 0; seed < 6; ++seed)
    layouts::for_each_layout({.lengths = {50, 0, 1, 37}, .heads = 3, .seed = seed}, [&](auto& c) {
      CAPTURE(c.name(), seed);
      generator random(seed);
      keep_set const keep = support::random_keep(random, c.view, true);  // unequal counts do no harm: nothing moves
      auto const before = c.snapshot();
      auto const slots = evicted_runs(ctx, c.view, keep);
      std::int64_t const first[] = {1000, 0, 7, 3};
      auto const from = evicted_runs(ctx, c.view, keep, run_names::positions_from(first));
      for (component const& p : c.view)  // positions with gaps, in no order
        if (p.what == role::position)
          c.for_each_slot(
              [&](int b, int h, int t) { element<std::int32_t>(c.view, p, b, h, t) = (t * 3 / 2 * 7 + h) % 101; });
      auto const view = c.view.with_order(row_order::scattered);
      auto const at = evicted_runs(ctx, view, keep, {run_names::positions});
      for (int b = 0; b < 4; ++b)
        for (int h = 0; h < 3; ++h) {
          std::int64_t const r = b * 3 + h;
          CHECK(list(slots(b, h)) == naive_row(keep, r, [](std::int32_t t) { return t; }));
          CHECK(list(from(b, h)) == naive_row(keep, r, [&](std::int32_t t) { return first[b] + t; }));
          CHECK(list(at(b, h)) == naive_row(keep, r, [&](std::int32_t t) { return (t * 3 / 2 * 7 + h) % 101; }));
        }
      static_cast<void>(before);
    });
}

TEST_CASE("evicted_runs: entries of a table of tokens, whatever order its ids have") {
  host ctx;
  for (layout const l : {layout::token_pool, layout::transposed_v})
    for (std::uint64_t seed = 0; seed < 6; ++seed) {
      layouts::cache<std::int32_t> c(l, {.lengths = {40, 3}, .heads = 2, .seed = seed});
      generator random(seed);
      auto const a = support::random_row(random, 40, 25), b = support::random_row(random, 3, 1);
      keep_set const keep = keep_of(c.view, {a, a, b, b});
      auto const before = c.snapshot();
      auto const done = evicted_runs(ctx, c.view, keep, {run_names::entries});
      for (int s = 0; s < 2; ++s)
        for (int h = 0; h < 2; ++h)
          CHECK(list(done(s, h)) ==
                naive_row(keep, s * 2 + h, [&](std::int32_t t) { return c.view.pages.entry(s, 0, t); }));
      CHECK(c.snapshot() == before);
    }
}

TEST_CASE("evicted_runs: what is common to sequences may go from one of them") {
  host ctx;
  layouts::cache<std::int32_t> c(layout::token_pool, {.lengths = {5, 5}, .heads = 1, .positions = 0});
  for (std::size_t i = 0; i < 3; ++i) c.entries()[5 + i] = c.entries()[i];  // a fork behind 3 tokens
  auto const done = evicted_runs(ctx, c.view, keep_of(c.view, {{0, 3, 4}, {0, 1, 2, 3, 4}}));
  CHECK(list(done(0, 0)) == runs{{1, 3}});
  CHECK(done(1, 0).empty());
}

TEST_CASE("evicted_runs: what cannot be named is refused") {
  host ctx;
  layouts::cache<std::int32_t> c(layout::token_pool, {.lengths = {6}, .heads = 2});
  auto const says = [&](auto const& view, std::vector<std::vector<std::int32_t>> const& rows, run_names as) {
    evicted done = evicted_runs(ctx, c.view, keep_of(c.view, {{0}, {0}}));
    std::string const text = refusal([&] { evicted_runs(ctx, view, keep_of(view, rows), as, done); });
    if (!text.empty()) {
      CHECK_FALSE(done.ok());
      CHECK(contains(refusal([&] { done(0, 0); }), "there is no result"));
    }
    return text;
  };
  std::vector<std::vector<std::int32_t>> const alike{{0, 5}, {0, 5}}, apart{{0, 5}, {0, 4}};
  CHECK(says(c.view, apart, {run_names::slots}).empty());
  CHECK(contains(says(c.view, apart, {run_names::entries}), "keep different tokens but share a page table"));
  element<std::int32_t>(c.view, positions(c.view), 0, 1, 3) = 5;  // 0 1 2 5 4 5: one of them is kept
  auto const scattered = c.view.with_order(row_order::scattered);
  CHECK(contains(says(scattered, alike, {run_names::positions}), "two tokens of sequence 0, head 1 have position 5"));
  element<std::int32_t>(c.view, positions(c.view), 0, 1, 3) = 2;  // two evicted ones
  CHECK(contains(says(scattered, alike, {run_names::positions}), "have position 2"));
  for (std::int32_t const below : {-2, -7}) {
    element<std::int32_t>(c.view, positions(c.view), 0, 1, 3) = below;
    CHECK(contains(says(scattered, alike, {run_names::positions}), "head 1 has position -"));
    std::int64_t const from[] = {below};
    CHECK(contains(says(c.view, alike, run_names::positions_from(from)), "below 0"));
  }
  element<std::int32_t>(c.view, positions(c.view), 0, 1, 0) = -1;  // it stays
  element<std::int32_t>(c.view, positions(c.view), 0, 1, 3) = 3;
  CHECK(says(scattered, alike, {run_names::positions}).empty());
  element<std::int32_t>(c.view, positions(c.view), 0, 1, 0) = 0;
  std::int32_t const read_only[] = {2};
  CHECK(contains(says(c.view.with_read_only(read_only), alike, {}), "drops a token of the read-only prefix"));
  auto bare = c.view;
  --bare.component_count;
  CHECK(contains(says(bare, alike, {run_names::positions}), "positions_from"));
  std::int64_t const first[] = {0};
  CHECK(contains(says(scattered, alike, run_names::positions_from(first)), "slot t does not hold position first + t"));
  layouts::cache<std::int32_t> paged(layout::nhd, {.lengths = {6}, .heads = 2});
  CHECK(contains(says(paged.view, alike, {run_names::entries}), "a page has 4"));
  layouts::cache<std::byte*> addresses(layout::pointers, {.lengths = {6}, .heads = 2, .page_size = 1});
  CHECK(contains(says(addresses.view, alike, {run_names::entries}), "an address"));
  keep_set stale = keep_of(c.view, alike);
  stale.made_for.epoch = 7;
  CHECK(contains(refusal([&] { evicted_runs(ctx, c.view.with_epoch(8), stale); }), "epoch 7"));
}

TEST_CASE("evicted_runs: no call after the first allocates") {
  host ctx;
  layouts::cache<std::int32_t> c(layout::nhd, {.lengths = {90, 70}, .heads = 2});
  generator random(3);
  keep_set const keep = support::random_keep(random, c.view, false);
  evicted done;
  evicted_runs(ctx, c.view, keep, {run_names::positions}, done);
  auto const before = allocations();
  evicted_runs(ctx, c.view, keep, {run_names::positions}, done);
  CHECK(allocations() == before);
}

}  // namespace apply_evicted_runs_test
