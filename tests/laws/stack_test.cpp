// SPDX-License-Identifier: Apache-2.0
// A stack of layers is planned, observed and compacted as its layers are, one by one.
#include <kvevict/kvevict.hpp>

#include "support/any_preset.hpp"
#include "support/catch.hpp"
#include "support/keep_sets.hpp"
#include "support/stack.hpp"

namespace stack_test {

using namespace support;

namespace {

constexpr std::int32_t L = 3, S = 2;

batch input(std::vector<std::size_t> const& N = {40, 33, 28, 37, 16, 41}) {
  return random_batch(51, {.Hq = 4, .H = 2, .D = 8, .N = N});
}

char const* name_of(placed p) {
  return p == placed::layers_apart ? "layers apart" : p == placed::layer_in_page ? "layer in page" : "own tables";
}

template <class F> void for_each_placement(F f) {
  for (placed const p : {placed::layers_apart, placed::layer_in_page, placed::own_tables})
    for (bool const heads_apart : {true, false}) {
      CAPTURE(name_of(p), heads_apart);
      f(p, heads_apart);
    }
}

/// Row (s, h) of a layer, and of that layer within the stack.
template <class F> void for_each_row(F f) {
  for (std::int32_t l = 0; l < L; ++l)
    for (std::int32_t s = 0; s < S; ++s)
      for (std::int32_t h = 0; h < 2; ++h) f(l, s, h);
}

std::vector<std::int32_t> tokens(kvevict::keep_set const& keep, std::int32_t b, std::int32_t h) {
  return {keep(b, h).begin(), keep(b, h).end()};
}

}  // namespace

TEST_CASE("laws: a stack is planned and compacted as its layers are") {
  batch const in = input();
  hand_in const rows(in);
  for (any_preset const& p : presets())
    for_each_placement([&](placed where, bool heads_apart) {
      if (p.name == "attention_gate" || p.over_stack || (!p.equal_counts && !heads_apart)) return;
      CAPTURE(p.name);
      stack together(in, L, where, heads_apart), apart(in, L, where, heads_apart);
      kvevict::host ctx;
      kvevict::budget const ask{.tokens_per_head = 19, .layer = 1, .layer_count = L + 2};
      auto const keep = p.plan(ctx, together.whole(), rows, ask);
      std::int64_t const entries = together.whole().pages.rows() * together.columns,
                         pages = std::int64_t{together.pages} * L;
      CHECK(static_cast<std::int64_t>(ctx.scratch().high_water()) <=
            p.workspace(ctx, {L * S, 4, 2, 8, 41, entries, pages}));
      auto const done = compact(ctx, together.whole(), keep);
      CHECK((together.pool != apart.pool || p.unlimited()));
      for (std::int32_t l = 0; l < L; ++l) {
        batch const part = layer_of(in, static_cast<std::size_t>(l), L);
        hand_in const shown(part);
        kvevict::budget of = ask;
        of.layer += l;
        auto const alone = p.plan(ctx, apart.layer(l), shown, of);
        auto const moved = compact(ctx, apart.layer(l), alone);
        for (std::int32_t s = 0; s < S; ++s)
          for (std::int32_t h = 0; h < 2; ++h) {
            CAPTURE(l, s, h);
            CHECK(tokens(keep, l * S + s, h) == tokens(alone, s, h));
            CHECK(done.length(l * S + s, h) == moved.length(s, h));
            std::int64_t const t = heads_apart ? s * 2 + h : s, of_layer = l * S * (heads_apart ? 2 : 1);
            if (where != placed::own_tables) continue;
            auto const freed = done.freed_pages(of_layer + t), expected = moved.freed_pages(t);
            CHECK(std::equal(freed.begin(), freed.end(), expected.begin(), expected.end()));
          }
      }
      CHECK((together.pool == apart.pool));
      auto const before = together.whole();
      for (std::int32_t s = 0; s < S && where != placed::own_tables; ++s)  // a common page goes when no layer needs it
        for (std::int32_t h = 0; h < (heads_apart ? 2 : 1); ++h) {
          std::int32_t stay = 0, all = 0;
          for (std::int32_t b = s; b < L * S; b += S)
            stay = std::max(stay, done.length(b, h)), all = std::max(all, before.length(b, h));
          std::vector<std::int32_t> expected;
          for (std::int32_t i = (stay + 3) / 4; i * 4 < all; ++i) expected.push_back(before.pages.entry(s, h, i));
          auto const freed = done.freed_pages(heads_apart ? s * 2 + h : s);
          CHECK(std::vector(freed.begin(), freed.end()) == expected);
        }
    });
}

TEST_CASE("laws: layers that share a budget keep it together, and a layer alone keeps its own") {
  batch const in = input();
  hand_in const rows(in);
  kvevict::budget const ask{.tokens_per_head = 19, .layer_count = L};
  for (any_preset const& p : presets()) {
    if (!p.over_stack) continue;
    CAPTURE(p.name);
    stack of(in, L, placed::own_tables, true);
    kvevict::host ctx;
    auto const keep = p.plan(ctx, of.whole(), rows, ask);
    CHECK(static_cast<std::int64_t>(ctx.scratch().high_water()) <=
          p.workspace(ctx, {L * S, 4, 2, 8, 41, of.whole().pages.rows() * of.columns, of.pages}));
    for (std::int32_t s = 0; s < S; ++s) {
      std::int64_t kept = 0;
      for (std::int32_t l = 0; l < L; ++l)
        for (std::int32_t h = 0; h < 2; ++h) kept += keep(l * S + s, h).size;
      CHECK(kept == L * 2 * 19);
    }
    for (std::int32_t l = 0; l < L; ++l) {
      hand_in const shown(layer_of(in, static_cast<std::size_t>(l), L));
      auto const alone = p.plan(ctx, of.layer(l), shown, {.tokens_per_head = 19, .layer = l, .layer_count = L});
      for (std::int32_t s = 0; s < S; ++s)
        CHECK(alone(s, 0).size + alone(s, 1).size ==
              std::min(2 * 19, 2 * int32(in.N[static_cast<std::size_t>(l * S + s)])));
    }
    compact(ctx, of.whole(), keep);
  }
}

TEST_CASE("laws: a stack observes as its layers do") {
  batch const in = input({21, 21, 21, 21, 21, 21});
  attention const rows = all_rows(in);
  auto const policy = kvevict::presets::h2o({.recent = 5});
  for_each_placement([&](placed where, bool heads_apart) {
    stack together(in, L, where, heads_apart), apart(in, L, where, heads_apart);
    kvevict::host ctx;
    kvevict::observe(ctx, policy, kvevict::prompt(together.whole(), rows.queries()),
                     {.tokens_per_head = 12, .layer_count = L});
    CHECK((together.pool != apart.pool));
    for (std::int32_t l = 0; l < L; ++l) {
      attention const part = all_rows(layer_of(in, static_cast<std::size_t>(l), L));
      kvevict::observe(ctx, policy, kvevict::prompt(apart.layer(l), part.queries()),
                       {.tokens_per_head = 12, .layer = l, .layer_count = L});
    }
    CHECK((together.pool == apart.pool));
  });
}

TEST_CASE("laws: a stack that is put together wrongly is refused, and nothing has moved") {
  batch const in = input();
  hand_in const rows(in);
  kvevict::host ctx;
  auto const says = [&](stack& of, kvevict::layer_view<std::int32_t> const& v, kvevict::budget const& ask,
                        char const* part) {
    auto const before = of.pool;
    std::string const message = refusal([&] {
      auto const keep =
          kvevict::plan(ctx, kvevict::presets::h2o({.recent = 5}), kvevict::prompt(v, rows.prompt.queries()), ask);
      compact(ctx, v, keep);
    });
    INFO(message);
    CHECK(message.find(part) != std::string::npos);
    CHECK((of.pool == before));
  };
  kvevict::budget const ask{.tokens_per_head = 19, .layer_count = L};
  stack apart(in, L, placed::layers_apart, true), own(in, L, placed::own_tables, true),
      inside(in, L, placed::layer_in_page, false);
  auto const with = [](kvevict::layer_view<std::int32_t> v, auto change) { return change(v), v; };
  says(apart, apart.whole(), {.tokens_per_head = 19, .layer = 1, .layer_count = L}, "a view of 3; give budget.layer");
  says(apart, with(apart.whole(), [](auto& v) { v.pages.layers = 4; }), ask,
       "pages.sequences counts those of all layers");
  says(apart, with(apart.whole(), [](auto& v) { v.components[0].rows.layer_stride = 0; }), ask,
       "would be written by both");
  says(apart, with(apart.whole(), [](auto& v) { v.components[1].rows.layer_stride -= 4; }), ask, "reaches behind the ");
  says(inside, with(inside.whole(), [](auto& v) { v.components[0].rows.page_stride -= 4; }), ask, "overlap each other");
  says(inside, with(inside.whole(), [](auto& v) { v.components[0].rows.layer_stride = std::int64_t{1} << 62; }), ask,
       "does not fit into 64 bits");
  says(apart,
       with(apart.whole(),
            [](auto& v) { v.pages.entries = nullptr, v.pages.page_size = 64, v.components[0].rows.layer_stride = 0; }),
       ask, "so that all would be one");
  says(own, with(own.whole(), [](auto& v) { v.pages.layer_stride = 0; }), ask, "would be written by both");
  own.table[static_cast<std::size_t>(own.columns * 5)] = own.table[0];
  says(own, own.whole(), ask, "would be written by both");
  std::string const gate = refusal([&] {
    for (any_preset const& p : presets())
      if (p.name == "attention_gate") (void)p.plan(ctx, apart.whole(), rows, ask);
  });
  CHECK(gate.find("every layer has a gate of its own") != std::string::npos);
}

}  // namespace stack_test
