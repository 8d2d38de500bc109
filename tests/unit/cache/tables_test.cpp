// SPDX-License-Identifier: Apache-2.0
// Components with pages of their own: what is checked, what marks a plan as old, what is said of freed pages, and which
// verbs refuse them.
#include <kvevict/apply/compact.hpp>
#include <kvevict/apply/drop_pages.hpp>
#include <kvevict/apply/relocate.hpp>
#include <kvevict/apply/rewrite_table.hpp>
#include <kvevict/kernels/host.hpp>
#include <kvevict/presets/streaming_llm.hpp>
#include <kvevict/select/pages.hpp>

#include "support/catch.hpp"
#include "support/keep_sets.hpp"
#include "support/layouts.hpp"
#include "support/ledger.hpp"

namespace cache_tables_test {

using namespace kvevict;
using layouts::layout;
using support::contains;

namespace {

/// Two sequences of 3 and 2 pages, rows of K and of V side by side in the table.
struct two_tables {
  layouts::cache<std::int32_t> cache{layout::own_pages, {.lengths = {10, 7}, .heads = 2, .page_size = 4}};
  layer_view<>& view = cache.view;
  component &k = view.components[0], &v = view.components[1];

  std::int32_t& page_of_v(int b, std::int64_t i) {
    return cache.entries()[static_cast<std::size_t>(b * view.pages.seq_stride + v.table_offset + i)];
  }
  std::int32_t& page_of_k(int b, std::int64_t i) {
    return cache.entries()[static_cast<std::size_t>(b * view.pages.seq_stride + i)];
  }
  std::string refused(page_use use = page_use::written) const {
    arena scratch;
    return support::refusal([&] { validate(view, scratch, use); });
  }
};

}  // namespace

TEST_CASE("tables: the pages that a component has of its own are checked as the table's are") {
  two_tables c;
  CHECK(c.refused().empty());
  std::int32_t const first = c.page_of_v(0, 0);
  c.page_of_v(0, 0) = 99;
  CHECK(contains(c.refused(), "page 0 of sequence 0, head 0 has id 99, but component v has"));
  c.page_of_v(0, 0) = c.page_of_v(0, 2);
  CHECK(contains(c.refused(), "component v's pages 0 and 2 of sequence 0, head 0 are the same page"));
  c.page_of_v(0, 0) = c.page_of_v(1, 1);
  CHECK(contains(c.refused(), "component v's page 1 of sequence 1, head 0 is also page 0 of sequence 0, head 0"));
  CHECK(c.refused(page_use::read).empty());  // a fork
  c.page_of_v(0, 0) = first;
  c.page_of_v(1, 2) = 99;  // behind the pages in use
  CHECK(c.refused().empty());
  c.page_of_k(0, 0) = c.page_of_k(0, 1);
  CHECK(contains(c.refused(), "validate: pages 0 and 1 of sequence 0, head 0 are the same page"));
}

TEST_CASE("tables: in one pool no page of V is one of K") {
  two_tables c;
  // the pools lie one behind the other: V's ids count on from K's
  std::int64_t const pages = c.k.rows.page_count;
  c.v.rows = c.k.rows;
  c.k.rows.page_count = c.v.rows.page_count = 2 * pages;
  for (int b = 0; b < 2; ++b)
    for (std::int64_t i = 0; i < 3 - b; ++i) c.page_of_v(b, i) += static_cast<std::int32_t>(pages);
  CHECK(c.refused().empty());
  c.page_of_v(1, 0) = c.page_of_k(0, 1);
  CHECK(contains(c.refused(), "components k and v overlap in page 1 of sequence 0, head 0 and page 0 of sequence 1"));
  CHECK(c.refused(page_use::read).empty());
  c.page_of_v(1, 0) = c.page_of_k(1, 1);
  CHECK(contains(c.refused(page_use::read), "components k and v overlap in page 1 of sequence 1, head 0 and page 0"));
}

TEST_CASE("tables: where a component may have pages of its own") {
  two_tables c;
  c.k.table_offset = 3;
  CHECK(contains(c.refused(), "component k has pages of its own, 3 entries behind the table's; that one is K's"));
  c.k.table_offset = 0;
  c.view = c.view.with([&] {
    component alias = c.v.with_table(0);
    alias.what = role::indexer, alias.alias_of = 1;
    return alias;
  }());
  CHECK(contains(c.refused(), "give it their base, strides and table"));
  c.view.components[static_cast<std::size_t>(c.view.component_count - 1)].table_offset = c.v.table_offset;
  CHECK(c.refused().empty());
  layouts::cache<std::int32_t> contiguous(layout::bnsh, {.lengths = {10, 7}, .heads = 2});
  contiguous.view.components[1].table_offset = 1;
  CHECK(contains(support::refusal([&] { validate(contiguous.view); }), "a contiguous cache has none"));
}

TEST_CASE("tables: a keep set or move plan of other pages of V is refused, and what was freed is said by columns") {
  two_tables c;
  host ctx;
  auto const keep = support::keep_of(c.view, {{1, 3}, {0, 9}, {0, 1, 2, 3, 6}, {0, 1, 2, 3, 4}});
  auto const plan = plan_moves(ctx, c.view, keep);
  std::swap(c.page_of_v(1, 0), c.page_of_v(1, 1));
  CHECK(contains(support::refusal([&] { apply(ctx, c.view, plan); }), "the pages of the view are not those"));
  std::swap(c.page_of_v(1, 0), c.page_of_v(1, 1));
  CHECK(contains(support::refusal([&] { compact(ctx, c.view, support::keep_of(c.view, {{1}, {0}, {}, {9}})); }), "; "));
  auto const done = apply(ctx, c.view, plan);
  auto const first = done.columns(0), second = done.columns(1);
  CHECK((first.first == 1 && first.last == 3));
  CHECK((second.first == 2 && second.last == 2));
  REQUIRE(done.freed_pages(0).size == 2);
  CHECK((done.freed_pages(0)[0] == c.page_of_k(0, 1) && done.freed_pages(0)[1] == c.page_of_k(0, 2)));
  CHECK_THROWS_AS(done.columns(2), contract_violation);
}

TEST_CASE("tables: verbs that make new tables refuse components with pages of their own, before anything is changed") {
  host ctx;
  two_tables c;
  auto const says = [](std::string const& text, char const* verb) {
    return contains(text, verb) && contains(text, "component v has pages of its own") && contains(text, "; compact");
  };
  auto const keep = support::keep_of(c.view, {{0, 1, 2, 3}, {0, 1, 2, 3}, {4, 5, 6}, {4, 5, 6}});
  CHECK(says(support::refusal([&] { drop_pages(ctx, c.view, keep); }), "drop_pages: "));
  support::ledger<std::int32_t> ledger;
  ledger.refer(c.view, [](auto, auto) {});
  CHECK(says(support::refusal([&] { relocate(ctx, c.view, keep, ledger); }), "relocate: "));
  layouts::cache<std::int32_t> tokens(layout::own_pages, {.lengths = {3}, .heads = 1, .page_size = 1});
  CHECK(says(support::refusal([&] {
               rewrite_table(ctx, tokens.view, support::keep_of(tokens.view, {{0, 2}}));
             }),
             "rewrite_table: "));
}

TEST_CASE("tables: plan refuses a cache with pages of its own whose tokens do not move, as no verb could evict") {
  host ctx;
  two_tables c;
  auto const policy = presets::streaming_llm().with(select::pages{});
  budget const ask{.tokens_per_head = 8};
  c.view.can.rows_move = false;
  CHECK(contains(support::refusal([&] { plan(ctx, policy, contents(c.view), ask); }),
                 "pages of its own, which drop_pages and rewrite_table do not name; say capability::masked"));
  c.view.can.masked = true;
  CHECK(support::refusal([&] { plan(ctx, policy, contents(c.view), ask); }).empty());
}

}  // namespace cache_tables_test
