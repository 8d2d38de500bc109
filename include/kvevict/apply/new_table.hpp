// SPDX-License-Identifier: Apache-2.0
// A page table as it is after an eviction that changes entries: what `rewrite_table`, `drop_pages` and `relocate`
// return.
#pragma once

#include <cstdint>
#include <vector>

#include <kvevict/apply/reading.hpp>
#include <kvevict/cache/footprint.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// Entries and lengths afterwards. Rows of the table are in the order of b·heads + h where every head has its own, else
/// of b; layers of a stack that go by one table have them once. Pages that were reserved behind a row's length are in
/// none of these lists: they stay the engine's, which knows them from its own table.
template <class Entry> class new_table {
 public:
  /// There is a result. It is false, and what follows raises contract_violation, before the first call and after one
  /// that was refused, has failed or lacked pages.
  bool ok() const { return ready_; }

  /// Row b·heads + h of the view; physical, positions have not changed.
  slice<std::int32_t const> lengths() const { return expect_ready(), of(lengths_); }
  std::int32_t length(std::int32_t b, std::int32_t h) const {
    expect_ready();
    std::int64_t const r = std::int64_t{b} * heads_ + h;
    KVEVICT_EXPECTS(b >= 0 && h >= 0 && h < heads_ && r < lengths().size, "new_table: there is no sequence ", b,
                    ", head ", h, "; ask for one of the view that was provided");
    return lengths()[r];
  }

  std::int64_t rows() const { return expect_ready(), static_cast<std::int64_t>(row_begin_.size()) - 1; }
  slice<Entry const> entries() const { return expect_ready(), of(entries_); }
  slice<Entry const> entries(std::int64_t row) const {
    KVEVICT_EXPECTS(row >= 0 && row < rows(), "new_table: there is no row ", row, " in the page table, which has ",
                    rows(), "; ask for b·heads + h when every head has its own, else b");
    auto const r = static_cast<std::size_t>(row);
    return {entries_.data() + row_begin_[r], row_begin_[r + 1] - row_begin_[r]};
  }
  /// Entries that rows do not name any more, tag bits stripped, as often as rows have given one up: drop a reference
  /// for each.
  slice<Entry const> released() const { return expect_ready(), of(released_); }
  row_order order() const { return expect_ready(), order_; }

  /// The cache afterwards, with the table and the lengths of this object, for as long as it lives and until the next
  /// call with it has come to its end.
  layer_view<Entry> view(layer_view<Entry> const& before) const {
    layer_view<Entry> out = before;
    out.pages.entries = entries().data, out.pages.row_begin = row_begin_.data();
    moves::table_rows const rows(before.pages);
    KVEVICT_EXPECTS(before.heads() == heads_ && before.rows() == lengths().size && rows.count() == this->rows(),
                    "new_table: the view has ", before.rows(), " rows and ", rows.count(),
                    " of the page table, the result ", lengths().size, " and ", this->rows(),
                    "; give the view that was provided");
    out.pages.layer_stride = rows.layers == 1 ? 0 : rows.of_layer;
    out.pages.seq_stride = 0, out.pages.head_stride = rows.per_head ? 1 : 0;
    out.pages.columns = columns_;
    out.lengths = {lengths().data, heads_, 1};
    return out.with_order(order(), before.proof);
  }

  /// The table as FlashInfer has it: (rows + 1), (rows), (their sum). It may be the one that was read.
  void write_csr(std::int32_t* page_begin, std::int32_t* last_page_len, Entry* entries) const {
    for (std::int64_t r = 0; r < rows(); ++r) {
      auto const i = static_cast<std::size_t>(r);
      page_begin[r] = row_begin_[i], last_page_len[r] = last_page_[i];
    }
    page_begin[rows()] = row_begin_.back();
    for (std::size_t i = 0; i < entries_.size(); ++i) entries[i] = entries_[i];
  }
  /// The table in rows that lie as those of `like`, whose memory `entries` may be; what lies behind a row's end stays.
  void write_dense(page_table<Entry> const& like, Entry* entries) const {
    moves::table_rows const rows(like);
    KVEVICT_EXPECTS(like.row_begin == nullptr && rows.count() == this->rows() && columns_ <= like.columns,
                    "new_table: a table of ", rows.count(), " rows and ", like.columns, " columns cannot hold ",
                    this->rows(), " rows of up to ", columns_,
                    "; give one with a column for every page, rows as they were, or call write_csr");
    std::int64_t const H = rows.per_head ? like.heads : 1, S = rows.of_layer / (H == 0 ? 1 : H);
    footprint all;
    all.run = columns_;
    all.add(rows.layers, like.layer_stride), all.add(S, like.seq_stride), all.add(H, like.head_stride);
    KVEVICT_EXPECTS(columns_ == 0 || ((S <= 1 || like.seq_stride != 0) && !overlaps_itself(all)),
                    "new_table: rows of up to ", columns_,
                    " entries would overlap in a table whose layers, sequences and "
                    "heads are ",
                    like.layer_stride, ", ", like.seq_stride, " and ", like.head_stride,
                    " entries apart; give each row entries of its own");
    for (std::int64_t r = 0; r < rows.count(); ++r) {
      Entry* const to =
          entries + (r / (S * H) * like.layer_stride + r / H % S * like.seq_stride + r % H * like.head_stride);
      slice<Entry const> const from = this->entries(r);
      for (std::int64_t i = 0; i < from.size; ++i) to[i] = from[i];
    }
  }

 protected:
  void expect_ready() const {
    KVEVICT_EXPECTS(ready_,
                    "new_table: there is no result, because the call has not been made, was refused, has failed or "
                    "lacked pages; free nothing, and keep the table and the lengths that were");
  }
  template <class T> static slice<T const> of(std::vector<T> const& x) {
    return {x.data(), static_cast<std::int64_t>(x.size())};
  }
  /// The last entry of a row was appended: `tokens` lie in its pages.
  void end_row(std::int32_t tokens, std::int32_t page_size) {
    auto const pages = static_cast<std::int32_t>(next_entries_.size()) - next_begin_.back();
    next_begin_.push_back(next_begin_.back() + pages);
    last_page_.push_back(tokens == 0 ? 0 : tokens - (pages - 1) * page_size);
    columns_ = pages > columns_ ? pages : columns_;
  }
  void begin_rows() {
    next_entries_.clear(), next_begin_.assign(1, 0), next_lengths_.clear();
    last_page_.clear(), released_.clear();
    columns_ = 0;
  }
  /// The arrays of the result before, which the view may be made of, stay until here.
  void finish(std::int32_t heads, row_order order) {
    entries_.swap(next_entries_), row_begin_.swap(next_begin_), lengths_.swap(next_lengths_);
    heads_ = heads, order_ = order, ready_ = true;
  }

  std::vector<Entry> entries_, next_entries_, released_;
  std::vector<std::int32_t> row_begin_, next_begin_;  // (rows + 1)
  std::vector<std::int32_t> lengths_, next_lengths_;  // (B·H)
  std::vector<std::int32_t> last_page_;               // (rows)
  std::int32_t heads_ = 0, columns_ = 0;
  row_order order_ = row_order::ascending;
  bool ready_ = false;
};

}  // namespace KVEVICT_ABI
}  // namespace kvevict
