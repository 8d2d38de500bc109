// SPDX-License-Identifier: Apache-2.0
// Laws of re-rotation, for every context: a runner turns a cache of layouts.hpp in its context's memory and says what
// it was refused with.
#pragma once

#include <algorithm>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include <kvevict/kvevict.hpp>

#include "support/catch.hpp"
#include "support/keep_sets.hpp"
#include "support/layouts.hpp"
#include "support/ropes.hpp"

namespace support::rerotation {

using kvevict::component;
using kvevict::dtype;
using kvevict::role;
using kvevict::rotation;
using kvevict::row_order;
using reference::real;

inline constexpr std::int32_t D = 24;

/// Ascending, with gaps, up to 10⁶.
inline std::int32_t position_of(int b, int h, int t) {
  return t == 0 ? 3 * b + h : 5 + 3 * t + 27 * t * t % 31 * 2 + t * 20000 + 37 * b + h;
}
inline layouts::cache_shape shape_of(dtype type) {
  layouts::cache_shape s;
  s.lengths = {37, 0, 5}, s.heads = 2, s.head_dim = D, s.type = type, s.state_floats = 1;
  return s;
}
/// What an element was before its rope.
inline real before(int b, int h, int t, int d) { return std::sin(static_cast<real>(b + 3 * h + 7 * t + 11 * d)); }

/// Keys turned by their positions, V, state, positions.
template <class Cache> void fill(Cache& cache, known_rope const& r) {
  component& k = cache.view.components[0];
  k.turned_by = rotation::rope;
  cache.fill(role::position, [](int b, int h, int t, int) { return position_of(b, h, t); });
  cache.fill(role::v, [](int b, int h, int t, int d) { return b + h + t + d; });
  cache.fill(role::state, [](int b, int h, int t, int) { return b + h + t; });
  cache.for_each_slot([&](int b, int h, int t) {
    std::vector<real> x;
    for (int d = 0; d < D; ++d) x.push_back(before(b, h, t, d));
    x = r.turned(x, position_of(b, h, t));
    for (int d = 0; d < D; ++d) cache.set(k, b, h, t, d, static_cast<float>(x[static_cast<std::size_t>(d)]));
  });
}

/// A row as the view shows it.
struct seen {
  std::vector<std::vector<real>> keys;
  std::vector<float> rest;
  std::vector<std::int32_t> positions;
};
template <class Cache> seen look(Cache const& cache, int b, int h) {
  seen out;
  for (int t = 0; t < cache.view.length(b, h); ++t) {
    out.keys.emplace_back();
    for (int d = 0; d < D; ++d)
      out.keys.back().push_back(static_cast<real>(cache.get(cache.view.components[0], b, h, t, d)));
    auto const& p = *cache.view.find(role::position);
    out.positions.push_back(kvevict::element<std::int32_t>(cache.view, p, b, h, t));
  }
  for (role const what : {role::v, role::state}) {
    auto const x = cache.read(what, b, h);
    out.rest.insert(out.rest.end(), x.begin(), x.end());
  }
  return out;
}
inline float rounded(dtype type, real x) {
  auto const y = static_cast<float>(x);
  return type == dtype::f16    ? kvevict::to_float(kvevict::from_float<kvevict::f16>(y))
         : type == dtype::bf16 ? kvevict::to_float(kvevict::from_float<kvevict::bf16>(y))
                               : y;
}
/// How far the new row is from the old one, turned in long double: in lengths of pairs, where it is not the nearest
/// number of its type or the next one.
inline double distance(known_rope const& r, dtype type, seen const& old, seen const& now,
                       std::vector<std::int32_t> const& targets) {
  known_rope plain = r;  // the attention factor is in the keys already
  plain.ours.attention_factor = 1;
  double worst = 0;
  for (std::size_t t = 0; t < old.keys.size(); ++t) {
    auto const want = plain.turned(old.keys[t], static_cast<real>(targets[t]) - old.positions[t]);
    if (targets[t] == old.positions[t] && now.keys[t] != old.keys[t]) return 1e9;
    for (int d = 0; d < D; ++d) {
      auto const i = static_cast<std::size_t>(d);
      int const other = d >= r.width      ? d
                        : r.interleaved() ? d ^ 1
                        : d < r.width / 2 ? d + r.width / 2
                                          : d - r.width / 2;
      if (d >= r.width && now.keys[t][i] != old.keys[t][i]) return 1e9;
      real const length = std::hypot(want[i], want[static_cast<std::size_t>(other)]);
      real const step = type == dtype::f32 ? 0 : std::abs(want[i]) * (type == dtype::f16 ? 0x1p-11L : 0x1p-8L);
      real const beyond = std::abs(now.keys[t][i] - want[i]) - step;
      if (length > 0) worst = std::max(worst, static_cast<double>(beyond / length));
    }
  }
  return worst;
}

/// The row's places in order of position, `first` and up.
inline std::vector<std::int32_t> targets_of(std::vector<std::int32_t> const& positions, std::int32_t first) {
  std::vector<std::int32_t> out;
  for (std::int32_t const p : positions)
    out.push_back(first + static_cast<std::int32_t>(std::count_if(positions.begin(), positions.end(),
                                                                  [&](std::int32_t q) { return q < p; })));
  return out;
}

/// Compacted caches of every layout, type and rope: keys lie where they would if the text had been contiguous, all else
/// as before; and a second time nothing happens.
template <class Run> void closes_gaps(Run run, std::vector<layouts::layout> const& where) {
  double worst = 0;
  std::uint64_t seed = 0;
  for (known_rope const& r : small_ropes())
    for (dtype const type : {dtype::f32, dtype::f16, dtype::bf16})
      for (layouts::layout const l : where)
        for (auto const mode : {kvevict::compaction::stable, kvevict::compaction::fill_holes}) {
          if (++seed % 3 != 0 && l != where[seed % where.size()]) continue;
          layouts::with_layout(l, shape_of(type), [&](auto& cache) {
            CAPTURE(r.name, r.width, r.interleaved(), cache.name(), static_cast<int>(type), static_cast<int>(mode));
            fill(cache, r);
            reference::generator random(seed);
            kvevict::host ctx;
            auto const keep = random_keep(random, cache.view, cache.per_head());
            auto const done = kvevict::compact(ctx, cache.view, keep, mode);
            std::vector<std::int32_t> lengths(done.lengths().begin(), done.lengths().end());
            auto& mine = cache.lengths();
            for (std::size_t i = 0; i < mine.size(); ++i) mine[i] = lengths[cache.per_head() ? i : i * 2];
            cache.view.order = done.order();
            std::vector<seen> old;
            for (int b = 0; b < 3; ++b)
              for (int h = 0; h < 2; ++h) old.push_back(look(cache, b, h));
            std::int32_t const first = static_cast<std::int32_t>(random.below(2)) * 999000;
            REQUIRE(run(cache, r.ours, first) == "");
            for (int b = 0, i = 0; b < 3; ++b)
              for (int h = 0; h < 2; ++h, ++i) {
                seen const now = look(cache, b, h), &was = old[static_cast<std::size_t>(i)];
                auto const targets = targets_of(was.positions, first);
                CHECK(now.positions == targets);
                CHECK(now.rest == was.rest);
                worst = std::max(worst, distance(r, type, was, now, targets));
              }
            auto const bytes = cache.snapshot();
            REQUIRE(run(cache, r.ours, first) == "");
            CHECK(cache.snapshot() == bytes);
          });
        }
  std::printf("largest error beyond the rounding: %.3g of a pair's length\n", worst);
  CHECK(worst < 6e-7);
}

/// Products of keys with queries of new tokens depend on how far they are apart, before and after.
template <class Run> void keeps_relative_products(Run run) {
  known_rope const r = small_ropes()[0];
  for (std::int32_t const first : {0, 1000000})
    layouts::with_layout(layouts::layout::hnd, shape_of(dtype::f32), [&](auto& cache) {
      fill(cache, r);
      REQUIRE(run(cache, r.ours, first) == "");
      std::vector<real> query;
      for (int d = 0; d < D; ++d) query.push_back(std::cos(static_cast<real>(3 * d)));
      for (int ahead : {0, 1, 500}) {
        auto const q = r.turned(query, first + 37 + ahead);
        for (int t = 0; t < 37; ++t) {
          std::vector<real> k;
          for (int d = 0; d < D; ++d) k.push_back(before(0, 1, t, d));
          k = r.turned(k, t - 37 - ahead);
          real want = 0, got = 0;
          seen const now = look(cache, 0, 1);
          for (std::size_t d = 0; d < D; ++d)
            want += query[d] * k[d], got += q[d] * now.keys[static_cast<std::size_t>(t)][d];
          CHECK(std::abs(static_cast<double>(got - want)) < 4e-6);
        }
      }
    });
}

/// Pages that sequences share are not written: their tokens stay where they are, or the call is refused.
template <class Run> void leaves_prefixes(Run run) {
  known_rope const r = small_ropes()[0];
  std::vector<std::int32_t> const fixed{8, 0, 4};
  layouts::with_layout(layouts::layout::nhd, shape_of(dtype::f16), [&](auto& cache) {
    fill(cache, r);
    cache.fill(role::position,
               [&](int b, int, int t, int) { return t < fixed[static_cast<std::size_t>(b)] ? 100 + t : 200 + 3 * t; });
    cache.view.read_only = fixed.data();
    auto const bytes = cache.snapshot();
    CHECK(run(cache, r.ours, 101) ==
          "rerotate: token 0 of sequence 0, head 0 lies in the read-only prefix at position 100 and would come to 101; "
          "shared pages are not written: begin where the prefix stays as it is, or copy it first; a prefix whose "
          "positions have gaps must be copied");
    CHECK(cache.snapshot() == bytes);
    seen const was = look(cache, 0, 0);
    REQUIRE(run(cache, r.ours, 100) == "");
    seen const now = look(cache, 0, 0);
    for (std::size_t t = 0; t < 8; ++t) CHECK(now.keys[t] == was.keys[t]);
    CHECK(now.keys[9] != was.keys[9]);
    std::vector<std::int32_t> want(37);
    std::iota(want.begin(), want.end(), 100);
    CHECK(now.positions == want);
  });
}

/// Rows that heads have in common are turned once; of MLA the rotary part turns, the latent one and V stay.
template <class Run> void turns_common_rows_once(Run run) {
  known_rope const r = small_ropes()[1];  // neighbours, all elements
  for (bool const scattered : {false, true})
    for (bool const latent : {false, true})
      layouts::with_layout(layouts::layout::hnd, shape_of(dtype::f32), [&](auto& cache) {
        CAPTURE(scattered, latent);
        component &k = cache.view.components[0], &v = cache.view.components[1];
        k.turned_by = rotation::rope;
        if (latent)  // K has a row for each head, and what is V elsewhere is the rotary part of all heads
          k.turned_by = rotation::none, v.what = role::rope, v.turned_by = rotation::rope, v.rows.head_stride = 0;
        component& turned = latent ? v : k;
        for (component& c : cache.view.components)
          if (c.what == role::position) c.rows.head_stride = 0;
        auto const place = [&](int t) { return scattered ? t ^ 1 : t; };
        cache.lengths() = {36, 0, 4};
        cache.fill(role::position, [&](int b, int, int t, int) { return position_of(b, 0, place(t)); });
        cache.view.order = scattered ? row_order::scattered : row_order::ascending;
        cache.fill(k, [](int b, int h, int t, int d) { return before(b, h, t, d); });
        cache.fill(turned, [&](int b, int h, int t, int d) {
          std::vector<real> x;
          for (int i = 0; i < D; ++i) x.push_back(before(b, latent ? 0 : h, t, i));
          return r.turned(x, position_of(b, 0, place(t)))[static_cast<std::size_t>(d)];
        });
        REQUIRE(run(cache, r.ours, 7) == "");
        double worst = 0;
        cache.for_each_slot([&](int b, int h, int t) {
          std::vector<real> x;
          for (int i = 0; i < D; ++i) x.push_back(before(b, latent ? 0 : h, t, i));
          auto const want = r.turned(x, 7 + place(t));
          for (int d = 0; d < D; ++d) {
            auto const got = static_cast<real>(cache.get(turned, b, h, t, d));
            worst = std::max(worst, std::abs(static_cast<double>(got - want[static_cast<std::size_t>(d)])));
            if (latent) CHECK(cache.get(k, b, h, t, d) == static_cast<float>(before(b, h, t, d)));
          }
          CHECK(kvevict::element<std::int32_t>(cache.view, *cache.view.find(role::position), b, h, t) == 7 + place(t));
        });
        CHECK(worst < 1e-6);
      });
}

/// Positions that all layers of a stack have in common: every layer's keys turn, the positions once.
template <class Run> void turns_stacks(Run run) {
  known_rope const r = small_ropes()[0];
  layouts::cache_shape s = shape_of(dtype::bf16);
  s.lengths = {9, 6, 9, 6};  // two layers of two sequences
  layouts::with_layout(layouts::layout::bnsh, s, [&](auto& cache) {
    fill(cache, r);
    auto& v = cache.view;
    v.pages.layers = 2;
    for (component& c : v.components)
      c.rows.page_count = 2, c.rows.layer_stride = c.what == role::position ? 0 : 2 * c.rows.page_stride;
    cache.fill(role::position, [](int b, int h, int t, int) { return position_of(b % 2, h, t); });
    std::vector<seen> old;
    for (int b = 0; b < 4; ++b)
      for (int h = 0; h < 2; ++h) old.push_back(look(cache, b, h));
    REQUIRE(run(cache, r.ours, 0) == "");
    for (int b = 0, i = 0; b < 4; ++b)
      for (int h = 0; h < 2; ++h, ++i) {
        seen const now = look(cache, b, h), &was = old[static_cast<std::size_t>(i)];
        auto const targets = targets_of(was.positions, 0);
        CHECK(now.positions == targets);
        CHECK(now.rest == was.rest);
        CHECK(distance(r, dtype::bf16, was, now, targets) < 6e-7);
      }
  });
}

/// Every refusal, its words, and that nothing has changed.
template <class Run> void refuses(Run run) {
  known_rope const r = small_ropes()[0];
  kvevict::rope const by = r.ours;
  auto const said = [&](auto change, kvevict::rope const& rope, std::int32_t first = 0) {
    std::string out;
    layouts::with_layout(layouts::layout::hnd, shape_of(dtype::f32), [&](auto& cache) {
      fill(cache, r);
      change(cache);
      auto const bytes = cache.snapshot();
      out = run(cache, rope, first);
      CHECK(cache.snapshot() == bytes);
    });
    return out;
  };
  auto const k = [](rotation by_what) { return [=](auto& cache) { cache.view.components[0].turned_by = by_what; }; };
  auto const at = [](int b, int h, int t, int p) {
    return [=](auto& cache) {
      auto const& c = *cache.view.find(role::position);
      kvevict::element<std::int32_t>(cache.view, c, b, h, t) = p;
    };
  };
  auto const nothing = [](auto&) {};
  CHECK_THAT(said(k(rotation::opaque), by), Catch::Contains("rerotate: component k is turned by something opaque"));
  CHECK_THAT(said(k(rotation::unsaid), by), Catch::Contains("rerotate: component k does not say what turned it"));
  CHECK_THAT(said(nothing, {}),
             Catch::Contains("rerotate: component k is turned by a rope, and nothing says by which"));
  CHECK_THAT(said(nothing, {10000, 26}), Catch::Contains("rerotate: a rope turns 26 elements of rows of 24"));
  CHECK_THAT(said(nothing, {10000, 13}), Catch::Contains("rerotate: a rope turns 13 elements of rows of 24"));
  CHECK_THAT(said(nothing, by, -1),
             Catch::Contains("from position -1 on; positions are 0 or more and below 2147483647"));
  CHECK_THAT(said(nothing, by, 2147483640), Catch::Contains("from position 2147483640 on; positions are"));
  CHECK_THAT(said([](auto& c) { c.view.components[2].what = role::indexer; }, by),
             Catch::Contains("rerotate: the cache has no role::position component of its own"));
  CHECK_THAT(said([](auto& c) { c.view.components[0].type = dtype::i32; }, by),
             Catch::Contains("rerotate: component k has type i32, whose rows would have to be quantised again"));
  CHECK_THAT(said(
                 [](auto& c) {
                   component v = c.view.components[0];
                   v.what = role::v, v.alias_of = 0, v.turned_by = rotation::unsaid;
                   c.view.components[1] = v;
                 },
                 by),
             Catch::Contains("rerotate: component k is to be turned and shares its bytes with another one"));
  CHECK_THAT(said([](auto& c) { c.view.components[0].rows.head_stride = 0; }, by),
             Catch::Contains("component k has one row for all heads and positions one for each"));
  CHECK(said(at(2, 1, 3, 5), by)
            .find("validate: the view calls its rows ascending, but slot 3 of sequence 2, head 1 "
                  "holds position 5 behind ") == 0);
  CHECK(said(at(0, 1, 0, -1), by) ==  // called scattered, they could not be turned, either
        "validate: the view calls its rows ascending, but slot 0 of sequence 0, head 1 holds position -1; positions "
        "are 0 or more, write each token's own into the role::position component");
  auto const scattered = [&](int p) {
    return [=](auto& cache) {
      cache.view.order = row_order::scattered;
      auto const& c = *cache.view.find(role::position);
      auto const of = [&](int t) -> std::int32_t& { return kvevict::element<std::int32_t>(cache.view, c, 2, 0, t); };
      of(4) = p == 0 ? of(1) : p;
    };
  };
  for (int const p : {0, -5})
    CHECK(said(scattered(p), by) ==
          "rerotate: the positions of sequence 2, head 0 are not distinct numbers of 0 or more; write each token's own "
          "into the role::position component");
  CHECK_THAT(said([](auto& c) { c.lengths()[0] = 1000; }, by), Catch::Contains("validate: "));
}

}  // namespace support::rerotation
