// SPDX-License-Identifier: Apache-2.0
// Whether rows share bytes where strides alone do not tell: pages in use are sorted by address, and only those that
// come close to each other are compared.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>

#include <kvevict/cache/near_pages.hpp>
#include <kvevict/cache/validate_doubles.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace validation {

/// Compares every page in use with every other one and with itself, component by component. Exact: two rows share a
/// byte, or not; an overlap of two pages that nobody writes is none.
///
/// Cost     a sort for each pair of components, then near_pages. Where that gives up, or where thorough_steps do not
///          suffice to exclude that two pages share a byte, the view is refused; no strides of an engine come near it.
template <class Entry> class page_search {
 public:
  page_search(layer_view<Entry> const& v, frame& scratch, std::int64_t pages)
      : v_(v), a_(scratch.allocate<page_place>(pages)), b_(scratch.allocate<page_place>(pages)), pages_(pages) {}

  /// All components, or those of different tables alone.
  void run(bool of_one_table) {
    for (component const* c = v_.begin(); c != v_.end(); ++c) {
      if (c->alias_of != -1) continue;
      if (of_one_table && overlaps_itself(page_of(*c), thorough_steps)) violate_rows(*c, {});
      locate(*c, a_);
      if (of_one_table) expect_single(*c);
      for (component const* d = c; d != v_.end(); ++d) {
        if (d->alias_of != -1 || (!of_one_table && d->table_offset == c->table_offset)) continue;
        if (d != c) locate(*d, b_);
        c_ = c, d_ = d;
        bool const done = near_pages(a_, second(), pages_, [&](std::int64_t i, std::int64_t j) {
                            judge(i, j);
                          }).compare(page_of(*c), page_of(*d));
        KVEVICT_EXPECTS(done, "validate: pages of components ", name_of(c->what), " and ", name_of(d->what),
                        " lie among each other in more ways than can be compared in time; give strides that nest, from "
                        "a row's bytes over slots and heads to pages");
      }
    }
  }

 private:
  /// The rows of one page that are one table row's; from its first byte.
  footprint page_of(component const& c) const {
    footprint f = kvevict::footprint_of(c.rows, 1, 1, v_.pages.per_head() ? 1 : v_.heads(), v_.pages.page_size, true);
    f.start = 0;
    return f;
  }
  std::int64_t address(component const& c, std::int32_t b, std::int32_t h, std::int64_t i) const {
    row_map const& m = c.rows;
    std::int64_t const at = m.offset + m.row_offset(v_.pages.layer_of(b), h, 0);
    if constexpr (page_table<Entry>::holds_pointers)
      return static_cast<std::int64_t>(reinterpret_cast<std::intptr_t>(v_.pages.entry(b, h, i, c.table_offset))) + at;
    else
      return static_cast<std::int64_t>(reinterpret_cast<std::intptr_t>(m.base)) + at +
             static_cast<std::int64_t>(v_.pages.entry(b, h, i, c.table_offset)) * m.page_stride;
  }
  void locate(component const& c, page_place* out) const {
    std::int64_t n = 0;
    for_each_table_row(v_, [&](std::int32_t b, std::int32_t h) {
      std::int64_t const fixed = read_only_pages(v_, b, h), pages = pages_in_use(v_, b, h);
      for (std::int64_t i = 0; i < pages; ++i) {
        auto const page = static_cast<std::int32_t>(i);
        out[n++] = {address(c, b, h, i), b * v_.heads() + h, i < fixed ? ~page : page};
      }
    });
    std::sort(out, out + n);
  }

  /// One row of bytes is all heads' or all layers' own by declaration.
  bool declared_shared(component const& c, page_place const& x, page_place const& y) const {
    table_place const p = place(x), q = place(y);
    return p.i == q.i && v_.pages.sequence_of(p.b) == v_.pages.sequence_of(q.b) &&
           (p.h == q.h || (c.rows.head_stride == 0 && v_.pages.is_identity())) &&
           (p.b == q.b || v_.shared_by_layers(c));
  }
  /// Pages at the same address are the same: of two rows that only read it, or else it is there twice. A written one
  /// meets all that are only read, which lie before it.
  void expect_single(component const& c) const {
    for (std::int64_t i = 1; i < pages_; ++i)
      for (std::int64_t j = i - 1; j >= 0 && a_[j].at == a_[i].at; --j) {
        if (!harmless(a_[j], a_[i]) && !declared_shared(c, a_[j], a_[i]))
          violate_double(place(a_[i]), place(a_[j]), own_pages_of(v_));
        if (a_[i].read_only() || !a_[j].read_only()) break;
      }
  }
  /// Rows of a contiguous sequence are one.
  std::int32_t owner(page_place const& x) const { return v_.pages.is_identity() ? x.row / v_.heads() : x.row; }
  bool harmless(page_place const& x, page_place const& y) const {
    return owner(x) != owner(y) && x.read_only() && y.read_only();
  }
  table_place place(page_place const& x) const { return {x.row / v_.heads(), x.row % v_.heads(), x.index()}; }

  page_place const* second() const { return c_ == d_ ? a_ : b_; }

  /// Whether one row is among both runs of read-only pages, from i and from j on, that overlap; then x and y are its.
  bool common_row(std::int64_t i, std::int64_t j, page_place& x, page_place& y) const {
    page_place const* const other = second();
    std::int64_t const i_end = run_end(a_, i, pages_), j_end = run_end(other, j, pages_);
    while (i < i_end && j < j_end && owner(a_[i]) != owner(other[j])) ++(owner(a_[i]) < owner(other[j]) ? i : j);
    if (i == i_end || j == j_end) return false;
    x = a_[i], y = other[j];
    return true;
  }
  void judge(std::int64_t i, std::int64_t j) const {
    page_place x = a_[i], y = second()[j];
    if (x.read_only() && y.read_only() && !common_row(i, j, x, y)) return;
    if (c_ == d_ && (y.row != x.row ? y.row < x.row : y.index() < x.index())) std::swap(x, y);
    violate(x, y);
  }

  [[noreturn]] void violate(page_place const& x, page_place const& y) const {
    table_place const p = place(x), q = place(y);
    bool const same = x.row == y.row && x.index() == y.index();
    std::string const where =
        " in page " + contract::number(p.i) + " of " + contract::text_of(messages::row(p.b, p.h)) +
        (same ? std::string()
              : " and page " + contract::number(q.i) + " of " + contract::text_of(messages::row(q.b, q.h)));
    if constexpr (page_table<Entry>::holds_pointers) {
      auto const begin = [&](component const& c, table_place const& at) {
        return reinterpret_cast<std::intptr_t>(v_.pages.entry(at.b, at.h, at.i, c.table_offset));
      };
      auto const apart = static_cast<std::int64_t>(begin(*d_, q) - begin(*c_, p));
      if (!same && apart != 0)
        contract::violate("validate: page ", apart > 0 ? q.i : p.i, " of ",
                          apart > 0 ? messages::row(q.b, q.h) : messages::row(p.b, p.h), " begins ",
                          apart > 0 ? apart : -apart, " bytes into page ", apart > 0 ? p.i : q.i, " of ",
                          apart > 0 ? messages::row(p.b, p.h) : messages::row(q.b, q.h),
                          " and overlaps it; correct the table");
    }
    if (c_ == d_) violate_rows(*c_, where);
    violate_components(*c_, *d_, where);
  }

  layer_view<Entry> const& v_;
  page_place *a_, *b_;
  std::int64_t pages_;
  component const *c_ = nullptr, *d_ = nullptr;
};

/// Every row apart from every other one, page by page; or, of several tables, from those of other tables.
template <class Entry> void check_places(layer_view<Entry> const& v, arena& memory, bool of_one_table = true) {
  frame scratch(memory);
  page_search<Entry>(v, scratch, count_pages(v)).run(of_one_table);
}

}  // namespace validation
}  // namespace KVEVICT_ABI
}  // namespace kvevict
