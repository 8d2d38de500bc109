// SPDX-License-Identifier: Apache-2.0
// What a compaction tells an engine, the same in every context.
#pragma once

#include <cstdint>
#include <vector>

#include <kvevict/cache/layer_view.hpp>
#include <kvevict/core/contract.hpp>
#include <kvevict/core/slice.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// Physical lengths afterwards (logical positions have not changed) and the pages that hold nothing any more. The
/// context's `compacted` fills it in.
template <class Entry> class compaction_result {
 public:
  /// There is a result. It is false, and what follows raises contract_violation, before the first call, after one that
  /// was refused or has failed, and on a device until the stream has been waited for.
  bool ok() const { return ready_; }

  /// Row b·heads + h.
  slice<std::int32_t const> lengths() const { return expect_ready(), all_lengths(); }
  std::int32_t length(std::int32_t b, std::int32_t h) const {
    expect_ready();
    std::int64_t const sequences = heads_ == 0 ? 0 : all_lengths().size / heads_;
    KVEVICT_EXPECTS(b >= 0 && b < sequences && h >= 0 && h < heads_, "compacted: there is no sequence ", b, ", head ",
                    h, " among ", sequences, " of ", heads_, " heads; ask for one of the compacted view");
    return all_lengths()[b * heads_ + h];
  }

  /// All freed entries of the page table, tag bits stripped, each once. None for contiguous caches.
  slice<Entry const> freed_pages() const {
    return expect_ready(), slice<Entry const>{freed_.data(), static_cast<std::int64_t>(freed_.size())};
  }
  /// Those of one row of the table: b·heads + h when every head has its own, else b.
  slice<Entry const> freed_pages(std::int64_t row) const {
    expect_ready();
    auto const r = static_cast<std::size_t>(row);
    KVEVICT_EXPECTS(row >= 0 && r + 1 < freed_begin_.size(), "compacted: there is no row ", row,
                    " in the page table; ask for b·heads + h when every head has its own, else b");
    return {freed_.data() + freed_begin_[r], freed_begin_[r + 1] - freed_begin_[r]};
  }

  /// The cache afterwards: the view that was compacted, with these lengths (this object's, for as long as it lives) and
  /// this order.
  layer_view<Entry> view(layer_view<Entry> const& before) const {
    layer_view<Entry> out = before;
    out.lengths = {lengths().data, heads_, 1};
    return out.with_order(order());
  }
  row_order order() const { return expect_ready(), order_; }
  std::int64_t bytes_moved() const { return expect_ready(), bytes_moved_; }

 protected:
  void expect_ready() const {
    KVEVICT_EXPECTS(ready_,
                    "compacted: there is no result; on a device call wait(ctx) first, and after a call that was "
                    "refused or has failed free no page, and keep the lengths that were");
  }

  std::vector<std::int32_t> lengths_host_;  // (B·H)
  std::vector<Entry> freed_;
  std::vector<std::int64_t> freed_begin_;  // (rows of the table + 1)
  std::int64_t heads_ = 0, bytes_moved_ = 0;
  row_order order_ = row_order::ascending;
  bool ready_ = false;

 private:
  slice<std::int32_t const> all_lengths() const {
    return {lengths_host_.data(), static_cast<std::int64_t>(lengths_host_.size())};
  }
};

}  // namespace KVEVICT_ABI
}  // namespace kvevict
