// SPDX-License-Identifier: Apache-2.0
// Whether rows share bytes where strides alone do not tell: pages in use are sorted by address, and only those that
// come close to each other are compared.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>

#include <kvevict/cache/validate_pages.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace validation {

/// A page in use, by the address of its first byte in one component.
struct page_place {
  std::int64_t at;
  std::int32_t row, page;  // row b·heads + h; page < 0: ~index of a read-only one

  constexpr bool read_only() const { return page < 0; }
  constexpr std::int32_t index() const { return page < 0 ? ~page : page; }
};

/// Which differences of two pages' addresses were found to keep them apart: most pages of a cache differ by the same
/// few.
class known_differences {
 public:
  bool has(std::int64_t d) const { return known_[slot(d)] == d; }
  void add(std::int64_t d) { known_[slot(d)] = d; }

 private:
  static constexpr std::size_t slot(std::int64_t d) {
    return static_cast<std::size_t>(static_cast<std::uint64_t>(d) * 0x9e3779b97f4a7c15u >> 56);
  }
  std::int64_t known_[256] = {1};  // no place of 1 is the first, so that 0 is not known
};

/// Compares every page in use with every other one and with itself, component by component. Exact: two rows share a
/// byte, or not; an overlap of two pages that nobody writes is none.
///
/// Cost     a sort for each pair of components, then as many comparisons as pages come within the extent of each other:
///          2·H of each page where H heads interleave. Strides that reach far over other pages are taken apart first.
///          Beyond `limit` comparisons a page the view is refused, and the message says so.
template <class Entry> class page_search {
 public:
  page_search(layer_view<Entry> const& v, frame& scratch, std::int64_t pages)
      : v_(v), a_(scratch.allocate<page_place>(pages)), b_(scratch.allocate<page_place>(pages)), pages_(pages) {}

  void run() {
    for (component const* c = v_.begin(); c != v_.end(); ++c) {
      if (c->alias_of != -1) continue;
      if (overlaps_itself(page_of(*c), thorough)) violate_rows(*c, {});
      locate(*c, a_);
      expect_single(*c);
      for (component const* d = c; d != v_.end(); ++d) {
        if (d->alias_of != -1) continue;
        if (d != c) locate(*d, b_);
        c_ = c, d_ = d, left_ = limit * (pages_ + 4096);
        meet(page_of(*c), page_of(*d));
      }
    }
  }

 private:
  static constexpr std::int64_t limit = 1024;
  static constexpr std::int32_t thorough = 1 << 16;

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
      return static_cast<std::int64_t>(reinterpret_cast<std::intptr_t>(v_.pages.entry(b, h, i))) + at;
    else
      return static_cast<std::int64_t>(reinterpret_cast<std::intptr_t>(m.base)) + at +
             static_cast<std::int64_t>(v_.pages.entry(b, h, i)) * m.page_stride;
  }
  /// Sorted by address; there the read-only ones first, by row.
  void locate(component const& c, page_place* out) const {
    std::int64_t n = 0;
    for_each_table_row(v_, [&](std::int32_t b, std::int32_t h) {
      std::int64_t const fixed = read_only_pages(v_, b, h), pages = pages_in_use(v_, b, h);
      for (std::int64_t i = 0; i < pages; ++i) {
        auto const page = static_cast<std::int32_t>(i);
        out[n++] = {address(c, b, h, i), b * v_.heads() + h, i < fixed ? ~page : page};
      }
    });
    std::sort(out, out + n, [](page_place const& x, page_place const& y) {
      return x.at != y.at ? x.at < y.at : x.read_only() != y.read_only() ? x.read_only() : x.row < y.row;
    });
  }

  /// One row of bytes is all heads' own by declaration.
  bool declared_shared(component const& c, page_place const& x, page_place const& y) const {
    return c.rows.head_stride == 0 && v_.pages.is_identity() && x.row / v_.heads() == y.row / v_.heads();
  }
  /// Pages at the same address are the same: of two rows that only read it, or else it is there twice.
  void expect_single(component const& c) const {
    for (std::int64_t i = 1; i < pages_; ++i)
      if (a_[i].at == a_[i - 1].at && !harmless(a_[i - 1], a_[i]) && !declared_shared(c, a_[i - 1], a_[i]))
        violate_double(place(a_[i]), place(a_[i - 1]));
  }
  /// Rows of a contiguous sequence are one.
  std::int32_t owner(page_place const& x) const { return v_.pages.is_identity() ? x.row / v_.heads() : x.row; }
  bool harmless(page_place const& x, page_place const& y) const {
    return owner(x) != owner(y) && x.read_only() && y.read_only();
  }
  table_place place(page_place const& x) const { return {x.row / v_.heads(), x.row % v_.heads(), x.index()}; }

  /// The end of the read-only pages at the address of i, which is the first of them; of a written one i + 1.
  std::int64_t run_end(page_place const* of, std::int64_t i) const {
    std::int64_t j = i + 1;
    while (of[i].read_only() && j < pages_ && of[j].at == of[i].at && of[j].read_only()) ++j;
    return j;
  }
  /// Whether one row is among both runs of read-only pages, [i, …) and [j, …), that overlap.
  bool common_row(std::int64_t i, page_place const* other, std::int64_t j, page_place& x, page_place& y) {
    std::int64_t const i_end = run_end(a_, i), j_end = run_end(other, j);
    left_ -= i_end - i + j_end - j;
    while (i < i_end && j < j_end && owner(a_[i]) != owner(other[j])) ++(owner(a_[i]) < owner(other[j]) ? i : j);
    if (i == i_end || j == j_end) return false;
    x = a_[i], y = other[j];
    return true;
  }

  page_place const* second() const { return c_ == d_ ? a_ : b_; }

  /// All pairs of a page of c_ with rows f and one of d_ with rows g, both from the page's address. Far strides are
  /// taken apart, index by index, while this makes fewer pairs come close.
  void meet(footprint const& f, footprint const& g) {
    page_place const* const b = second();
    std::int64_t const low = b[0].at + g.start - (a_[pages_ - 1].at + f.start),
                       high = b[pages_ - 1].at + g.start - (a_[0].at + f.start);  // of differences
    if (low >= f.span() || -high >= g.span()) return;
    if (f.count + g.count == 0) return sweep(f, g);
    bool const of_g = f.outer().stride < g.outer().stride, alike = f.outer().stride == g.outer().stride;
    footprint const inner_f = of_g ? f : f.inner(0), inner_g = of_g || alike ? g.inner(0) : g;
    auto const [extent, stride] = of_g ? g.outer() : f.outer();
    std::int64_t const from = alike ? 1 - g.outer().extent : 0, bytes = inner_f.span() + inner_g.span();
    // index i of f moves its rows up, one of g those of g: as far as differences reach
    std::int64_t const first = std::max(from, of_g ? footprints::floor_div(-inner_g.span() - high, stride) + 1
                                                   : footprints::floor_div(low - inner_f.span(), stride) + 1),
                       last = std::min(extent - 1, of_g ? footprints::floor_div(inner_f.span() - 1 - low, stride)
                                                        : footprints::floor_div(high + inner_g.span() - 1, stride));
    double const spread = static_cast<double>(std::max<std::int64_t>(1, high - low)), n = static_cast<double>(pages_),
                 together = static_cast<double>(f.span() + g.span()) * n / spread,
                 apart = static_cast<double>(bytes) * n / spread + 2;
    if (static_cast<double>(last - first + 1) * apart >= together + 2) return sweep(f, g);
    for (std::int64_t i = first; i <= last; ++i) {
      footprint x = inner_f, y = inner_g;
      (of_g ? y : x).start += i * stride;
      meet(x, y);
    }
  }

  /// The same by one pass over both, all pages within reach of each.
  void sweep(footprint const& f, footprint const& g) {
    page_place const* const b = second();
    known_differences apart;
    left_ -= pages_;
    std::int64_t const reach_f = f.span(), reach_g = g.span(), shift = g.start - f.start;
    footprint first = f, then = g;
    first.start = 0;
    std::int64_t low = 0;
    for (std::int64_t j = 0; j < pages_; j = run_end(b, j)) {
      while (low < pages_ && b[j].at + shift - a_[low].at >= reach_f) ++low;
      for (std::int64_t i = low; i < pages_ && a_[i].at - (b[j].at + shift) < reach_g; i = run_end(a_, i)) {
        std::int64_t const difference = b[j].at + shift - a_[i].at;
        if (c_ == d_ && a_[i].at == b[j].at) continue;  // see expect_single, and page_of of a single page
        expect_time();
        if (apart.has(difference)) continue;
        then.start = difference;
        if (overlap(first, then, thorough))
          judge(i, b, j);
        else
          apart.add(difference);
      }
    }
  }
  void expect_time() {
    KVEVICT_EXPECTS(--left_ >= 0, "validate: pages of components ", name_of(c_->what), " and ", name_of(d_->what),
                    " lie among each other in more ways than can be compared in time; give strides that nest, from a "
                    "row's bytes over slots and heads to pages");
  }
  void judge(std::int64_t i, page_place const* b, std::int64_t j) {
    page_place x = a_[i], y = b[j];
    if (x.read_only() && y.read_only() && !common_row(i, b, j, x, y)) return;
    if (c_ == d_ && (y.row != x.row ? y.row < x.row : y.index() < x.index())) std::swap(x, y);
    violate(x, y);
  }

  [[noreturn]] void violate(page_place const& x, page_place const& y) const {
    table_place const p = place(x), q = place(y);
    bool const same = x.row == y.row && x.index() == y.index();
    std::string const where =
        " in page " + std::to_string(p.i) + " of " + messages::row(p.b, p.h) +
        (same ? std::string() : " and page " + std::to_string(q.i) + " of " + messages::row(q.b, q.h));
    if constexpr (page_table<Entry>::holds_pointers) {
      auto const apart = static_cast<std::int64_t>(v_.pages.entry(q.b, q.h, q.i) - v_.pages.entry(p.b, p.h, p.i));
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
  std::int64_t left_ = 0;
};

template <class Entry> std::int64_t count_pages(layer_view<Entry> const& v) {
  std::int64_t n = 0;
  for_each_table_row(v, [&](std::int32_t b, std::int32_t h) { n += pages_in_use(v, b, h); });
  return n;
}

/// Every row apart from every other one, page by page.
template <class Entry> void check_places(layer_view<Entry> const& v, arena& memory) {
  frame scratch(memory);
  page_search<Entry>(v, scratch, count_pages(v)).run();
}

/// Where ids count less than a page (rows, blocks), a pool is page_count pieces of page_stride bytes at most. Strides
/// below that lie within a piece, those that reach behind all pieces lead to another pool; the others step over pieces,
/// so that the last slot of a page may lie behind the pool.
template <class Entry> struct pool_end {
  std::int64_t slack = 0, a_layer = 0, a_head = 0;  // bytes that a page takes behind those of its id

  pool_end(layer_view<Entry> const& v, component const& c) {
    row_map const& m = c.rows;
    std::int64_t const extents[] = {v.pages.page_size, m.n_runs, v.heads(), v.pages.layers},
                       strides[] = {m.slot_stride, m.run_stride, m.head_stride, m.layer_stride};
    std::int64_t piece = m.run_bytes;
    for (int i = 0; i < 4; ++i) piece += strides[i] < m.page_stride ? (extents[i] - 1) * strides[i] : 0;
    std::int64_t const end = (m.page_count - 1) * m.page_stride + std::min(piece, m.page_stride);
    slack = std::max<std::int64_t>(0, piece - m.page_stride);
    for (int i = 0; i < 4; ++i) {
      if (extents[i] <= 1 || strides[i] < m.page_stride || strides[i] >= end) continue;
      if (i == 3)
        a_layer = strides[i];
      else if (i == 2 && v.pages.per_head())
        a_head = strides[i];
      else
        slack += (extents[i] - 1) * strides[i];
    }
  }
};
template <class Entry> void check_pool_ends(layer_view<Entry> const& v) {
  for (component const& c : v) {
    row_map const& m = c.rows;
    id_rule const rule = rule_of(v, c);
    if (c.alias_of != -1 || m.page_stride == 0 || (rule.pool >= 0 && rule.slots == 1)) continue;
    pool_end<Entry> const end(v, c);
    for_each_table_row(v, [&](std::int32_t b, std::int32_t h) {
      std::int64_t const behind = end.slack + v.pages.layer_of(b) * end.a_layer + h * end.a_head;
      for (std::int64_t i = 0, n = pages_in_use(v, b, h); i < n; ++i) {
        auto const id = static_cast<std::int64_t>(v.pages.entry(b, h, i));
        KVEVICT_EXPECTS(behind <= (m.page_count - 1 - id) * m.page_stride, "validate: page ", i, " of ",
                        messages::row(b, h), " has id ", id, " and reaches behind the ", m.page_count,
                        " pages of component ", name_of(c.what),
                        "; ids that count rows need page_count to count them, too: correct it, or the table");
      }
    });
  }
}

template <class Entry> void check_ids(layer_view<Entry> const& v, arena& memory) {
  named_ids const ids = check_ids_in_range(v);
  if (ids.allowed && find_doubtful(v).c == nullptr && (v.pages.is_identity() || find_doubles(v, ids.end, memory)))
    return;
  check_pool_ends(v);
  check_places(v, memory);
}

}  // namespace validation
}  // namespace KVEVICT_ABI
}  // namespace kvevict
