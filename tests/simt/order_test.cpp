// SPDX-License-Identifier: Apache-2.0
// The order of a row's tokens is checked where the cache carries positions, by both contexts in the same words; and
// scattered rows are observed by position.
#include <algorithm>
#include <cmath>

#include "simt/same_words.hpp"

namespace order_test {

using namespace simt_test;
using kvevict::order_proof;
using kvevict::row_order;

namespace {

template <class Cache> void at_position(Cache& cache, int b, int h, int t, std::int32_t position) {
  cache.set(*cache.view.find(role::position), b, h, t, 0, static_cast<float>(position));
}

}  // namespace

TEST_CASE("rows that are called ascending and are not are refused by every verb that plans") {
  attention const one = last_rows(room().in, 1);
  for (layout const l : {layout::nhd, layout::head_pages, layout::bnsh, layout::csr, layout::pointers}) {
    CAPTURE(layouts::name_of(l));
    auto const refused = [&](auto change, std::string const& what) {
      batch const in = random_batch(71, {.Hq = 4, .H = 2, .D = 8, .N = {40, 30}});
      layouts::cache_shape shape = cache_shape_of(in);
      shape.state_floats = 1;
      layouts::with_layout(l, shape, [&](auto& cache) {
        fill(cache, in);
        cache.fill(role::state, [](int, int, int t, int) { return t; });
        change(cache);
        std::string const all = "validate: the view calls its rows ascending, but " + what;
        alike(cache, all, [&](auto& on, auto const& view) { plan(on.ctx, streaming, contents(view), twenty); });
        alike(cache, all, [&](auto& on, auto const& view) { plan(on.ctx, h2o, kvevict::remembered(view), twenty); });
        alike(cache, all,
              [&](auto& on, auto const& view) { observe(on.ctx, h2o, step(view, on.rows(one.queries())), twenty); });
        alike(cache, "", [&](auto& on, auto const& view) {
          plan(on.ctx, streaming, contents(view.with_order(row_order::ascending, order_proof::by_engine)), twenty);
        });
      });
    };
    // a ring: the newest tokens have gone to the front
    refused(
        [](auto& cache) {
          for (int h = 0; h < 2; ++h)
            for (int t = 0; t < 8; ++t) at_position(cache, 0, h, t, 40 + t);
        },
        "slot 8 of sequence 0, head 0 holds position 8 behind 47");
    refused([](auto& cache) { at_position(cache, 1, 1, 16, 15); },
            "slot 16 of sequence 1, head 1 holds position 15 behind 15");
    refused([](auto& cache) { at_position(cache, 1, 0, 0, -1); }, "slot 0 of sequence 1, head 0 holds position -1;");
    refused([](auto& cache) { at_position(cache, 1, 1, 29, 3); },
            "slot 29 of sequence 1, head 1 holds position 3 behind 28");
  }
}

TEST_CASE("after hole filling the result's view is scattered, and a plan on the old one is refused") {
  room r;
  kvevict::host ctx;
  auto const policy = presets::random({.seed = 3, .recent = 1});
  auto const done = kvevict::compact(ctx, r.cache.view, plan(ctx, policy, contents(r.cache.view), twenty),
                                     kvevict::compaction::fill_holes);
  auto const after = done.view(r.cache.view);
  CHECK(after.order == row_order::scattered);
  CHECK(after.length(0, 1) == 20);
  CHECK_NOTHROW(plan(ctx, policy, contents(after), {.tokens_per_head = 10}));
  for (auto& n : r.cache.lengths()) n = 20;
  CHECK_THROWS_WITH(plan(ctx, policy, contents(r.cache.view), {.tokens_per_head = 10}),
                    Catch::Contains("say with_order(row_order::scattered)"));
  auto const stable = kvevict::compact(ctx, after, plan(ctx, policy, contents(after), {.tokens_per_head = 10}));
  CHECK(stable.view(after).order == row_order::scattered);  // moving does not sort
}

TEST_CASE("several rows of scattered rows are observed by position: as those of ascending rows") {
  for (auto const& policy_floats : {1, 8}) {
    room sorted(layout::head_pages, policy_floats), mixed(layout::head_pages, policy_floats);
    std::vector<std::int32_t> slot_of(40);
    for (int b = 0; b < 2; ++b) {
      int const n = b == 0 ? 40 : 30;
      for (int t = 0; t < n; ++t) slot_of[static_cast<std::size_t>(t)] = (t * 7 + 3) % n;
      for (int h = 0; h < 2; ++h)
        for (int t = 0; t < n; ++t)
          for (int i = 0; i < sorted.cache.view.component_count; ++i) {
            auto const &from = sorted.cache.view.begin()[i], &to = mixed.cache.view.begin()[i];
            for (int d = 0; d < from.width(); ++d)
              mixed.cache.set(to, b, h, slot_of[static_cast<std::size_t>(t)], d, sorted.cache.get(from, b, h, t, d));
          }
    }
    mixed.cache.view.order = row_order::scattered;
    attention const three = last_rows(sorted.in, 3);
    kvevict::host ctx;
    auto const by_host = [&](room& r) {
      auto const e = step(r.cache.view, three.queries());
      if (policy_floats == 1)
        observe(ctx, h2o, e, twenty);
      else
        observe(ctx, ahakv, e, twenty);
    };
    by_host(sorted), by_host(mixed);
    auto const &state = *sorted.cache.view.find(role::state), &moved = *mixed.cache.view.find(role::state);
    for (int b = 0; b < 2; ++b) {
      int const n = b == 0 ? 40 : 30;
      for (int h = 0; h < 2; ++h)
        for (int t = 0; t < n; ++t)
          for (int d = 0; d < policy_floats; ++d)
            CHECK(mixed.cache.get(moved, b, h, (t * 7 + 3) % n, d) ==
                  Approx(sorted.cache.get(state, b, h, t, d)).epsilon(1e-5).margin(1e-7));
    }
  }
}

}  // namespace order_test
