// SPDX-License-Identifier: Apache-2.0
// The verbs that decide: plan and observe.
#include "support/make_verb.hpp"

namespace support::verbs {
namespace {

/// Plans of whole pages.
void plans_by_page(take const& f) {
  auto const by_page = kvevict::select::pages{};
  auto const of = [&](char const* name, auto policy) {
    f(make<kvevict::keep_set>(std::string("plan by page ") + name, make_room(layouts::layout::head_pages), false,
                              [=](auto& ctx, auto& at, kvevict::keep_set& out) {
                                kvevict::plan(ctx, policy, kvevict::contents(at.cache.view), {.tokens_per_head = 20},
                                              out);
                              }));
  };
  auto const keydiff = kvevict::presets::keydiff({.sinks = 2, .recent = 1}).with(by_page);
  of("of rows", keydiff), of("of heads that share", keydiff.with(kvevict::heads::adaptive{}));
}

}  // namespace

void plans(take const& f) {
  plans_by_page(f);
  kvevict::budget const ask{.tokens_per_head = 20, .layer = 0, .layer_count = 2};
  for (form const as : {form::queries, form::lse, form::weights})
    for (any_preset const& p : presets()) {
      if (as != form::queries && p.name != "h2o" && p.name != "snapkv" && p.name != "ahakv") continue;
      auto const r = make_room(layouts::layout::head_pages);
      r->rows.as = as;
      std::string const name = p.name + " from form " + std::to_string(static_cast<int>(as));
      f(make<kvevict::keep_set>("plan " + name, r, false, [=, &p](auto& ctx, auto& of, kvevict::keep_set& out) {
        p.plan_into(ctx, of.cache.view, of.rows, ask, out);
      }));
      if (as == form::queries)
        f(make<std::vector<float>>("scores " + name, r, false, [=, &p](auto& ctx, auto& of, std::vector<float>& out) {
          p.scores(ctx, of.cache.view, of.rows, ask, out);
        }));
    }
}

void observations(take const& f) {
  kvevict::budget const ask{.tokens_per_head = 20};
  auto const of_attention = [&](char const* name, auto policy) {
    auto const r = make_room(layouts::layout::head_pages, kvevict::state_floats(policy));
    auto const say = [&](char const* from) { return std::string("observe ") + name + " from " + from; };
    f(make<nothing>(say("queries"), r, true, [=](auto& ctx, auto& of, nothing&) {
      kvevict::observe(ctx, policy, kvevict::prompt(of.cache.view, of.prompt.queries()), ask);
    }));
    f(make<nothing>(say("LSE"), r, true, [=](auto& ctx, auto& of, nothing&) {
      auto const e = kvevict::prompt(of.cache.view, of.prompt.queries());
      kvevict::observe(ctx, policy, e.with_lse(of.prompt.lse.data(), of.prompt.lse_stride(), 1), ask);
    }));
    f(make<nothing>(say("softmax rows"), r, true, [=](auto& ctx, auto& of, nothing&) {
      kvevict::observe(ctx, policy, kvevict::prompt(of.cache.view, of.prompt.rows()), ask);
    }));
  };
  of_attention("h2o", kvevict::presets::h2o());
  of_attention("ahakv", kvevict::presets::ahakv({.recent = 8}));

  auto const policy = kvevict::presets::attention_gate(law_gate().weights(), {.threshold = 0.5f});
  auto const r = make_room(layouts::layout::head_pages, 1);
  std::int32_t const width = law_gate().shape.heads * law_gate().shape.width, floats = 2 * 70 * width;
  r->memory.assign(static_cast<std::size_t>(2 * floats), -3.0f);
  auto const tokens = std::make_shared<std::vector<std::int32_t>>(2, 0);
  f(make<nothing>("observe attention_gate", r, true, [=](auto& ctx, auto& of, nothing&) {
    auto const in = of.rows.states.rows({of.memory.data(), floats, 70, tokens->data()});
    kvevict::observe(ctx, policy, kvevict::prompt(of.cache.view, in), {.tokens_per_head = kvevict::budget::no_cap});
  }));
}

}  // namespace support::verbs
