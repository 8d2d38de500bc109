// SPDX-License-Identifier: Apache-2.0
// The verbs that act on a keep set.
#include "support/make_verb.hpp"

namespace support::verbs {
namespace {

template <class Entry> void applications_in(layouts::layout l, take const& f) {
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
void relocation_in(layouts::layout l, take const& f) {
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

void outcomes(take const& f) {
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

}  // namespace

void applications(take const& f) {
  outcomes(f);
  applications_in<std::int32_t>(layouts::layout::nhd, f);
  applications_in<std::int32_t>(layouts::layout::csr, f);
  applications_in<std::int32_t>(layouts::layout::head_blocks, f);
  applications_in<std::byte*>(layouts::layout::pointers, f);
}

}  // namespace support::verbs
