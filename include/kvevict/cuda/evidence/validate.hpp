// SPDX-License-Identifier: Apache-2.0
// The checks of a view and of evidence whose arrays only the device can read.
#pragma once

#include <bit>
#include <limits>
#include <optional>

#include <kvevict/cache/tables.hpp>
#include <kvevict/cuda/context/decodable.hpp>
#include <kvevict/cuda/evidence/check_pages.hpp>
#include <kvevict/cuda/evidence/check_view.hpp>
#include <kvevict/cuda/evidence/rows.hpp>
#include <kvevict/evidence/validate.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

void has_kernel(kernels::validate_tag, device&);

/// A call that takes the results of several others, beyond the first. One thread.
///
/// Shapes   a status → a status.
struct take_over_kernel {
  static constexpr int max_threads = 32;
  watched watch;
  call_status parent;

  KVEVICT_DEVICE void operator()(thread& t) const {
    if (watch.stopped(t) || t.linear_index() != 0 || atomic_load(t, parent.raised) == 0) return;
    fault_record& to = watch.taken_over();
    for (std::int32_t i = -1; i < parent.room && to.place == 0; ++i) to = parent.records[i];
    watch.raise_from(t, to);
  }
};

/// What the host's fields show of a view.
template <class Entry> void expect_view(layer_view<Entry> const& v) {
  validation::check_shape(v);
  if (v.rows() == 0) return;
  KVEVICT_EXPECTS(
      v.pages.most_tokens() > 0,
      "validate: the page table says nothing of its width, which a device cannot look up; set pages.columns to the "
      "most pages of a row");
  KVEVICT_EXPECTS(
      !v.pages.is_identity() || (!v.pages.holds_pointers && v.pages.row_begin == nullptr),
      "validate: pages.entries is null but the table needs entries; null means a contiguous cache, page = sequence");
  validation::check_components(v);
  validation::expect_rows_apart(v);
}

/// The check of one table, `total` places for pages; and the words that it takes, which are not there yet.
template <class Entry>
check_pages_kernel<Entry> check_of_table(device& ctx, layer_view<Entry> const& v, page_use use, std::int64_t total,
                                         std::int64_t& words) {
  check_pages_kernel<Entry> k{ctx.watch(), v,    {}, {}, {nullptr}, v.pages.is_identity() ? 1 : v.pages.columns,
                              use,         false};
  std::int64_t pool = std::numeric_limits<std::int64_t>::max();
  k.of = validation::own_pages_of(v);
  k.written.parts = validation::page_parts::of(v);
  for (std::int32_t c = 0; c < v.component_count; ++c) {
    k.names[static_cast<std::size_t>(c)] = name_of(v.begin()[c].what);
    validation::id_rule const rule = k.rules[static_cast<std::size_t>(c)] = validation::rule_of(v, v.begin()[c]);
    pool = std::min(pool, rule.pool);
  }
  if constexpr (page_table<Entry>::holds_pointers) {
    k.written.slots = std::bit_ceil(static_cast<std::uint32_t>(2 * total));
    words = k.written.slots;
  } else {
    KVEVICT_EXPECTS(pool <= validation::most_pool_pages, "validate: a pool of ", pool,
                    " pages; ids lie below 2^31, and a device, which cannot look for the "
                    "largest, has a bit for each: correct page_count");
    k.written.apart = pool;
    words = (pool * k.written.parts.count() + 31) / 32;
  }
  return k;
}

/// The rest, by a kernel and one for every table: pages may be looked up once lengths are known to be right. Where rows
/// write, another one a table for prefixes, whose pages are compared with all that are written.
template <class Entry, class Rows>
void check_arrays(device& ctx, layer_view<Entry> const& v, Rows const& rows, page_use use, order_check const& order) {
  ctx.expect_sequences(v.sequences(), v.pages.layers);
  call_status const status = ctx.watch();
  if (v.rows() == 0) {  // and there is no kernel to clear it
    if (!ctx.is_sticky()) ctx.zero("status", status.raised, sizeof *status.raised);
    return;
  }
  frame scratch(ctx.scratch());
  std::int64_t const total = v.pages.rows() * (v.pages.is_identity() ? 1 : v.pages.columns);
  KVEVICT_EXPECTS(total < std::int64_t{1} << 31, "validate: the page table has ", total,
                  " places for pages; provide fewer sequences or layers at once");
  std::optional<check_pages_kernel<Entry>> tables[layer_view<Entry>::max_components];
  std::int64_t words[layer_view<Entry>::max_components], all_words = 0, count = 0;
  each_table(v, [&](layer_view<Entry> const& part) {
    tables[count] = check_of_table(ctx, part, use, total, words[count]);
    all_words += words[count++];
  });
  std::uint32_t* next = scratch.allocate<std::uint32_t>(all_words);
  auto const& parents = ctx.parents();
  std::uint32_t const blocks =
      std::max(static_cast<std::uint32_t>(v.sequences()), blocks_for(std::min<std::int64_t>(all_words, 1 << 17), 128));
  ctx.launch({blocks}, {128}, 0,
             check_view_kernel<Entry, Rows>{ctx.watch(), v, rows, order.sees, next, all_words,
                                            parents.empty() ? call_status{} : parents[0], ctx.is_sticky()});
  for (std::int64_t i = 0; i < count; next += words[i++]) {
    check_pages_kernel<Entry>& k = *tables[i];
    k.written.words = next;
    bool const looks = order.wanted && k.v.find(role::position) != nullptr;
    k.order = order_check::of(looks, total, v.pages.page_size, order.sees);
    ctx.launch({blocks_for(total * k.order.parts, 256)}, {256}, 0, k);
  }
  for (std::size_t i = 1; i < parents.size(); ++i) ctx.launch({1}, {32}, 0, take_over_kernel{ctx.watch(), parents[i]});
  if (v.read_only == nullptr || use != page_use::written) return;
  for (std::int64_t i = 0; i < count; ++i) {
    tables[i]->prefixes = true, tables[i]->order = {};
    ctx.launch({blocks_for(total, 256)}, {256}, 0, *tables[i]);
  }
}

/// The host's checks of layer_view.
///
/// Cost     O(pages) and for a read-only prefix of n pages, or n that sequences have in common, O(n²) reads of the
///          table; two or three small launches, one or two more for each component that has pages of its own.
///          Scratch: ids one bit per page of the pool, addresses 8 to 16 bytes per page of the table.
/// Notes    Of two addresses it is only found when they are equal; pages that overlap in part are found by the host's
///          checks alone. Strides alone must keep the rows of different pages apart, or ids count rows and start pages,
///          see id_rule: a device cannot sort pages to find out. So components of different tables have pools of their
///          own there.
/// Errors   contract_violation at once for what the host's fields show; the rest stops the kernels behind it and is
///          thrown by wait().
template <class Entry> void validate(device& ctx, layer_view<Entry> const& v) {
  expect_view(v);
  check_arrays(ctx, v, no_rows{}, page_use::written, {});
}

template <class View, class... Facts>
void kernel(kernels::validate_tag, device& ctx, evidence<View, Facts...> const& e, page_use use) {
  using all = evidence<View, Facts...>;
  expect_view(e.cache);
  for (component const& c : e.cache) expect_decodable(c);
  validate_shape(e);
  order_check const order{e.cache.checked_positions() != nullptr, 1, 0, e.sees};
  auto const check = [&](auto const& rows) {
    if (e.cache.sequences() != 0) {
      expect_most_rows(rows.most_rows);
      contract::check_strides(rows, farthest_row);  // where a row lies only the device sees
    }
    check_arrays(ctx, e.cache, rows, use, order);
  };
  if constexpr (has<all, facts::queries>)
    check(e.attention);
  else if constexpr (has<all, facts::weights>)
    check(e.attention);
  else if constexpr (has<all, facts::features>)
    check(e.input);
  else
    check_arrays(ctx, e.cache, no_rows{}, use, order);
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda
