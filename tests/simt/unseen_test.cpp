// SPDX-License-Identifier: Apache-2.0
// A layer whose rows see less than its budget keeps what the newest row sees, and no more, in both contexts.
#include <algorithm>

#include "simt/same_words.hpp"

namespace unseen_test {

using namespace simt_test;
using kvevict::row_order;
using kvevict::visibility;

namespace {

/// Kept tokens lie among the protected and the seen ones, or in pages that have one of them; as many as there are, or
/// the budget.
void check(room const& r, kvevict::keep_set const& keep, visibility const& sees, std::int32_t sinks,
           std::int32_t recent, std::int32_t budget, bool pooled, std::int32_t page) {
  for (int b = 0; b < 2; ++b) {
    std::int64_t together = 0, most = 0;
    for (int h = 0; h < 2; ++h) {
      int const n = r.cache.view.length(b, h), first = sees.padding(b);
      auto const at = [&](int t) {
        return kvevict::element<std::int32_t const>(r.cache.view, *r.cache.view.find(role::position), b, h, t);
      };
      std::vector<std::int32_t> order;
      for (int t = 0; t < n; ++t) order.push_back(at(t));
      std::sort(order.begin(), order.end());
      std::int32_t const p = order.back();
      auto const stays_itself = [&](int t) {
        auto const rank = std::lower_bound(order.begin(), order.end(), at(t)) - order.begin();
        bool const is_protected = rank < sinks || rank >= n - recent;
        bool const is_seen = t >= first && ((at(t) > p - (sees.window == 0 ? p + 1 : sees.window) &&
                                             (sees.chunk == 0 || at(t) / sees.chunk == p / sees.chunk)) ||
                                            at(t) < sees.sinks);
        return is_protected || is_seen;
      };
      std::int32_t const rest = n % page;
      auto const may_stay = [&](int t) {
        bool stays = t >= n - rest;  // the part-filled page
        for (int i = t / page * page; i < std::min(n, (t / page + 1) * page); ++i) stays = stays || stays_itself(i);
        return stays;
      };
      std::int32_t count = 0;
      for (int t = 0; t < n; ++t) count += may_stay(t);
      auto const kept = keep(b, h);
      for (std::int32_t const t : kept) CHECK(may_stay(t));
      if (!pooled) CHECK(kept.size == std::min({rest + (budget - rest) / page * page, count, n}));
      together += kept.size, most += count;
    }
    if (pooled) CHECK(together <= std::min<std::int64_t>(most, 2 * budget));
  }
}

template <class Policy, class Evidence>
void look(room& r, Policy const& p, Evidence const& make, visibility const& sees, std::int32_t budget,
          bool pooled = false) {
  kvevict::host ctx;
  auto const keep = plan(ctx, p, make(r.cache.view, [](auto const& x) { return x; }).with_visibility(sees),
                         {.tokens_per_head = budget});
  CAPTURE(sees.window, sees.chunk, sees.sinks, budget);
  constexpr bool by_page = kvevict::stages::says_whole_pages<decltype(p.select)>;
  check(r, keep, sees, p.protect.sinks, p.protect.recent, budget, pooled, by_page ? r.cache.view.pages.page_size : 1);
  device_cache<std::int32_t> there(r.cache);
  cuda::device on(default_stream());
  device_memory memory;
  visibility moved = sees;
  if (moved.first_token != nullptr) moved.first_token = memory.put(sees.first_token, 2);
  cuda::keep_set out;
  kvevict::plan(on, p,
                make(there.view, [&](auto const& x) { return on_device_rows(memory, x, 2); }).with_visibility(moved),
                {.tokens_per_head = budget}, out);
  auto const back = out.read(on);
  CHECK(back.tokens == keep.tokens);
  CHECK(back.row_begin == keep.row_begin);
}

}  // namespace

TEST_CASE("a layer with a window below its budget keeps what its newest row sees") {
  std::vector<std::int32_t> const first{6, 0};
  for (visibility const& sees :
       {visibility{.window = 12}, visibility{.window = 12, .sinks = 3}, visibility{.chunk = 16},
        visibility{.first_token = first.data()}, visibility{.window = 25, .chunk = 16}, visibility{.window = 39}}) {
    room r(layouts::layout::head_pages, 1, 4);
    attention const all = all_rows(r.in);
    auto const prompts = [&](auto const& view, auto rows) { return prompt(view, rows(all.queries())); };
    auto const alone = [](auto const& view, auto) { return contents(view); };
    auto const states = [](auto const& view, auto) { return kvevict::remembered(view); };
    for (std::int32_t const budget : {20, 28}) {
      look(r, presets::snapkv({.window = 4, .pool = 3}), prompts, sees, budget);
      std::int32_t const sinks = sees.first_token == nullptr ? 2 : 0;  // padding is none
      look(r, presets::random({.seed = 5, .sinks = sinks, .recent = 3}), alone, sees, budget);
      look(r, presets::h2o({.recent = 5}), states, sees, budget);
      look(r, presets::ada_snapkv({.window = 4, .pool = 1}), prompts, sees, budget, true);
      kvevict::select::pages const by_page;
      look(r, presets::random({.seed = 5, .sinks = sinks, .recent = 3}).with(by_page), alone, sees, budget);
      look(r, presets::h2o({.recent = 5}).with(by_page), states, sees, budget);
      look(r, presets::ada_snapkv({.window = 4, .pool = 1}).with(by_page), prompts, sees, budget, true);
    }
  }
}

TEST_CASE("in scattered rows, too") {
  room r;
  r.cache.fill(role::position, [](int b, int, int t, int) { return (t * 7 + 3) % (b == 0 ? 40 : 30) * 2; });
  r.cache.view.order = row_order::scattered;
  auto const states = [](auto const& view, auto) { return kvevict::remembered(view); };
  for (visibility const& sees :
       {visibility{.window = 24}, visibility{.window = 24, .sinks = 5}, visibility{.chunk = 32}})
    for (std::int32_t const budget : {20, 28}) look(r, presets::h2o({.recent = 5}), states, sees, budget);
}

}  // namespace unseen_test
