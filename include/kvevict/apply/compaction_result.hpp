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

/// [first, last)
struct freed_columns {
  std::int64_t first = 0, last = 0;
};

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

  /// All freed entries of the page table (K's), tag bits stripped, once for each row of the table that gives them up;
  /// what layers share is given up when none of them needs it. None for contiguous caches. Pages that were reserved
  /// behind a row's length are not among them: they stay the engine's.
  slice<Entry const> freed_pages() const {
    return expect_ready(), slice<Entry const>{freed_.data(), static_cast<std::int64_t>(freed_.size())};
  }
  /// Those of one row of the table: b·heads + h when every head has its own, else b; of a table that all layers share
  /// b is a sequence of the first layer.
  slice<Entry const> freed_pages(std::int64_t row) const {
    expect_ready();
    auto const r = static_cast<std::size_t>(row);
    KVEVICT_EXPECTS(row >= 0 && r + 1 < freed_begin_.size(), "compacted: there is no row ", row,
                    " in the page table; ask for b·heads + h when every head has its own, else b");
    return {freed_.data() + freed_begin_[r], freed_begin_[r + 1] - freed_begin_[r]};
  }

  /// Where freed_pages(row) stand in that row of the table. A component that has pages of its own gives up those in the
  /// same columns of its own row.
  freed_columns columns(std::int64_t row) const {
    std::int64_t const count = freed_pages(row).size, rows = static_cast<std::int64_t>(freed_begin_.size()) - 1,
                       of_layer = all_lengths().size / layers_a_row_;
    std::int64_t n = 0;
    for (std::int64_t r = row * (of_layer / rows); r < all_lengths().size; r += of_layer)
      n = n < all_lengths()[r] ? all_lengths()[r] : n;
    std::int64_t const first = (n + page_size_ - 1) / page_size_;
    return {first, first + count};
  }

  /// The cache afterwards: the view that was compacted, with these lengths (this object's, for as long as it lives) and
  /// this order.
  layer_view<Entry> view(layer_view<Entry> const& before) const {
    expect_rows_of(before.pages);
    layer_view<Entry> out = before;
    out.lengths = {lengths().data, heads_, 1};
    return out.with_order(order());
  }
  /// The table afterwards in CSR form, as FlashInfer has it: the pages of its row r are entries[page_begin[r] …
  /// page_begin[r + 1]), the last one holds last_page_len[r] tokens. `before` is the compacted view's table; `entries`
  /// may be its own array, for pages only leave a row at its end, or null where they are in no memory of the host's.
  /// Pages that a component has of its own are written with `before.entries` at theirs. Pages that were reserved behind
  /// a row's length are not written, for the form has no place for them: remember them before.
  /// Shapes   R rows of the table → page_begin (R + 1), last_page_len (R), entries (their sum). Layers that share a row
  ///          have it once: R = S, not L·S; so it is of an empty tensor (S, 0), a null table without columns or tokens.
  /// Errors   contract_violation: another table; layers that share it and differ in length.
  void write_csr(page_table<Entry> const& before, std::int32_t* page_begin, std::int32_t* last_page_len,
                 Entry* entries) const {
    expect_rows_of(before);
    std::int32_t const heads = before.per_head() ? before.heads : 1, P = before.page_size;
    std::int64_t const layers = before.layers_a_row(), of_layer = all_lengths().size / layers;
    bool const is_table = !before.is_identity() || !has_tokens();
    KVEVICT_EXPECTS(layers == layers_a_row_ && P == page_size_ && (entries == nullptr || is_table),
                    "compacted: the page table is not the compacted view's; give that one, and no entries for a "
                    "contiguous cache");
    for (std::int64_t r = of_layer; r < all_lengths().size; ++r)
      KVEVICT_EXPECTS(layers == 1 || all_lengths()[r] == all_lengths()[r % of_layer], "compacted: layers 0 and ",
                      r / of_layer, " share the page table's row ", r % of_layer, " and have ",
                      all_lengths()[r % of_layer], " and ", all_lengths()[r],
                      " tokens; keep equally many in all layers, or give each a table of its own");
    std::int32_t next = 0;
    bool const no_columns = is_table && before.columns == 0 && before.row_begin == nullptr && before.layer_stride == 0;
    std::int64_t const rows = before.rows() / (no_columns ? before.layers : layers);
    for (std::int64_t r = 0; r < rows; ++r) {
      auto const b = static_cast<std::int32_t>(r / heads), h = static_cast<std::int32_t>(r % heads);
      std::int32_t const n = heads_ == 0 ? 0 : all_lengths()[std::int64_t{b} * heads_ + h], pages = (n + P - 1) / P;
      Entry const* const from = entries == nullptr ? nullptr : before.entries_of(b, h);
      for (std::int32_t i = 0; i < pages && entries != nullptr; ++i) entries[next + i] = from[i];
      page_begin[r] = next, last_page_len[r] = n == 0 ? 0 : n - (pages - 1) * P;
      next += pages;
    }
    page_begin[rows] = next;
  }

  row_order order() const { return expect_ready(), order_; }
  std::int64_t bytes_moved() const { return expect_ready(), bytes_moved_; }

 protected:
  void expect_ready() const {
    KVEVICT_EXPECTS(ready_,
                    "compacted: there is no result; on a device call wait(ctx) first, and after a call that was "
                    "refused or has failed free no page, and keep the lengths that were");
  }
  void expect_rows_of(page_table<Entry> const& before) const {
    KVEVICT_EXPECTS(before.heads == heads_ && std::int64_t{before.sequences} * before.heads == lengths().size,
                    "compacted: the cache has ", before.sequences, " sequences of ", before.heads,
                    " heads, the result ", lengths().size, " rows of ", heads_, "; give the one that was compacted");
  }

  std::vector<std::int32_t> lengths_host_;  // (B·H)
  std::vector<Entry> freed_;
  std::vector<std::int64_t> freed_begin_;  // (rows of the table + 1)
  std::int64_t heads_ = 0, page_size_ = 1, bytes_moved_ = 0, layers_a_row_ = 1;
  row_order order_ = row_order::ascending;
  bool ready_ = false;

 private:
  bool has_tokens() const {
    for (std::int32_t const n : lengths_host_)
      if (n != 0) return true;
    return false;
  }
  slice<std::int32_t const> all_lengths() const {
    return {lengths_host_.data(), static_cast<std::int64_t>(lengths_host_.size())};
  }
};

}  // namespace KVEVICT_ABI
}  // namespace kvevict
