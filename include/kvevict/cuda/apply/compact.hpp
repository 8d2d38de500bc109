// SPDX-License-Identifier: Apache-2.0
// compact() on a device: the kept tokens of every row move to its front, in the stream; what became of the cache is
// known at once on the device, and on the host when the ticket has been waited for.
#pragma once

#include <vector>

#include <kvevict/apply/compaction_result.hpp>
#include <kvevict/cuda/apply/expect_keep.hpp>
#include <kvevict/cuda/apply/move_rows.hpp>
#include <kvevict/cuda/context/call.hpp>
#include <kvevict/cuda/evidence/validate.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace cuda {

/// What a compaction on a device did, or will have done once the stream gets there; after wait() it tells what the
/// host's does. Reusable: `compact(…, out)` keeps the memory. It must go, or be compacted into again, while the stream
/// that it was made on lives.
template <class Entry> class compacted : public compaction_result<Entry> {
 public:
  /// Physical lengths afterwards (B·H), in device memory: what the next view may point to, also the view of the next
  /// compaction into this object. Valid in stream order, without waiting; unchanged lengths where a kernel has refused.
  std::int32_t const* lengths_on_device() const { return lengths_; }

  /// The host's, with the lengths in device memory.
  layer_view<Entry> view(layer_view<Entry> const& before) const {
    this->expect_rows_of(before.pages);
    layer_view<Entry> out = before;
    out.lengths = {lengths_, heads_, 1};
    return out.with_order(this->order());
  }

  /// Waits for the stream; raises contract_violation if a kernel has refused its input, or the plan of the keep set was
  /// refused: nothing of this view was moved then, and no page is free. What other calls did is done; of it their own
  /// tickets and keep sets tell. The same every time.
  void wait(device& ctx) {
    ctx.expect_no_dry_run("wait");
    KVEVICT_EXPECTS(status_.at() == verdict::stage::launched,
                    "wait: no compaction was put into the stream for this result, or it was refused at once; compact "
                    "into it first");
    auto const words = static_cast<std::size_t>(words_);
    std::vector<std::int32_t> all(static_cast<std::size_t>(3 * rows_ + table_rows_));  // zeros where there are no heads
    freed_.assign(static_cast<std::size_t>(table_rows_ * pages_), Entry{});
    if (words_ != 0) copy_to_host(ctx.queue(), all.data(), lengths_, words * 4);
    if (!freed_.empty()) copy_to_host(ctx.queue(), freed_.data(), pages_freed_, freed_.size() * sizeof(Entry));
    verdict::copy const found(status_, ctx.queue());
    ready_ = false;
    synchronize(ctx.queue());
    if (fault_record const* const f = found.first()) ctx.tell(*f, status_.number());
    lengths_host_.assign(all.begin(), all.begin() + rows_);
    order_ = before_;
    bytes_moved_ = 0;
    for (std::int64_t r = 0; r < rows_; ++r) {
      bytes_moved_ +=
          all[static_cast<std::size_t>(rows_ + r)] * bytes_a_move_[2 * (r >= per_layer_) + (r % heads_ != 0)];
      if (all[static_cast<std::size_t>(2 * rows_ + r)] != 0) order_ = row_order::scattered;
    }
    std::size_t n = 0;
    freed_begin_.assign(1, 0);
    for (std::int64_t t = 0; t < table_rows_; ++t) {
      for (std::int32_t i = 0; i < all[static_cast<std::size_t>(3 * rows_ + t)]; ++i)
        freed_[n++] = freed_[static_cast<std::size_t>(t * pages_ + i)];
      freed_begin_.push_back(static_cast<std::int64_t>(n));
    }
    freed_.resize(n);
    ready_ = true;
  }

 private:
  template <class E>
  friend void enqueue_compaction(device&, layer_view<E> const&, keep_set const&, compaction, compacted<E>&);

  // the rest is there after wait()
  using compaction_result<Entry>::lengths_host_;
  using compaction_result<Entry>::freed_;
  using compaction_result<Entry>::freed_begin_;
  using compaction_result<Entry>::heads_;
  using compaction_result<Entry>::page_size_;
  using compaction_result<Entry>::layers_a_row_;
  using compaction_result<Entry>::bytes_moved_;
  using compaction_result<Entry>::order_;
  using compaction_result<Entry>::ready_;

  void prepare(device& ctx, layer_view<Entry> const& v);

  buffer memory_;
  verdict status_;
  std::int32_t *lengths_ = nullptr, *moves_ = nullptr, *scattered_ = nullptr, *freed_counts_ = nullptr;  // device
  // (table rows, pages) device
  Entry* pages_freed_ = nullptr;
  std::int64_t rows_ = 0, table_rows_ = 0, pages_ = 0, words_ = 0;
  std::int64_t per_layer_ = 0,
               bytes_a_move_[4] = {};  // rows of a layer; of a first or later layer's first or later head
  row_order before_ = row_order::ascending;
};

/// Whether the keep set is this cache's, how many tokens of each row move, and the pages that come free; before
/// anything moves. One block per row of the cache. The lengths are those before: whoever moves the rows changes them,
/// so that they stay where a kernel has refused, and this one writes them even then.
///
/// Shapes   kept tokens (B·H, stride), counts (B·H) → lengths, moves, scattered (B·H), freed pages (table rows, pages).
template <class Entry> struct record_kernel {
  static constexpr int max_threads = 256;
  keep_check<Entry> c;
  std::int64_t pages;
  compaction mode;
  std::int32_t *lengths, *moves, *scattered, *freed_counts;
  Entry* freed;

  KVEVICT_DEVICE void operator()(thread& t) const {
    std::int64_t const r = t.block().x;
    auto const b = static_cast<std::int32_t>(r / c.v.heads()), h = static_cast<std::int32_t>(r % c.v.heads());
    // the view's own lengths, where they are those, are read by others
    if (std::int32_t const n = c.v.length(b, h); t.linear_index() == 0 && lengths[r] != n) lengths[r] = n;
    if (c.watch.stopped(t) || !c(t, r, b, h)) return;
    keep_arrays const& keep = c.keep;
    std::int32_t const layers = c.v.pages.layers_a_row(), of_layer = c.v.sequences() / layers;
    bool const own = (c.v.pages.per_head() || h == 0) && b < of_layer;
    std::int64_t const row_of_table = c.v.pages.per_head() ? r : b;
    std::int64_t const P = c.v.pages.page_size;
    std::int64_t used = 0, before = 0;  // pages: what any layer needs that goes by this row of the table
    for (std::int32_t l = b; own && l < c.v.sequences(); l += of_layer) {
      used = std::max(used, (keep.counts[std::int64_t{l} * c.v.heads() + h] + P - 1) / P);
      before = std::max(before, validation::pages_in_use(c.v, l, h));
    }
    if (c.v.pages.is_identity()) before = used;
    if (t.warp() == 0) {
      by_warp const first{t};
      kept_row const row(keep.tokens + r * keep.stride, keep.counts[r], mode, first);
      bool const in_order = row.in_order(first);
      if (t.lane() == 0) {
        moves[r] = row.moves(), scattered[r] = !in_order;
        if (own) freed_counts[row_of_table] = static_cast<std::int32_t>(before - used);
      }
    }
    for (std::int64_t i = used + t.linear_index(); own && i < before; i += t.block_size().x)
      freed[row_of_table * pages + i - used] = c.v.pages.entry(b, h, i);
  }
};

template <class Entry> void compacted<Entry>::prepare(device& ctx, layer_view<Entry> const& v) {
  layers_a_row_ = v.pages.layers_a_row();
  rows_ = v.rows(), table_rows_ = v.pages.rows() / layers_a_row_, pages_ = v.pages.is_identity() ? 0 : v.pages.columns,
  heads_ = v.heads();
  words_ = rows_ == 0 ? 0 : 3 * rows_ + table_rows_;
  std::int64_t const entries = (words_ * 4 + 15) / 16 * 16;
  auto const bytes =
      static_cast<std::size_t>(entries + table_rows_ * pages_ * static_cast<std::int64_t>(sizeof(Entry)));
  bool const own = memory_.holds(v.lengths.data);
  KVEVICT_EXPECTS(bytes <= memory_.size() || !own,
                  "compact: the view's lengths are those of the result that is provided, which "
                  "has to grow; provide another one");
  auto const& n = v.lengths;  // a row's length is overwritten where no other row's is read
  bool const in_place = n.data == lengths_ && (v.sequences() <= 1 || n.seq_stride == heads_) && n.head_stride <= 1;
  KVEVICT_EXPECTS(
      !own || in_place,
      "compact: the view's lengths lie among those of the result that is provided, as rows of other numbers; "
      "provide another one, or a view whose first row is the result's");
  memory_.grow(ctx.queue(), bytes);
  lengths_ = reinterpret_cast<std::int32_t*>(memory_.data()), moves_ = lengths_ + rows_, scattered_ = moves_ + rows_,
  freed_counts_ = scattered_ + rows_;
  pages_freed_ = reinterpret_cast<Entry*>(memory_.data() + entries);
  before_ = v.order, ready_ = false, page_size_ = v.pages.page_size;
  per_layer_ = v.rows() / v.pages.layers;
  for (std::int32_t const in_later_layer : {0, 1})
    for (std::int32_t const of_later_head : {0, 1}) {
      std::int64_t& of_a_move = bytes_a_move_[2 * in_later_layer + of_later_head] = 0;
      for (component const& c : v)
        if (c.alias_of < 0 && !(in_later_layer != 0 && v.shared_by_layers(c)) &&
            !(of_later_head != 0 && v.shared_by_heads(c)))
          of_a_move += c.rows.row_bytes();
    }
}

template <class Entry>
void enqueue_compaction(device& ctx, layer_view<Entry> const& v, keep_set const& keep, compaction mode,
                        compacted<Entry>& out) {
  device::call call(ctx, out.status_, v.sequences(), v.pages.layers);
  call.takes(keep.status());
  if (!ctx.is_dry()) out.ready_ = false;
  moves::expect_mode("compact", mode);
  moves::expect_rows_move("compact", v);
  auto const check = check_of("compact", ctx, v, keep, false);
  validate(ctx, v);
  if (!ctx.is_dry()) out.prepare(ctx, v);
  ctx.launch({static_cast<std::uint32_t>(v.rows())}, {256}, 0,
             record_kernel<Entry>{check, out.pages_, mode, out.lengths_, out.moves_, out.scattered_, out.freed_counts_,
                                  out.pages_freed_});
  move_rows(ctx, v, check.keep, out.moves_, out.lengths_, mode);
  call.done();
}

}  // namespace cuda

/// Moves the kept tokens of every row to its front, in all components of the cache, in the context's stream; the rest
/// is forgotten.
///
/// Shapes   keep set of this view (B·H rows), all in device memory → lengths (B·H) and freed pages, in device memory at
///          once, on the host after out.wait(ctx).
/// Cost     O(pages) checks, 2 · moved bytes; 3 launches, 4 with a read-only prefix, and one for all components whose
///          rows are equally long and aligned (K and V), one for the next length of rows. No allocation after the first
///          call of a size; nothing is waited for. The view's own lengths must stay as they are until the stream has
///          passed; they may be out.lengths_on_device(), of the same rows or the first of them.
/// Errors   contract_violation as on the host: at once for what the host's fields show, and for a keep set whose plan
///          was refused at once; the rest by out.wait(ctx), the refusal of the keep set's plan before all else. Nothing
///          of this view has moved then.
template <class Entry>
void compact(cuda::device& ctx, layer_view<Entry> const& view, cuda::keep_set const& keep, compaction mode,
             cuda::compacted<Entry>& out) {
  cuda::enqueue_compaction(ctx, view, keep, mode, out);
}

}  // namespace KVEVICT_ABI
}  // namespace kvevict
