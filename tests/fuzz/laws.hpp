// SPDX-License-Identifier: Apache-2.0
// What must hold after a verb: of a keep set, of the whole memory, of every token's bytes, of the pages that are freed.
#pragma once

#include <kvevict/apply/compact.hpp>

#include "fuzz/policies.hpp"

namespace fuzz {

using payloads = std::vector<std::vector<std::byte>>;

template <class Entry> struct laws {
  using view_type = kvevict::layer_view<Entry>;

  /// Slots in order of position.
  static std::vector<std::int32_t> order(view_type const& v, std::int32_t b, std::int32_t h) {
    std::vector<std::int32_t> out;
    for (std::int32_t t = 0; t < v.length(b, h); ++t) out.push_back(t);
    if (v.order == kvevict::row_order::ascending) return out;
    component const& at = *v.find(role::position);
    auto const position = [&](std::int32_t t) {
      std::int32_t p;
      std::memcpy(&p, cache<Entry>::address(v, at, b, h, t, 0), 4);
      return p;
    };
    std::sort(out.begin(), out.end(), [&](auto s, auto t) { return position(s) < position(t); });
    return out;
  }

  /// What layers that share a budget are asked on average: a share of it is protected in each.
  static std::int32_t mean_of_layers(view_type const& v, kvevict::budget const& budget, std::int32_t b) {
    std::int64_t sum = 0;
    std::int32_t const S = v.sequences() / v.pages.layers;
    for (std::int32_t row = b % S; row < v.sequences(); row += S) sum += budget.of(row);
    return static_cast<std::int32_t>(sum / v.pages.layers);
  }

  /// They ascend, and the protected ones are among them.
  static void check_kept(view_type const& v, kvevict::slice<std::int32_t const> row, std::int32_t b, std::int32_t h,
                         std::int32_t want, kvevict::protect const& protect) {
    std::int32_t const n = v.length(b, h), fixed = v.read_only_tokens(b), front = std::min(protect.front(fixed), n),
                       back = std::min(protect.back(want, fixed), n - front);
    std::vector<bool> kept(static_cast<std::size_t>(n));
    for (std::int64_t i = 0; i < row.size; ++i) {
      law(row[i] >= 0 && row[i] < n && (i == 0 || row[i - 1] < row[i]), "kept tokens ascend within the row");
      kept[static_cast<std::size_t>(row[i])] = true;
    }
    auto const by_position = order(v, b, h);
    for (std::int32_t i = 0; i < front + back; ++i) {
      auto const rank = static_cast<std::size_t>(i < front ? i : n - 1 - (i - front));
      law(kept[static_cast<std::size_t>(by_position[rank])], "protected tokens are kept");
    }
  }

  /// Pages stay or go, and the part-filled last one stays.
  static void check_pages(view_type const& v, kvevict::slice<std::int32_t const> row, std::int32_t b, std::int32_t h) {
    std::int32_t const P = v.pages.page_size, n = v.length(b, h);
    std::vector<std::int32_t> kept(static_cast<std::size_t>((n + P - 1) / P));
    for (std::int64_t i = 0; i < row.size; ++i) ++kept[static_cast<std::size_t>(row[i] / P)];
    for (std::int32_t i = 0; i * P < n; ++i) {
      std::int32_t const count = kept[static_cast<std::size_t>(i)], all = std::min(P, n - i * P);
      law(count == all || (count == 0 && all == P), "pages stay or go as wholes");
    }
  }

  static void check_keep(view_type const& v, kvevict::keep_set const& keep, kvevict::budget const& budget,
                         policy<Entry> const& p) {
    law(keep.sequences == v.sequences() && keep.heads == v.heads(), "a keep set has the rows of its view");
    check_stack(v, keep, budget, p);
    for (std::int32_t b = 0; b < v.sequences(); ++b) {
      std::int64_t sum = 0, all = 0;
      std::int32_t const want = budget.of(b);
      for (std::int32_t h = 0; h < v.heads(); ++h) {
        std::int64_t const kept = keep(b, h).size;
        std::int32_t const n = v.length(b, h);
        law(keep.lengths[static_cast<std::size_t>(b * v.heads() + h)] == n, "a keep set knows the lengths");
        sum += kept, all += n;
        std::int64_t const P = v.pages.page_size, rest = n % P;
        if (p.whole_pages) check_pages(v, keep(b, h), b, h);
        if (p.capped)
          law(kept <= want, "a cap holds");
        else if (p.equal_counts && p.uniform && p.whole_pages)
          law(kept == (n <= want ? n : rest + P * ((want - rest) / P)), "a head keeps the pages that its budget holds");
        else if (p.equal_counts && p.uniform)
          law(kept == std::min(n, want), "a head keeps its budget");
        if (p.unlimited) law(kept == n, "everything is kept");
        auto protect = p.protect;
        if (p.whole_pages) protect.recent_permille = 0;  // as many of those as the budget holds
        check_kept(v, keep(b, h), b, h, p.over_stack ? mean_of_layers(v, budget, b) : want, protect);
      }
      if (p.whole_pages && !p.equal_counts)
        law(sum <= std::max<std::int64_t>(std::int64_t{want} * v.heads(), 0), "no more than the budget is kept");
      else if (p.uniform && !p.equal_counts && !p.capped)
        law(sum == std::min<std::int64_t>(all, std::int64_t{want} * v.heads()),
            "the heads of a sequence keep their budget");
    }
  }

  /// Behind padding: of a row that evicts a token none of the padding stays, and no more is kept than without it.
  static void check_padded(view_type const& v, kvevict::keep_set const& keep, kvevict::visibility const& sees,
                           kvevict::budget const& budget, policy<Entry> const& p) {
    for (std::int32_t b = 0; b < v.sequences(); ++b)
      for (std::int32_t h = 0; h < v.heads(); ++h) {
        auto const kept = keep(b, h);
        std::int32_t const n = v.length(b, h);
        std::int64_t of_padding = 0;
        for (std::int64_t i = 0; i < kept.size; ++i) {
          law(kept[i] >= 0 && kept[i] < n, "kept tokens are there");
          of_padding += kept[i] < sees.padding(b);
        }
        if (p.uniform && p.equal_counts && !p.capped && !p.whole_pages)
          law(kept.size <= std::min(n, budget.of(b)), "no more than the budget is kept behind padding");
        bool const evicts_tokens = kept.size - of_padding < n - std::min(n, sees.padding(b));
        if (!p.whole_pages) law(of_padding == 0 || !evicts_tokens, "padding goes before tokens do");
      }
  }

  /// Layers that share a budget keep it together: of every head, or of all heads.
  static void check_stack(view_type const& v, kvevict::keep_set const& keep, kvevict::budget const& budget,
                          policy<Entry> const& p) {
    std::int32_t const S = v.sequences() / v.pages.layers, unit = p.equal_counts ? 1 : std::max(v.heads(), 1);
    for (std::int32_t s = 0; s < S && p.over_stack && !p.capped; ++s)
      for (std::int32_t first = 0; first < v.heads(); first += unit) {
        std::int64_t held = 0, asked = 0, kept = 0;
        for (std::int32_t b = s; b < v.sequences(); b += S)
          for (std::int32_t h = first; h < first + unit; ++h)
            held += v.length(b, h), asked += budget.of(b), kept += keep(b, h).size;
        if (p.whole_pages)
          law(kept <= std::min(held, asked), "no more than a stack's budget is kept");
        else
          law(kept == std::min(held, asked), "layers keep the budget that they share");
      }
  }

  /// What the rows of every token of row r hold, all components one after the other.
  static payloads tokens(view_type const& v, std::int32_t r) {
    std::int32_t const b = r / v.heads(), h = r % v.heads();
    payloads out(static_cast<std::size_t>(std::max(0, v.length(b, h))));
    for (std::size_t t = 0; t < out.size(); ++t)
      for (component const& c : v) cache<Entry>::read(v, c, b, h, static_cast<std::int32_t>(t), out[t]);
    return out;
  }

  /// The whole memory is what the moves, one after the other, make of it.
  static void check_moved(cache<Entry>& c, view_type const& v, kvevict::move_plan const& p, image const& before) {
    image const after = c.memory;
    restore(c, before);
    std::vector<std::byte> row;
    for (std::int32_t r = 0; r < v.rows(); ++r)
      for (component const& part : v)
        for (std::int64_t i = p.row_begin[std::size_t(r)]; i < p.row_begin[std::size_t(r) + 1]; ++i) {
          std::int32_t const b = r / v.heads(), h = r % v.heads();
          if (part.alias_of >= 0 || (h > 0 && v.shared_by_heads(part))) continue;
          row.clear();
          cache<Entry>::read(v, part, b, h, p.sources[std::size_t(i)], row);
          for (std::int32_t run = 0; run < part.rows.n_runs; ++run)
            std::copy_n(row.data() + run * part.rows.run_bytes, part.rows.run_bytes,
                        cache<Entry>::address(v, part, b, h, p.destinations[std::size_t(i)], run));
        }
    law(c.memory == after, "moving writes the destinations of its moves and nothing else");
  }
  static void restore(cache<Entry>& c, image const& to) {
    for (std::size_t i = 0; i < to.size(); ++i) std::copy(to[i].begin(), to[i].end(), c.memory[i].begin());
  }

  /// `keep` is null where the plan is not that of a keep set.
  static void check_row(view_type const& v, kvevict::move_plan const& p, std::int32_t r, payloads const& was,
                        kvevict::keep_set const* keep, kvevict::compaction mode) {
    auto const i = static_cast<std::size_t>(r);
    std::vector<std::int32_t> slots;
    for (std::size_t t = 0; t < was.size(); ++t) slots.push_back(static_cast<std::int32_t>(t));
    for (std::int64_t k = p.row_begin[i]; k < p.row_begin[i + 1]; ++k)
      slots[static_cast<std::size_t>(p.destinations[std::size_t(k)])] =
          slots[static_cast<std::size_t>(p.sources[std::size_t(k)])];
    slots.resize(static_cast<std::size_t>(p.lengths[i]));
    payloads const is = tokens(v, r);
    for (std::size_t t = 0; t < slots.size(); ++t)
      law(is[t] == was[static_cast<std::size_t>(slots[t])], "a token's rows move together");
    std::sort(slots.begin(), slots.end());
    law(std::adjacent_find(slots.begin(), slots.end()) == slots.end(), "no token is there twice");
    done().cut += slots.size() < was.size(), done().moved += p.row_begin[i + 1] - p.row_begin[i];
    if (keep == nullptr) return;
    auto const kept = keep->row(r);
    law(std::equal(slots.begin(), slots.end(), kept.begin(), kept.end()), "the kept tokens are what is left");
    if (mode == kvevict::compaction::stable)
      for (std::int64_t k = p.row_begin[i] + 1; k < p.row_begin[i + 1]; ++k)
        law(p.destinations[std::size_t(k)] == p.destinations[std::size_t(k) - 1] + 1, "stable moves keep the order");
  }

  static void check_freed(view_type const& v, kvevict::move_plan const& p, kvevict::compacted<Entry> const& done) {
    std::vector<Entry> freed;
    std::int32_t const P = v.pages.page_size, heads = v.pages.per_head() ? 1 : std::max(v.heads(), 1),
                       layers = v.pages.is_identity() || v.pages.layer_stride != 0 ? 1 : v.pages.layers,
                       of_layer = static_cast<std::int32_t>(v.rows() / layers);
    auto const longest = [&](std::vector<std::int32_t> const& lengths, std::int32_t r) {
      std::int32_t n = 0;
      for (std::int32_t l = 0; l < layers; ++l) n = std::max(n, lengths[static_cast<std::size_t>(r + l * of_layer)]);
      return (n + P - 1) / P;
    };
    for (std::int32_t r = 0; r < of_layer; r += heads) {
      std::int32_t const first = longest(p.lengths, r);
      auto const at = done.columns(r / heads);
      law(at.last - at.first == done.freed_pages(r / heads).size && at.first == first,
          "freed columns are those of the freed pages");
      for (std::int32_t page = first; !v.pages.is_identity() && page < longest(p.lengths_before, r); ++page)
        freed.push_back(v.pages.entry(r / v.heads(), r % v.heads(), page));
    }
    auto const told = done.freed_pages();
    law(std::equal(told.begin(), told.end(), freed.begin(), freed.end()),
        "freed pages are those behind the new lengths of all layers that go by them, once");
    law(std::equal(p.lengths.begin(), p.lengths.end(), done.lengths().begin(), done.lengths().end()),
        "lengths are the plan's");
  }
};

}  // namespace fuzz
