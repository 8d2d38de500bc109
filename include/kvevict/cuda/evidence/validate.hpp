// SPDX-License-Identifier: Apache-2.0
// The checks of a view and of evidence whose arrays only the device can read.
#pragma once

#include <bit>
#include <limits>

#include <kvevict/cuda/evidence/check_pages.hpp>
#include <kvevict/cuda/evidence/rows.hpp>
#include <kvevict/evidence/validate.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

void has_kernel(kernels::validate_tag, device&);

struct no_rows {};

/// What depends on nothing that is not known yet: lengths against tables, prefixes and each other, CSR offsets, how
/// many rows of evidence each sequence provides. And zeros where the next kernel notes pages.
///
/// Shapes   a view of (B·H) rows, evidence of B sequences (or none) → words of zeros. One thread a row.
template <class Entry, class Rows> struct check_view_kernel {
  static constexpr int max_threads = 128;
  watched watch;
  layer_view<Entry> v;
  Rows rows;
  std::uint32_t* words;
  std::int64_t count;

  KVEVICT_DEVICE void operator()(thread& t) const {
    if (watch.stopped(t)) return;
    std::int64_t const r = std::int64_t{t.block().x} * t.block_size().x + t.linear_index();
    for (std::int64_t i = r; i < count; i += std::int64_t{t.grid_size().x} * t.block_size().x) words[i] = 0;
    if (r >= v.rows()) return;
    auto const b = static_cast<std::int32_t>(r / v.heads()), h = static_cast<std::int32_t>(r % v.heads());
    std::int64_t const n = v.length(b, h), fixed = v.read_only_tokens(b),
                       room = std::min(v.pages.capacity(b, h), v.pages.most_tokens());
    bool const offsets = v.pages.row_begin == nullptr || v.pages.row_begin[v.pages.row_of(b, h)] >= 0;
    bool const alike = v.pages.per_head() || n == v.length(b, 0);
    bool const prefix = fixed >= 0 && (fixed % v.pages.page_size == 0 || fixed >= n);
    if (n < 0 || n > room || !offsets || !alike) watch.refuse(t, fault::length, b, h, n, room);
    if (!prefix) watch.refuse(t, fault::read_only, b, h, fixed, v.pages.page_size);
    if constexpr (!std::is_same_v<Rows, no_rows>) check_rows(t, b, h, n);
  }

 private:
  KVEVICT_DEVICE void check_rows(thread& t, std::int32_t b, std::int32_t h, std::int64_t n) const {
    std::int32_t const from = rows.row_begin[b], to = rows.row_begin[b + 1];
    if (from < 0 || from > to) return watch.refuse(t, fault::row_begin, b, h, from, to);
    if (rows.rows(b) > rows.most_rows) watch.refuse(t, fault::query_rows, b, h, rows.rows(b), rows.most_rows);
    if constexpr (std::is_same_v<Rows, attention_rows>)
      if (to > from && n > rows.slots) watch.refuse(t, fault::query_rows, b, h, rows.slots, n);
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
  KVEVICT_EXPECTS(v.pages.alignment >= 1, "validate: pages.alignment is ", v.pages.alignment,
                  "; give the bytes that pages are aligned to, or 1");
  KVEVICT_EXPECTS(
      !v.pages.is_identity() || (!v.pages.holds_pointers && v.pages.row_begin == nullptr),
      "validate: pages.entries is null but the table needs entries; null means a contiguous cache, page = sequence");
  validation::check_components(v);
  validation::expect_rows_apart(v);
}

/// The rest, by two kernels: pages may be looked up once lengths are known to be right. A third for prefixes, whose
/// pages are compared with all that rows write.
template <class Entry, class Rows> void check_arrays(device& ctx, layer_view<Entry> const& v, Rows const& rows) {
  if (v.rows() == 0) return;
  ctx.expect_sequences(v.sequences(), v.pages.layers);
  frame scratch(ctx.scratch());
  check_pages_kernel<Entry> k{ctx.watch(), v, {}, {nullptr}, v.pages.is_identity() ? 1 : v.pages.columns, false};
  std::int64_t const total = v.pages.rows() * k.pages;
  KVEVICT_EXPECTS(total < std::int64_t{1} << 31, "validate: the page table has ", total,
                  " places for pages; provide fewer sequences or layers at once");
  std::int64_t pool = std::numeric_limits<std::int64_t>::max(), words = 0;
  k.written.parts = validation::page_parts::of(v);
  for (std::int32_t c = 0; c < v.component_count; ++c) {
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
  k.written.words = scratch.allocate<std::uint32_t>(words);
  ctx.launch({blocks_for(std::max(v.rows(), std::min<std::int64_t>(words, 1 << 17)), 128)}, {128}, 0,
             check_view_kernel<Entry, Rows>{ctx.watch(), v, rows, k.written.words, words});
  ctx.launch({blocks_for(total, 256)}, {256}, 0, k);
  k.prefixes = true;
  if (v.read_only != nullptr) ctx.launch({blocks_for(total, 256)}, {256}, 0, k);
}

/// The host's checks of layer_view.
///
/// Cost     O(pages) and for a read-only prefix of n pages O(n²) reads of the table, two or three small launches.
///          Scratch: ids one bit per page of the pool, addresses 8 to 16 bytes per page of the table.
/// Notes    Of two addresses it is only found when they are equal; pages that overlap in part are found by the host's
///          checks alone. Strides alone must keep the rows of different pages apart, or ids count rows and start pages,
///          see id_rule: a device cannot sort pages to find out.
/// Errors   contract_violation at once for what the host's fields show; the rest stops the kernels behind it and is
///          thrown by wait().
template <class Entry> void validate(device& ctx, layer_view<Entry> const& v) {
  expect_view(v);
  check_arrays(ctx, v, no_rows{});
}

template <class View, class... Facts>
void kernel(kernels::validate_tag, device& ctx, evidence<View, Facts...> const& e) {
  using all = evidence<View, Facts...>;
  expect_view(e.cache);
  validate_shape(e);
  auto const check = [&](auto const& rows, void const* data) {
    KVEVICT_EXPECTS(e.cache.sequences() == 0 || data != nullptr,
                    "evidence: rows without data or row_begin; provide (T,Hq,…) rows with their (B+1) offsets");
    KVEVICT_EXPECTS(e.cache.sequences() == 0 || rows.most_rows > 0, "evidence: most_rows is ", rows.most_rows,
                    "; a device cannot look row_begin up, say how many rows a sequence provides at most");
    if (e.cache.sequences() != 0) contract::check_strides(rows, farthest_row);  // where a row lies only the device sees
    check_arrays(ctx, e.cache, rows);
  };
  if constexpr (has<all, facts::queries>)
    check(e.attention, e.attention.data);
  else if constexpr (has<all, facts::weights>)
    check(e.attention, e.attention.weights);
  else if constexpr (has<all, facts::features>)
    check(e.input, e.input.data);
  else
    check_arrays(ctx, e.cache, no_rows{});
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda
