// SPDX-License-Identifier: Apache-2.0
// Which pages of two sorted lists share a byte: only those that come close to each other are compared.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include <kvevict/cache/footprint.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace validation {

/// A page in use, by the address of its first byte in one component.
struct page_place {
  std::int64_t at;
  std::int32_t row, page;  // row b·heads + h; page < 0: ~index of a read-only one

  constexpr bool read_only() const { return page < 0; }
  constexpr std::int32_t index() const { return page < 0 ? ~page : page; }
  /// By address; there the read-only ones first, by row.
  constexpr bool operator<(page_place const& y) const {
    return at != y.at ? at < y.at : read_only() != y.read_only() ? read_only() : row < y.row;
  }
};

/// The end of the read-only pages at the address of page i, which is the first of them; of a written one i + 1.
inline std::int64_t run_end(page_place const* of, std::int64_t i, std::int64_t pages) {
  std::int64_t j = i + 1;
  while (of[i].read_only() && j < pages && of[j].at == of[i].at && of[j].read_only()) ++j;
  return j;
}

/// Differences of two pages' addresses that were found to keep them apart: most pages of a cache differ by the same
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

/// judge(i, j) for every page a[i] whose rows f share a byte with the rows g of page b[j], both sorted, rows from the
/// page's address on; of read-only pages at one address for the first alone. Where a is b, not for equal addresses.
///
/// Cost     2·`steps` comparisons a page at most, then it gives up; as many as pages lie in the extent of each other,
///          which is 2·H where the rows of H heads interleave. Strides that reach far over other pages are taken apart
///          first.
template <class Judge> class near_pages {
 public:
  static constexpr std::int64_t steps = 1024;

  near_pages(page_place const* a, page_place const* b, std::int64_t pages, Judge judge)
      : a_(a), b_(b), pages_(pages), left_(steps * (pages + 4096)), judge_(judge) {}

  /// False when it gave up.
  bool compare(footprint const& f, footprint const& g) {
    meet(f, g);
    return left_ >= 0;
  }

 private:
  /// Far strides are taken apart, index by index, while this makes fewer pairs come close.
  void meet(footprint const& f, footprint const& g) {
    std::int64_t const low = b_[0].at + g.start - (a_[pages_ - 1].at + f.start),
                       high = b_[pages_ - 1].at + g.start - (a_[0].at + f.start);  // of differences
    if (low >= f.span() || -high >= g.span() || left_ < 0) return;
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
    // pairs that come close, for each page, if pages were spread evenly
    double const density = static_cast<double>(pages_) / static_cast<double>(std::max<std::int64_t>(1, high - low)),
                 together = static_cast<double>(f.span() + g.span()) * density + 2,
                 apart = static_cast<double>(bytes) * density + 2;
    if (static_cast<double>(last - first + 1) * apart >= together) return sweep(f, g);
    for (std::int64_t i = first; i <= last; ++i) {
      footprint x = inner_f, y = inner_g;
      (of_g ? y : x).start += i * stride;
      meet(x, y);
    }
  }

  /// By one pass over both, all pages within reach of each.
  void sweep(footprint const& f, footprint const& g) {
    known_differences apart;
    std::int64_t const reach_f = f.span(), reach_g = g.span(), shift = g.start - f.start;
    footprint first = f, then = g;
    first.start = 0;
    std::int64_t low = 0;
    left_ -= pages_;
    for (std::int64_t j = 0; j < pages_ && left_ >= 0; j = run_end(b_, j, pages_)) {
      std::int64_t const at = b_[j].at + shift;
      while (low < pages_ && at - a_[low].at >= reach_f) ++low;
      for (std::int64_t i = low; i < pages_ && a_[i].at - at < reach_g; i = run_end(a_, i, pages_)) {
        std::int64_t const difference = at - a_[i].at;
        --left_;
        if ((a_ == b_ && a_[i].at == b_[j].at) || apart.has(difference)) continue;
        then.start = difference;
        if (overlap(first, then, thorough_steps))
          judge_(i, j);
        else
          apart.add(difference);
      }
    }
  }

  page_place const *a_, *b_;
  std::int64_t pages_, left_;
  Judge judge_;
};
template <class Judge> near_pages(page_place const*, page_place const*, std::int64_t, Judge) -> near_pages<Judge>;

}  // namespace validation
}  // namespace KVEVICT_ABI
}  // namespace kvevict
