// SPDX-License-Identifier: Apache-2.0
// The checks of a view and of evidence whose arrays only the device can read.
#pragma once

#include <array>

#include <kvevict/cache/validate.hpp>
#include <kvevict/cuda/rows.hpp>
#include <kvevict/evidence/validate.hpp>

namespace kvevict {
inline namespace v0 {
namespace cuda {

/// Lengths against tables, prefixes and each other, CSR offsets; one thread per row.
template <class Entry> struct check_lengths_kernel {
  static constexpr int max_threads = 128;
  watched watch;
  layer_view<Entry> v;

  KVEVICT_DEVICE void operator()(thread& t) const {
    std::int64_t const r = std::int64_t{t.block().x} * t.block_size().x + t.rank();
    if (r >= v.rows() || watch.stopped(t)) return;
    auto const b = static_cast<std::int32_t>(r / v.heads()), h = static_cast<std::int32_t>(r % v.heads());
    std::int64_t const n = v.length(b, h), fixed = v.read_only_tokens(b), room = std::min(v.pages.capacity(b, h), v.pages.most_tokens());
    bool const offsets = v.pages.row_begin == nullptr || v.pages.row_begin[v.pages.row_of(b, h)] >= 0;
    bool const alike = v.pages.per_head() || n == v.length(b, 0);
    bool const prefix = fixed >= 0 && (fixed % v.pages.page_size == 0 || fixed >= n);
    if (n < 0 || n > room || !offsets || !alike || !prefix) watch.refuse(t, fault::length, b, h, n, room);
  }
};

/// How many rows of evidence each sequence hands in; one thread per sequence.
template <class Entry, class Rows> struct check_rows_kernel {
  static constexpr int max_threads = 128;
  watched watch;
  layer_view<Entry> v;
  Rows rows;

  KVEVICT_DEVICE void operator()(thread& t) const {
    std::int64_t const i = std::int64_t{t.block().x} * t.block_size().x + t.rank();
    if (i >= v.sequences() || watch.stopped(t)) return;
    auto const b = static_cast<std::int32_t>(i);
    if (rows.rows(b) < 0 || rows.rows(b) > rows.most_rows) watch.refuse(t, fault::query_rows, b, 0, rows.rows(b), rows.most_rows);
    if constexpr (std::is_same_v<Rows, attention_rows>)
      for (std::int32_t h = 0; h < v.heads(); ++h)
        if (rows.rows(b) > 0 && v.length(b, h) > rows.slots) watch.refuse(t, fault::query_rows, b, h, rows.slots, v.length(b, h));
  }
};

/// Ids in range, and no page that two rows or one row twice would write: a bit per page. One thread per page of a table's row.
template <class Entry> struct check_ids_kernel {
  static constexpr int max_threads = 256;
  watched watch;
  layer_view<Entry> v;
  std::array<validation::id_rule, layer_view<Entry>::max_components> rules;
  std::uint32_t* written;  // (pool pages) bits, of each layer where they are apart
  std::int64_t apart;      // from a layer's bits to the next
  std::int64_t pages;      // most of a row
  bool prefixes;           // the second pass: is a page of a read-only prefix written by another row?

  KVEVICT_DEVICE void operator()(thread& t) const {
    std::int64_t const at = std::int64_t{t.block().x} * t.block_size().x + t.rank(), r = at / pages, i = at % pages;
    if (r >= v.pages.rows() || watch.stopped(t)) return;
    std::int64_t const heads = v.pages.per_head() ? v.heads() : 1;
    auto const b = static_cast<std::int32_t>(r / heads), h = static_cast<std::int32_t>(r % heads);
    if (i >= validation::pages_in_use(v, b, h)) return;
    bool const shared = i < validation::read_only_pages(v, b, h);
    if constexpr (page_table<Entry>::holds_pointers) {
      auto const address = reinterpret_cast<std::uintptr_t>(v.pages.entry(b, h, i));
      bool sound = address != 0 && address % static_cast<std::uintptr_t>(v.pages.alignment) == 0;
      for (component const& c : v) sound = sound && (address + static_cast<std::uintptr_t>(c.rows.offset)) % static_cast<std::uintptr_t>(size_of(c.type)) == 0;
      if (!sound) watch.refuse(t, fault::page, b, h, static_cast<std::int64_t>(address), i);
    } else {
      auto const id = static_cast<std::int64_t>(v.pages.entry(b, h, i));
      bool sound = true;
      for (std::int32_t c = 0; c < v.component_count; ++c) sound = sound && rules[static_cast<std::size_t>(c)].allows(id);
      if (!sound) return watch.refuse(t, fault::page, b, h, id, i);
      if (v.pages.is_identity() || shared != prefixes) return;
      std::int64_t const page = v.pages.layer_of(b) * apart + id;
      std::uint32_t const bit = 1u << (page % 32);
      std::uint32_t const before = prefixes ? written[page / 32] : atomic_or(t, &written[page / 32], bit);
      if ((before & bit) != 0) watch.refuse(t, fault::page_twice, b, h, id, i);
    }
  }
};

/// The host's checks of layer_view, except that two tables of addresses are not compared, nor pages within one read-only prefix.
///
/// Cost     O(pages), three to five small launches; scratch one bit per page of the pool.
/// Errors   contract_violation at once for what the host's fields show; the rest stops the kernels behind it and is thrown by wait().
template <class Entry> void validate(device& ctx, layer_view<Entry> const& v) {
  validation::check_shape(v);
  if (v.rows() == 0) return;
  KVEVICT_EXPECTS(v.pages.most_tokens() > 0, "validate: the page table says nothing of its width, which a device cannot look up; set pages.columns to the "
                  "most pages of a row");
  KVEVICT_EXPECTS(v.pages.alignment >= 1, "validate: pages.alignment is ", v.pages.alignment, "; give the bytes that pages are aligned to, or 1");
  KVEVICT_EXPECTS(!v.pages.is_identity() || (!v.pages.holds_pointers && v.pages.row_begin == nullptr),
                  "validate: pages.entries is null but the table needs entries; null means a contiguous cache, page = sequence");
  validation::check_components(v);
  ctx.launch({blocks_for(v.rows(), 128)}, {128}, 0, check_lengths_kernel<Entry>{ctx.watch(), v});
  ctx.settle();
  frame scratch(ctx.scratch());
  check_ids_kernel<Entry> k{ctx.watch(), v, {}, nullptr, 0, v.pages.is_identity() ? 1 : v.pages.columns, false};
  std::int64_t pool = 0;
  for (std::int32_t c = 0; c < v.component_count; ++c) {
    validation::id_rule const rule = k.rules[static_cast<std::size_t>(c)] = validation::rule_of(v, v.begin()[c]);
    pool = std::max(pool, rule.pool);
  }
  if constexpr (!page_table<Entry>::holds_pointers) {
    k.apart = validation::layers_apart(v) ? pool : 0;
    std::int64_t const words = (pool * (k.apart == 0 ? 1 : v.pages.layers) + 31) / 32;
    k.written = scratch.take<std::uint32_t>(words);
    ctx.zero(k.written, static_cast<std::size_t>(words) * 4);
  }
  ctx.launch({blocks_for(v.pages.rows() * k.pages, 256)}, {256}, 0, k);
  ctx.settle();
  k.prefixes = true;
  if (v.read_only == nullptr || page_table<Entry>::holds_pointers) return;
  ctx.launch({blocks_for(v.pages.rows() * k.pages, 256)}, {256}, 0, k);
  ctx.settle();
}

template <class View, class... Facts> void kernel(kernels::validate_tag, device& ctx, evidence<View, Facts...> const& e) {
  using all = evidence<View, Facts...>;
  validate(ctx, e.cache);
  validate_shape(e);
  auto const check = [&](auto const& rows) {
    KVEVICT_EXPECTS(e.cache.sequences() == 0 || rows.most_rows > 0,
                    "evidence: most_rows is ", rows.most_rows, "; a device cannot look row_begin up, say how many rows a sequence hands in at most");
    ctx.launch({blocks_for(e.cache.sequences(), 128)}, {128}, 0, check_rows_kernel<typename View::table_entry, std::decay_t<decltype(rows)>>{ctx.watch(), e.cache, rows});
    ctx.settle();
  };
  if constexpr (has_attention<all>) check(e.attention);
  if constexpr (has<all, facts::features>) check(e.input);
}

}  // namespace cuda
}  // namespace v0
}  // namespace kvevict
