// SPDX-License-Identifier: Apache-2.0
// The order of ascending rows on a device, by the threads that check their pages.
#pragma once

#include <algorithm>
#include <cstdint>

#include <kvevict/cache/layer_view.hpp>
#include <kvevict/core/visibility.hpp>
#include <kvevict/cuda/context/device.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

/// Whether the positions of ascending rows are looked at, too: a page in parts, a thread each.
struct order_check {
  bool wanted = false;
  std::int64_t parts = 1, slots = 0;  // of a page; of a part
  visibility sees{};                  // padding is in no order

  static order_check of(bool is_wanted, std::int64_t pages, std::int64_t page_size, visibility const& sees) {
    if (!is_wanted) return {};
    std::int64_t const most =
                           std::max<std::int64_t>(((std::int64_t{1} << 31) - 1) / std::max<std::int64_t>(pages, 1), 1),
                       parts = std::min((page_size + 63) / 64, most);
    return {true, parts, (page_size + parts - 1) / parts, sees};
  }

  /// Positions of a part of page i ascend, from that of the token before it.
  /// `may_be_read(i)`: page i of the row is sound.
  template <class Entry, class May>
  KVEVICT_DEVICE void look(thread& t, watched const& watch, layer_view<Entry> const& v, std::int32_t b, std::int32_t h,
                           std::int64_t i, std::int64_t part, May may_be_read) const {
    std::int64_t const P = v.pages.page_size, begin = std::max(sees.padding(b), 0),
                       first = std::max(i * P + part * slots, begin);
    component const* const positions = v.find(role::position);
    for (std::int32_t k = h; k < (v.pages.per_head() ? h + 1 : v.heads()) && v.owns(*positions, b, k); ++k) {
      std::int64_t const end =
          std::min(std::min((i + 1) * P, i * P + (part + 1) * slots), std::int64_t{v.length(b, k)});
      if (first >= end) continue;
      token_rows<Entry> const rows = v.rows_of(*positions, b, k);
      auto const position = [&](std::int64_t j) {
        return std::int64_t{*reinterpret_cast<std::int32_t const*>(rows(j))};
      };
      if (first > begin && first % P == 0 && !may_be_read(i - 1)) return;
      std::int64_t before = first == begin ? -1 : position(first - 1);
      for (std::int64_t j = first; j < end; ++j) {
        std::int64_t const p = position(j);
        if (p <= before) return watch.refuse(t, fault::not_ascending, b, k, before, p, j);
        before = p;
      }
    }
  }
};

}  // namespace kvevict::inline KVEVICT_ABI::cuda
