// SPDX-License-Identifier: Apache-2.0
// Every cell of policy × engine × effect: the policy's keep sets are what the engine can follow, as it is or with the
// stages that the refusal names, and the verb accepts them. README.md's tables are made here; KVEVICT_WRITE_TABLES=1
// writes them.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <optional>
#include <set>
#include <string>

#include <kvevict/engines/effects.hpp>

#include "support/catch.hpp"
#include "support/presets.hpp"

namespace engines_effects_test {

using namespace kvevict;
using engines::effect;

namespace {

constexpr std::int32_t layers = 2, heads = 2, length = 32, tokens = 17;

/// One sequence in two layers, planned as a stack; or in one of them alone, for gates, of which each layer has its own.
struct planning_case {
  std::int32_t planned = layers;
  support::batch in =
      support::random_batch(3, {.Hq = 4, .H = heads, .N = std::vector<std::size_t>(std::size_t(planned), length)});
  support::hand_in rows{in};
  budget ask{.tokens_per_head = tokens, .layer = 0, .layer_count = layers};

  layouts::cache<std::int32_t> cache_for(effect o) const {
    auto shape = support::cache_shape_of(in);
    shape.page_size = 4;
    layouts::layout const l = o == effect::rewrite_table    ? layouts::layout::token_pool
                              : o == effect::tables_by_head ? layouts::layout::head_pages
                                                            : layouts::layout::hnd;
    layouts::cache<std::int32_t> out(l, shape);
    support::fill(out, in);
    out.view.pages.layers = planned, out.view.pages.layer_stride = out.view.pages.seq_stride;
    return out;
  }
};

using plan_function = std::function<keep_set(host&, layer_view<> const&, planning_case const&)>;
struct variant {
  std::string stages;  // that are added
  plan_function plan;
};
struct preset {
  std::string name;
  bool by_layer;
  std::vector<variant> variants{};  // the policy as it is, then with more and more
};

template <support::needs What, class Policy> plan_function planner(Policy const& policy) {
  return [=](host& ctx, layer_view<> const& v, planning_case const& c) {
    auto const with = [&](auto const& e) { return plan(ctx, policy, e, c.ask); };
    if constexpr (What == support::needs::nothing)
      return with(contents(v));
    else if constexpr (What == support::needs::moments)
      return with(contents(support::law_moments::unturned(v)).with_query_moments(support::law_moments(v).on_host()));
    else if constexpr (What == support::needs::future)
      return with(future(v, c.rows.future.queries()).with_lse(c.rows.future.lse.data(), c.rows.future.lse_stride(), 1));
    else if constexpr (What == support::needs::features)
      return with(prompt(v, c.rows.states.rows()));
    else
      return with(prompt(v, c.rows.prompt.queries()).with_output(support::law_output(v).on_host()));
  };
}

std::vector<preset> const& presets_with_stages() {
  static std::vector<preset> const all = [] {
    std::vector<preset> out;
    support::for_each_preset([&](auto p) {
      auto policy = p.policy;
      bool const newest = contract::keeps(policy).newest_stays;
      if (!newest) policy.protect.recent = 1;
      std::string const first = newest ? "" : "recent";
      auto const text = [&](std::string const& stages) {
        return first.empty() || stages.empty() ? first + stages : first + ", " + stages;
      };
      using support::needs;
      constexpr needs what = decltype(p)::what;
      preset r{p.name, what == needs::features, {{text(""), planner<what>(policy)}}};
      if constexpr (!decltype(policy)::equal_counts)
        r.variants.push_back({text("uniform"), planner<what>(policy.with(heads::uniform{}))});
      auto const together = policy.with(heads::together{});
      auto const alike = together.with(layers::together{});
      r.variants.push_back({text("heads"), planner<what>(together)});
      r.variants.push_back({text("heads, layers"), planner<what>(alike)});
      r.variants.push_back({text("heads, pages"), planner<what>(together.with(select::pages{}))});
      r.variants.push_back({text("heads, layers, pages"), planner<what>(alike.with(select::pages{}))});
      out.push_back(std::move(r));
    });
    return out;
  }();
  return all;
}

/// The stages that a cell needs, and its keep set.
struct cell {
  std::string stages, first_refusal, refusals;
  std::optional<keep_set> keep;
};
cell plan_cell(preset const& p, layer_view<> const& v, planning_case const& c) {
  cell out;
  host ctx;
  for (variant const& way : p.variants) {
    try {
      out.keep = way.plan(ctx, v, c);
      out.stages = way.stages;
      return out;
    } catch (contract_violation const& e) {
      if (out.first_refusal.empty()) out.first_refusal = e.what();
      out.refusals += way.stages + ": " + e.what() + '\n';
    }
  }
  return out;
}

/// All pages of the view in use once, fresh ones behind them.
struct ledger {
  std::int32_t next, last;
  std::int64_t references(std::int32_t) const { return 1; }
  bool published(std::int32_t page) const { return page % 2 == 0; }
  std::optional<std::int32_t> acquire() { return next < last ? std::optional(next++) : std::nullopt; }
  void release(std::int32_t) noexcept {}
};

/// The verb of the effect takes the keep set; what the engine gets are the lengths that were planned.
void execute(effect o, layouts::cache<std::int32_t>& cache, layer_view<> const& v, keep_set const& keep) {
  host ctx;
  auto const expect = [&](auto const& done) {
    for (std::int32_t b = 0; b < v.sequences(); ++b)
      for (std::int32_t h = 0; h < v.heads(); ++h) CHECK(done.length(b, h) == keep(b, h).size);
  };
  if (o == effect::mask) {
    std::vector<std::uint32_t> words(static_cast<std::size_t>(v.rows()) * 2);
    mask(ctx, v, keep, bit_rows<std::uint32_t>{words.data(), length, 2});
    std::int64_t set = 0;
    for (std::uint32_t const w : words) set += __builtin_popcount(w);
    CHECK(set == keep.kept());
  } else if (o == effect::drop_pages) {
    expect(drop_pages(ctx, v, keep));
  } else if (o == effect::rewrite_table) {
    expect(rewrite_table(ctx, v, keep));
  } else if (o == effect::relocate) {
    layer_view<> roomy = v;  // fresh pages behind the pool's
    std::vector<std::vector<std::byte>> more;
    std::int32_t const pages = static_cast<std::int32_t>(v.components[0].rows.page_count);
    std::vector<bool> used(static_cast<std::size_t>(pages));
    for (std::int32_t const id : cache.entries())
      if (id >= 0) used[static_cast<std::size_t>(id)] = true;
    for (std::int32_t i = 0; i < roomy.component_count; ++i) {
      row_map& m = roomy.components[static_cast<std::size_t>(i)].rows;
      more.emplace_back(static_cast<std::size_t>(m.page_stride * 2 * pages));
      m.base = more.back().data(), m.offset = 0, m.page_count = 2 * pages;
    }
    ledger of{pages, 2 * pages};
    expect(relocate(ctx, roomy, keep, of));
  } else {
    expect(compact(ctx, v, keep));
  }
}

// What a keep set must be is what decides: engines that need the same of it share a row of the second table.
std::string class_of(capability const& c) {
  if (c.masked) return "any";
  std::string out = c.whole_pages         ? "whole pages"
                    : c.one_set_for_heads ? "one set"
                    : c.equal_counts      ? "equal counts"
                                          : "any, by head";
  return c.one_set_for_layers ? out + ", all layers" : out;
}

std::string made_tables() {
  std::string out = "| engine |";
  for (int o = 0; o < engines::effects; ++o) out += std::string(" ") + engines::name_of(static_cast<effect>(o)) + " |";
  out += "\n|---|---|---|---|---|---|---|---|\n";
  char const* const marks[] = {"–", "patched", "yes"};
  for (engines::engine const& e : engines::all) {
    out += std::string("| ") + e.name + " |";
    for (auto const way : e.ways) out += std::string(" ") + marks[static_cast<int>(way)] + " |";
    out += '\n';
  }
  std::map<std::string, std::map<std::string, std::string>> of;  // preset, class
  std::vector<std::string> classes;
  planning_case const stack, layer{1};
  for (engines::engine const& e : engines::all)
    for (int i = 0; i < engines::effects; ++i) {
      auto const o = static_cast<effect>(i);
      capability const must = engines::needs(e, o);
      if (e.ways[static_cast<std::size_t>(i)] == engines::follows::no) continue;
      std::string const name = class_of(must);
      bool const fresh = std::find(classes.begin(), classes.end(), name) == classes.end();
      if (fresh) classes.push_back(name);
      for (preset const& p : presets_with_stages()) {
        planning_case const& c = p.by_layer ? layer : stack;
        auto cache = c.cache_for(o);
        auto const view = cache.view.with_capability(must);
        cell const is = plan_cell(p, view, c);
        INFO(p.name << ", " << e.name << ", " << engines::name_of(o) << ": " << is.refusals);
        std::string& text = of[p.name][name];
        if (!is.keep.has_value()) {
          REQUIRE((p.by_layer && must.one_set_for_layers));
          text = "–";
          continue;
        }
        execute(o, cache, view, *is.keep);
        if (!is.first_refusal.empty()) {  // it names a stage that is then added
          bool named = false;
          for (char const* stage : {"heads::uniform", "heads::together", "layers::together", "select::pages"}) {
            std::string const word = std::string(stage) == "heads::uniform"    ? "uniform"
                                     : std::string(stage) == "select::pages"   ? "pages"
                                     : std::string(stage) == "heads::together" ? "heads"
                                                                               : "layers";
            named = named ||
                    (is.first_refusal.find(stage) != std::string::npos && is.stages.find(word) != std::string::npos);
          }
          CHECK(named);
        }
        std::string const stages = is.stages.empty() ? "yes" : is.stages;
        CHECK((fresh || text == stages));  // the class decides
        text = stages;
      }
    }
  out += "\n| policy |";
  for (std::string const& name : classes) out += ' ' + name + " |";
  out += "\n|---|";
  for (std::size_t i = 0; i < classes.size(); ++i) out += "---|";
  out += '\n';
  for (preset const& p : presets_with_stages()) {
    out += "| `" + p.name + "` |";
    for (std::string const& name : classes) out += ' ' + of[p.name][name] + " |";
    out += '\n';
  }
  return out;
}

}  // namespace

TEST_CASE("engines: every policy becomes every effect of every engine, and the README says with which stages") {
  std::filesystem::path const file = std::filesystem::path(KVEVICT_INCLUDE_DIR) / "engines/README.md";
  std::ifstream in(file);
  std::string text{std::istreambuf_iterator<char>(in), {}};
  std::string const from = "<!-- made by tests/unit/engines/effects_test.cpp -->\n", to = "<!-- to here -->\n";
  std::size_t const a = text.find(from), b = text.find(to);
  REQUIRE(a != text.npos);
  REQUIRE(b != text.npos);
  std::string const made = made_tables();
  if (std::getenv("KVEVICT_WRITE_TABLES") != nullptr) {
    text.replace(a + from.size(), b - a - from.size(), made);
    std::ofstream(file) << text;
  } else {
    CHECK(text.substr(a + from.size(), b - a - from.size()) == made);
  }
}

}  // namespace engines_effects_test
