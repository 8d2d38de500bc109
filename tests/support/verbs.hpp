// SPDX-License-Identifier: Apache-2.0
// Every verb of the library in one shape: a call, what the engine owns, and the result. For tests of what is left when
// a call fails in the middle.
#pragma once

#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <kvevict/kvevict.hpp>

#include "support/any_preset.hpp"
#include "support/batch_cache.hpp"
#include "support/gate_case.hpp"
#include "support/keep_sets.hpp"
#include "support/paged_engine.hpp"

namespace support {

using bytes = std::vector<std::byte>;

template <class T> void append_bytes(bytes& to, T const* from, std::size_t count) {
  auto const old = to.size();
  to.resize(old + count * sizeof(T));
  if (count != 0) std::memcpy(to.data() + old, from, count * sizeof(T));
}
template <class T> void append_bytes(bytes& to, std::vector<T> const& from) {
  append_bytes(to, from.data(), from.size());
}

struct verb {
  std::string name;
  std::function<void(kvevict::host&)> call;  // writes the result that it keeps
  std::function<bytes()> owned;              // everything that the engine owns
  std::function<void(bytes const&)> restore;
  std::function<bytes()> result;  // raises contract_violation where there is none
  std::function<void()> forget;   // the result is as before the first call, its memory given back
  bool writes = false;            // what the engine owns
};

namespace verbs {

inline bytes bytes_of(kvevict::keep_set const& keep) {
  bytes out;
  for (std::int64_t r = 0; r < keep.rows(); ++r) {
    auto const row = keep.row(r);
    append_bytes(out, row.data, static_cast<std::size_t>(row.size));
  }
  append_bytes(out, keep.lengths), append_bytes(out, keep.row_begin);
  return out;
}
template <class Entry> bytes bytes_of(kvevict::compacted<Entry> const& done) {
  bytes out;
  append_bytes(out, done.lengths().data, static_cast<std::size_t>(done.lengths().size));
  append_bytes(out, done.freed_pages().data, static_cast<std::size_t>(done.freed_pages().size));
  auto const order = static_cast<std::int64_t>(done.order());
  append_bytes(out, &order, 1);
  return out;
}
inline bytes bytes_of(kvevict::move_plan const& plan) {
  KVEVICT_EXPECTS(!plan.refused, "the plan says that it is none");
  bytes out;
  append_bytes(out, plan.sources), append_bytes(out, plan.destinations), append_bytes(out, plan.row_begin);
  append_bytes(out, plan.lengths), append_bytes(out, plan.lengths_before);
  return out;
}
inline bytes bytes_of(kvevict::replaced const& done) {
  bytes out;
  append_bytes(out, done.slots().data, static_cast<std::size_t>(done.slots().size));
  return out;
}
inline bytes bytes_of(kvevict::evicted const& done) {
  bytes out;
  for (std::int32_t b = 0; b < 2; ++b)  // of a room
    for (std::int32_t h = 0; h < 2; ++h) {
      auto const runs = done(b, h);
      append_bytes(out, runs.data, static_cast<std::size_t>(runs.size));
    }
  return out;
}
template <class Entry> bytes bytes_of(kvevict::new_table<Entry> const& done) {
  bytes out;
  append_bytes(out, done.lengths().data, static_cast<std::size_t>(done.lengths().size));
  append_bytes(out, done.entries().data, static_cast<std::size_t>(done.entries().size));
  append_bytes(out, done.released().data, static_cast<std::size_t>(done.released().size));
  return out;
}
template <class Entry> bytes bytes_of(kvevict::relocated<Entry> const& done) {
  return bytes_of(static_cast<kvevict::new_table<Entry> const&>(done));
}
inline bytes bytes_of(std::vector<float> const& values) {
  bytes out;
  append_bytes(out, values);
  return out;
}

/// A cache with the batch in it, and what a verb needs beside it.
template <class Entry> struct room {
  batch in;
  hand_in rows;
  attention prompt;
  layouts::cache<Entry> cache;
  std::vector<float> memory;  // of a gate

  room(layouts::layout l, batch b, layouts::cache_shape shape)
      : in(std::move(b)), rows(in), prompt(all_rows(in)), cache(l, std::move(shape)) {
    fill(cache, in);
    if (cache.shape().state_floats > 0)
      cache.fill(kvevict::role::state,
                 [](int b_, int h, int t, int) { return 0.1f * static_cast<float>(b_ + h + t % 7); });
  }
};
template <class Entry = std::int32_t>
std::shared_ptr<room<Entry>> make_room(layouts::layout l, std::int32_t state_floats = 0) {
  batch in = random_batch(91, {.Hq = 4, .H = 2, .D = 8, .N = {30, 30}});
  auto shape = cache_shape_of(in);
  shape.page_size = 8, shape.state_floats = state_floats;
  return std::make_shared<room<Entry>>(l, std::move(in), std::move(shape));
}

/// call(ctx, room, result).
template <class Result, class Entry, class Call>
verb make(std::string name, std::shared_ptr<room<Entry>> r, bool writes, Call call) {
  auto const result = std::make_shared<Result>();
  verb out;
  out.name = std::move(name), out.writes = writes;
  out.call = [=](kvevict::host& ctx) { call(ctx, *r, *result); };
  out.owned = [=] {
    bytes all;
    for (bytes const& b : r->cache.snapshot()) append_bytes(all, b);
    append_bytes(all, r->memory);
    return all;
  };
  out.restore = [=](bytes const& from) {
    auto buffers = r->cache.snapshot();
    auto at = from.begin();
    for (bytes& b : buffers) {
      auto const end = at + static_cast<std::ptrdiff_t>(b.size());
      std::copy(at, end, b.begin()), at = end;
    }
    r->cache.restore(buffers);
    if (!r->memory.empty()) std::memcpy(r->memory.data(), &*at, r->memory.size() * sizeof(float));
  };
  out.result = [=] { return bytes_of(*result); };
  out.forget = [=] { *result = Result(); };
  return out;
}

/// Plans of whole pages.
template <class F> void plans_by_page(F&& f) {
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

/// Every preset from one form of evidence, those that read attention each in its own way from all.
template <class F> void plans(F&& f) {
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

struct nothing {};
inline bytes bytes_of(nothing) { return {}; }

template <class F> void observations(F&& f) {
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

template <class Entry, class F> void applications_in(layouts::layout l, F&& f) {
  auto const r = make_room<Entry>(l, 1);
  reference::generator random(7);
  kvevict::keep_set const keep = random_keep(random, r->cache.view, r->cache.per_head());
  std::string const where = std::string(" in ") + r->cache.name();
  for (auto const mode : {kvevict::compaction::stable, kvevict::compaction::fill_holes}) {
    std::string const how = mode == kvevict::compaction::stable ? " stable" : " fill_holes";
    f(make<kvevict::compacted<Entry>>("compact" + how + where, r, true, [=](auto& ctx, auto& of, auto& out) {
      kvevict::compact(ctx, of.cache.view, keep, mode, out);
    }));
    f(make<kvevict::move_plan>("plan_moves" + how + where, r, false, [=](auto& ctx, auto& of, auto& out) {
      kvevict::plan_moves(ctx, of.cache.view, keep, mode, out);
    }));
    kvevict::host ctx;
    auto const plan = kvevict::plan_moves(ctx, r->cache.view, keep, mode);
    f(make<kvevict::compacted<Entry>>("apply" + how + where, r, true, [=](auto& c, auto& of, auto& out) {
      kvevict::apply(c, of.cache.view, plan, out);
    }));
  }
  std::vector<std::vector<std::int32_t>> rows;
  for (std::int64_t i = 0; i < r->cache.view.rows(); ++i) rows.push_back(random_row(random, 30, 29));
  kvevict::keep_set const one = keep_of(r->cache.view, rows);
  f(make<kvevict::replaced>("replace" + where, r, false,
                            [=](auto& ctx, auto& of, auto& out) { kvevict::replace(ctx, of.cache.view, one, out); }));
  for (auto const order : {kvevict::row_order::ascending, kvevict::row_order::scattered})
    f(make<nothing>("rerotate" + where + (order == kvevict::row_order::scattered ? " scattered" : ""), r, true,
                    [=](auto& ctx, auto& of, nothing&) {
                      auto view = of.cache.view.with_order(order);
                      view.components[0].turned_by = kvevict::rotation::rope;
                      kvevict::rerotate(ctx, view, {10000}, 40000);
                    }));
}
/// A ledger of the room's pages, of which two are published; it belongs to what the engine owns.
template <class F> void relocation_in(layouts::layout l, F&& f) {
  auto const r = make_room(l, 1);
  auto const& view = r->cache.view;
  page_counts counts(static_cast<std::int32_t>(view.components[0].rows.page_count));
  for (std::int32_t const page : r->cache.entries()) {
    if (page < 0) continue;
    ++counts.count[static_cast<std::size_t>(page)];
    counts.free.erase(std::find(counts.free.begin(), counts.free.end(), page));
  }
  for (std::int32_t const page : {view.pages.entry(0, 0, 1), view.pages.entry(1, 1, 0)})
    counts.is_published[static_cast<std::size_t>(page)] = 1;
  auto const ledger = std::make_shared<page_counts>(counts);
  reference::generator random(8);
  kvevict::keep_set const keep = random_keep(random, view, r->cache.per_head());
  verb v = make<kvevict::relocated<std::int32_t>>(
      std::string("relocate in ") + r->cache.name(), r, true,
      [=](auto& ctx, auto& of, auto& out) { kvevict::relocate(ctx, of.cache.view, keep, *ledger, out); });
  v.owned = [=, of_cache = v.owned] {
    bytes all = of_cache();
    append_bytes(all, ledger->count), append_bytes(all, ledger->free);
    return all;
  };
  v.restore = [=, of_cache = v.restore](bytes const& from) { of_cache(from), *ledger = counts; };
  f(v);
}

template <class F> void outcomes(F&& f) {
  for (auto const l : {layouts::layout::nhd, layouts::layout::csr, layouts::layout::head_blocks}) relocation_in(l, f);
  auto const r = make_room(layouts::layout::token_pool);
  reference::generator random(9);
  auto const row = random_row(random, 30, 20);
  kvevict::keep_set const keep = keep_of(r->cache.view, {row, row, row, row});
  f(make<kvevict::rewritten<std::int32_t>>("rewrite_table", r, false, [=](auto& ctx, auto& of, auto& out) {
    kvevict::rewrite_table(ctx, of.cache.view, keep, out);
  }));
  auto const paged = make_room(layouts::layout::nhd);
  std::vector<std::int32_t> some;  // pages 1 and 3 of 8 tokens, of which the last holds 6
  for (std::int32_t t = 0; t < 30; ++t)
    if (t / 8 % 2 == 1) some.push_back(t);
  kvevict::keep_set const pages = keep_of(paged->cache.view, {some, some, some, some});
  f(make<kvevict::dropped<std::int32_t>>("drop_pages", paged, false, [=](auto& ctx, auto& of, auto& out) {
    kvevict::drop_pages(ctx, of.cache.view, pages, out);
  }));
  f(make<kvevict::evicted>("evicted_runs", r, false, [=](auto& ctx, auto& of, auto& out) {
    kvevict::evicted_runs(ctx, of.cache.view, keep, {kvevict::run_names::positions}, out);
  }));
}
template <class F> void applications(F&& f) {
  outcomes(f);
  applications_in<std::int32_t>(layouts::layout::nhd, f);
  applications_in<std::int32_t>(layouts::layout::csr, f);
  applications_in<std::int32_t>(layouts::layout::head_blocks, f);
  applications_in<std::byte*>(layouts::layout::pointers, f);
}

}  // namespace verbs

}  // namespace support
