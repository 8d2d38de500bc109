// SPDX-License-Identifier: Apache-2.0
// What a keep set becomes where no token moves within its row: masks, runs, tables, fresh pages; and keys that are
// turned. What must hold after each.
#pragma once

#include <numeric>

#include <kvevict/kvevict.hpp>

#include "fuzz/laws.hpp"
#include "support/ledger.hpp"
#include "support/reference_rope.hpp"

namespace fuzz {

template <class Entry> struct outcomes {
  using view_type = kvevict::layer_view<Entry>;
  using laws_of = laws<Entry>;
  using ledger = support::ledger<Entry>;  // some pages have references elsewhere, some are published, few are free

  static std::vector<payloads> all_tokens(view_type const& v) {
    std::vector<payloads> out;
    for (std::int32_t r = 0; r < v.rows(); ++r) out.push_back(laws_of::tokens(v, r));
    return out;
  }
  static Entry stripped(view_type const& v, Entry e) {
    if constexpr (cache<Entry>::of_pointers)
      return e;
    else
      return static_cast<Entry>(static_cast<std::int64_t>(e) & v.pages.index_mask);
  }
  /// f(b, h) for every row of the table.
  template <class F> static void each_table_row(view_type const& v, F f) {
    std::int32_t const S = v.sequences() / v.pages.layers, layers = v.pages.layer_stride == 0 ? 1 : v.pages.layers;
    for (std::int32_t b = 0; b < S * layers; ++b)
      for (std::int32_t h = 0; h < (v.pages.per_head() ? v.heads() : std::min(1, v.heads())); ++h) f(b, h);
  }
  static std::multiset<Entry> pages(view_type const& v) {
    std::multiset<Entry> out;
    each_table_row(v, [&](std::int32_t b, std::int32_t h) {
      for (std::int32_t i = 0; i * v.pages.page_size < v.length(b, h); ++i) out.insert(v.pages.entry(b, h, i));
    });
    return out;
  }

  static ledger make_ledger(input& in, cache<Entry>& c, view_type const& v) {
    ledger out;
    for (Entry const page : pages(v)) ++out.count[page];
    if (!in.one_in(3))
      for (auto& [page, n] : out.count) {
        n += in.one_in(6);
        if (in.one_in(6)) out.hash.insert(page);
      }
    std::size_t const most = in.one_in(4) ? in.below(c.free_pages().size() + 1) : c.free_pages().size();
    for (std::size_t i = 0; i < most; ++i) out.free.push_back(stripped(v, c.free_pages()[i]));
    return out;
  }

  /// Rows have what they kept, in order, and pages are those before, with the acquired ones and without the released.
  template <class Done>
  static void check_table(view_type const& v, kvevict::keep_set const& keep, std::vector<payloads> const& was,
                          Done const& done, std::multiset<Entry> before) {
    view_type const now = done.view(v);
    for (std::int32_t r = 0; r < v.rows(); ++r) {
      auto const kept = keep.row(r);
      law(done.lengths()[r] == kept.size && now.length(r / v.heads(), r % v.heads()) == kept.size,
          "a row is as long as what it keeps");
      payloads const is = laws_of::tokens(now, r);
      for (std::int64_t i = 0; i < kept.size; ++i)
        law(is[std::size_t(i)] == was[std::size_t(r)][std::size_t(kept[i])], "the new table names the kept tokens");
      fuzz::done().cut += kept.size < keep.lengths[std::size_t(r)];
    }
    std::multiset<Entry> after = pages(now);
    for (Entry const page : done.released()) after.insert(page);
    law(after == before, "pages stay, come or are released");
  }

  /// Memory holds what it held, and in the new pages the kept tokens; no page that others know of was written.
  static void check_relocated(cache<Entry>& c, view_type const& v, kvevict::keep_set const& keep,
                              std::vector<payloads> const& was, kvevict::relocated<Entry> const& done,
                              ledger const& pages_before, image const& before) {
    image const after = c.memory;
    laws_of::restore(c, before);
    view_type const now = done.view(v);
    for (std::int32_t r = 0; r < v.rows(); ++r) {
      std::int32_t const b = r / v.heads(), h = r % v.heads();
      auto const kept = keep.row(r);
      for (std::int64_t i = 0; i < kept.size; ++i) {
        std::byte const* from = was[std::size_t(r)][std::size_t(kept[i])].data();
        for (component const& part : v)
          for (std::int32_t run = 0; run < part.rows.n_runs; ++run, from += part.rows.run_bytes)
            std::copy_n(from, part.rows.run_bytes,
                        cache<Entry>::address(now, part, b, h, static_cast<std::int32_t>(i), run));
      }
    }
    law(c.memory == after, "relocation writes the kept tokens where the new table has them, and nothing else");
    for (std::int32_t r = 0; r < v.rows(); ++r) {
      std::int32_t const b = r / v.heads(), h = r % v.heads();
      payloads const is = laws_of::tokens(v, r);
      for (std::size_t t = 0; t < is.size(); ++t) {
        auto const at = static_cast<std::int64_t>(t);
        bool const own =
            at >= v.read_only_tokens(b) && pages_before.writable(v.pages.entry(b, h, at / v.pages.page_size));
        law(own || is[t] == was[std::size_t(r)][t], "no page that is shared, published or read-only is written");
      }
    }
  }

  /// Bits and additive rows say what is kept, up to their ends; runs name the rest.
  static void look(input& in, kvevict::host& ctx, view_type const& v, kvevict::keep_set const& keep) {
    std::int32_t longest = 0;
    for (std::int32_t const n : keep.lengths) longest = std::max(longest, n);
    std::int64_t const width = longest + in.below(40), words = (width + 31) / 32, stride = words + 1,
                       floats = width + 1;
    auto const rows = static_cast<std::size_t>(v.rows());
    std::vector<std::uint32_t> bits(rows * std::size_t(stride), 0xa5a5a5a5u);
    std::vector<float> terms(rows * std::size_t(floats), 7.0f);
    kvevict::mask(ctx, v, keep, kvevict::bit_rows<std::uint32_t>{bits.data(), width, stride});
    kvevict::mask(ctx, v, keep, kvevict::additive_rows(terms.data(), width, floats * v.heads(), floats));
    bool const by_position = v.find(role::position) != nullptr && in.one_in(2);
    kvevict::evicted const runs =
        kvevict::evicted_runs(ctx, v, keep, {by_position ? kvevict::run_names::positions : kvevict::run_names::slots});
    for (std::int32_t r = 0; r < v.rows(); ++r) {
      std::int32_t const b = r / v.heads(), h = r % v.heads();
      std::vector<bool> kept(static_cast<std::size_t>(words * 32 + 1));
      for (std::int32_t const t : keep.row(r)) kept[static_cast<std::size_t>(t)] = true;
      for (std::int64_t t = 0; t < words * 32; ++t)
        law((bits[std::size_t(r * stride + t / 32)] >> (t % 32) & 1u) == kept[std::size_t(t)], "a mask's bit is kept");
      for (std::int64_t t = 0; t < width; ++t)
        law((terms[std::size_t(r * floats + t)] == 0.0f) == kept[std::size_t(t)], "an additive mask is 0 for the kept");
      law(bits[std::size_t(r * stride + words)] == 0xa5a5a5a5u && terms[std::size_t(r * floats + width)] == 7.0f,
          "what lies behind a mask's row stays");
      std::set<std::int64_t> gone;
      std::int64_t last = -2;
      for (kvevict::token_run const& run : runs(b, h)) {
        law(run.first > last && run.first < run.last, "runs ascend and do not touch");
        for (last = run.first; last < run.last; ++last) gone.insert(last);
      }
      for (std::int32_t t = 0; t < v.length(b, h); ++t) {
        std::int32_t name = t;
        if (by_position) std::memcpy(&name, cache<Entry>::address(v, *v.find(role::position), b, h, t, 0), 4);
        law((gone.erase(name) != 0) != kept[std::size_t(t)], "a token is kept, or in a run");
      }
      law(gone.empty(), "runs name nothing else");
    }
    ++done().masked;
  }

  /// Keys are those before, turned by as far as their tokens went, in long double; positions count from `first`;
  /// nothing else has changed.
  static void check_turned(cache<Entry>& c, view_type const& v, std::int32_t first, image const& before) {
    component const &k = v.components[0], &at = *v.find(role::position);
    image const after = c.memory;
    std::vector<std::vector<float>> now;
    std::vector<float> row;
    for (std::int32_t r = 0; r < v.rows(); ++r)
      for (std::int32_t t = 0; t < v.length(r / v.heads(), r % v.heads()); ++t)
        c.numbers(v, k, r / v.heads(), r % v.heads(), t, now.emplace_back());
    laws_of::restore(c, before);
    std::size_t next = 0;
    auto const width = c.rope.width == 0 ? static_cast<std::int32_t>(k.width()) : c.rope.width;
    auto const inverse = reference::inverse_frequencies({}, width);
    std::vector<std::pair<std::byte*, std::int32_t>> positions;
    std::vector<std::pair<std::byte*, std::int32_t>> rows;  // the turned bytes themselves were compared
    for (std::int32_t r = 0; r < v.rows(); ++r) {
      std::int32_t const b = r / v.heads(), h = r % v.heads();
      auto const order = laws_of::order(v, b, h);
      for (std::size_t rank = 0; rank < order.size(); ++rank) {
        std::int32_t const t = order[rank], to = first + static_cast<std::int32_t>(rank);
        std::int32_t from;
        std::byte* const place = cache<Entry>::address(v, at, b, h, t, 0);
        std::memcpy(&from, place, 4);
        positions.emplace_back(place, to);
        c.numbers(v, k, b, h, t, row);
        std::vector<reference::real> const want = reference::rotated({row.begin(), row.end()}, inverse, to - from,
                                                                     c.rope.pairs == kvevict::rope_pairs::neighbours);
        auto const& got = now[next + static_cast<std::size_t>(t)];
        double const unit = k.type == dtype::f32 ? 0x1p-20 : k.type == dtype::f16 ? 0x1p-10 : 0x1p-7;
        for (std::size_t d = 0; d < want.size(); ++d)
          law(std::abs(static_cast<double>(want[d]) - double{got[d]}) <=
                  unit * std::abs(static_cast<double>(want[d])) + 4e-6,
              "keys turn by as far as their tokens went");
      }
      next += order.size();
    }
    for (std::int32_t r = 0; r < v.rows(); ++r)
      for (std::int32_t t = 0; t < v.length(r / v.heads(), r % v.heads()); ++t)
        for (std::int32_t run = 0; run < k.rows.n_runs; ++run)
          rows.emplace_back(cache<Entry>::address(v, k, r / v.heads(), r % v.heads(), t, run), k.rows.run_bytes);
    for (auto const& [place, to] : positions) std::memcpy(place, &to, 4);
    for (std::size_t i = 0; i < after.size(); ++i)
      for (auto const& [place, bytes] : rows) {
        std::byte* const start = c.memory[i].data();
        if (place >= start && place < start + c.memory[i].size())
          std::copy_n(after[i].data() + (place - start), bytes, place);
      }
    law(c.memory == after, "re-rotation writes keys and positions and nothing else");
  }
};

}  // namespace fuzz
