// SPDX-License-Identifier: Apache-2.0
// Rows that a view calls ascending are: one look at the positions that its cache carries.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include <kvevict/cache/layer_view.hpp>
#include <kvevict/core/view_messages.hpp>
#include <kvevict/core/visibility.hpp>
#include <kvevict/evidence/budget.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace planning {

/// Whether the positions of a row ascend, from 0 or above, looked at a page at a time.
class ascent {
 public:
  ascent() { std::memset(&falls_, 0, sizeof falls_); }  // nvcc 13.0 stops at "falls_ = {}"
  /// `count` positions, one at least, from p on, behind those before.
  void take(std::byte const* p, std::int64_t stride, std::int64_t count) {
    sound_ = sound_ & (at(p) > last_);
    if (stride == 4 && count > wide) {
      for (std::int64_t i = 1; i + wide <= count; i += wide) compare(p + i * 4);
      compare(p + (count - wide) * 4);
    } else {
      for (std::int64_t i = 1; i < count; ++i) sound_ = sound_ & (at(p + (i - 1) * stride) < at(p + i * stride));
    }
    last_ = at(p + (count - 1) * stride);
  }
  bool is_sound() const {
    std::int32_t some = 0;
    for (int i = 0; i < wide; ++i) some |= falls_[i];
    return sound_ && some == 0;
  }

 private:
  static constexpr int wide = 8;
  using numbers __attribute__((vector_size(wide * 4))) = std::int32_t;

  static std::int32_t at(std::byte const* p) { return *reinterpret_cast<std::int32_t const*>(p); }
  /// Neighbouring positions of which the second ones begin at p.
  void compare(std::byte const* p) {
    numbers before, behind;
    std::memcpy(&before, p - 4, sizeof before), std::memcpy(&behind, p, sizeof behind);
    falls_ |= before >= behind;
  }

  numbers falls_;
  std::int32_t last_ = -1;
  bool sound_ = true;
};

/// Says where a row does not ascend.
template <class Entry>
[[noreturn]] void violate_order(token_rows<Entry> const& at, std::int32_t b, std::int32_t h, std::int64_t padding) {
  std::int64_t last = -1;
  for (auto j = static_cast<std::int32_t>(padding);; ++j) {
    std::int32_t const p = *reinterpret_cast<std::int32_t const*>(at(j));
    if (p <= last) messages::not_ascending(b, h, j, last, p);
    last = p;
  }
}

inline constexpr std::int32_t rows_at_once = 16, pages_ahead = 4;

/// Rows of some heads of a sequence, page by page: neighbouring heads often lie side by side. Pages lie anywhere, so
/// that nothing but their ids tells which memory is read next.
template <class Entry>
void expect_ascending(layer_view<Entry> const& cache, component const& positions, std::int32_t b, std::int32_t first,
                      std::int32_t count, std::int64_t padding) {
  ascent all[rows_at_once];
  token_rows<Entry> at[rows_at_once];
  std::int64_t tokens[rows_at_once], beside[rows_at_once], longest = 0;
  bool side_by_side = true;  // all by one table, so that one page id says where all of them lie
  for (std::int32_t i = 0; i < count; ++i) {
    at[i] = cache.rows_of(positions, b, first + i), tokens[i] = cache.length(b, first + i);
    beside[i] = at[i].start - at[0].start, longest = std::max(longest, tokens[i]);
    side_by_side = side_by_side && at[i].entries == at[0].entries && at[i].base == at[0].base;
  }
  std::int64_t const size = cache.pages.page_size, stride = at[0].slot_stride;
  for (std::int64_t page = padding / size, slot = padding % size; page * size < longest; ++page, slot = 0) {
    std::int64_t const next = page + pages_ahead;
    std::byte const* p = side_by_side ? at[0].slot(page, slot) : nullptr;
    std::byte const* ahead = side_by_side && next * size < longest ? at[0].slot(next, 0) : nullptr;
    for (std::int32_t i = 0; i < count; ++i) {
      std::int64_t const left = std::min(size, tokens[i] - page * size) - slot;
      if (left <= 0) continue;
      if (ahead != nullptr) __builtin_prefetch(ahead + beside[i]);
      all[i].take(side_by_side ? p + beside[i] : at[i].slot(page, slot), stride, left);
    }
  }
  for (std::int32_t i = 0; i < count; ++i)
    if (!all[i].is_sound()) violate_order(at[i], b, first + i, padding);
}

/// Of all rows but their padding; one that heads or layers share is looked at once.
template <class Entry>
void expect_order(layer_view<Entry> const& cache, budget const& want, visibility const& sees = {}) {
  component const* const positions = cache.checked_positions();
  if (positions == nullptr) return;
  std::int32_t const heads = cache.shared_by_heads(*positions) ? 1 : cache.heads();
  for (std::int32_t b = 0; b < cache.sequences(); ++b)
    for (std::int32_t h = 0; h < heads && !want.keeps_whole(b) && cache.owns(*positions, b, h); h += rows_at_once)
      expect_ascending(cache, *positions, b, h, std::min(rows_at_once, heads - h), std::max(sees.padding(b), 0));
}

}  // namespace planning
}  // namespace KVEVICT_ABI
}  // namespace kvevict
