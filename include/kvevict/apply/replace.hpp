// SPDX-License-Identifier: Apache-2.0
// Evicts without moving: while decoding, the next token overwrites the victim's slot.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include <kvevict/apply/moves.hpp>
#include <kvevict/cache/validate.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// The slot of every row that the next token overwrites before its attention, or −1 where nothing was evicted and it is
/// appended. Until then the slot is free: it still belongs to the row's length, but must not be attended to nor
/// counted.
class replaced {
 public:
  slice<std::int32_t const> slots() const {
    expect_ready();
    return {slots_.data(), static_cast<std::int64_t>(slots_.size())};
  }
  std::int32_t slot(std::int32_t b, std::int32_t h) const {
    expect_ready();
    std::int64_t const r = std::int64_t{b} * heads_ + h;
    KVEVICT_EXPECTS(b >= 0 && h >= 0 && h < heads_ && r < slots().size, "replaced: there is no sequence ", b, ", head ",
                    h, "; ask for one of the view that was provided");
    return slots()[r];
  }
  row_order order() const { return expect_ready(), order_; }

 private:
  void expect_ready() const {
    KVEVICT_EXPECTS(ready_,
                    "replaced: there is no result, because replace() has not been called, was refused or has failed; "
                    "write to no slot, append or compact");
  }

  template <class Context, class Entry>
  friend void replace(Context&, layer_view<Entry> const&, keep_set const&, replaced&);

  std::vector<std::int32_t> slots_;  // (B·H)
  std::int32_t heads_ = 0;
  row_order order_ = row_order::ascending;
  bool ready_ = false;
};

namespace moves {

template <class Entry> void expect_one_victim(layer_view<Entry> const& v, keep_set const& keep, std::int64_t r) {
  auto const b = static_cast<std::int32_t>(r / v.heads()), h = static_cast<std::int32_t>(r % v.heads());
  std::int64_t const lost = keep.lengths[static_cast<std::size_t>(r)] - keep.row(r).size;
  if (lost > 1) messages::victims(b, h, lost);
  auto const apart_from = [&](std::int64_t other) {
    return unmoved(keep.row(r), compaction::stable) != unmoved(keep.row(other), compaction::stable);
  };
  for (component const& c : v) {
    if (lost != 0 && c.scope == quant_scope::page_channel) messages::page_wise_slot(name_of(c.what));
    if (v.shared_by_heads(c) && apart_from(r - h)) messages::heads_disagree("replace", "evict", b, h, name_of(c.what));
    if (v.shared_by_layers(c) && apart_from(v.row_in_first_layer(b, h)))
      messages::layers_disagree("replace", "evict", b, h, v.pages.layer_of(b));
  }
}

}  // namespace moves

/// Applies keep sets of policies that evict one token per decoded token: nothing moves, the next token takes the
/// evicted one's slot, and rows become scattered.
///
/// Shapes   keep set of this view (B·H rows) with N or N − 1 tokens a row → slots (B·H).
/// Cost     O(pages) checks, O(N) a row; nothing is written; no allocation after the first call of a size.
/// Errors   contract_violation: unsound view; keep set of another view; more than one token evicted in a row; a
///          read-only token; unequal counts on a table that heads share; rows common to all heads or layers but
///          different victims; page-wise quantisation; a keep set of a refused plan. `out` has no result then.
template <class Context, class Entry>
void replace(Context& ctx, layer_view<Entry> const& view, keep_set const& keep, replaced& out) {
  out.ready_ = false;
  validate(view, ctx.scratch());
  moves::expect_keep("replace", ctx, view, fingerprint_of(view), keep);
  for (std::int64_t r = 0; r < view.rows(); ++r) moves::expect_one_victim(view, keep, r);
  out.slots_.resize(static_cast<std::size_t>(view.rows()));
  out.heads_ = view.heads();
  out.order_ = view.order;
  for (std::int64_t r = 0; r < view.rows(); ++r) {
    slice<std::int32_t const> const kept = keep.row(r);
    std::int32_t const n = keep.lengths[static_cast<std::size_t>(r)];
    std::int32_t const slot = kept.size == n ? -1 : static_cast<std::int32_t>(moves::unmoved(kept, compaction::stable));
    out.slots_[static_cast<std::size_t>(r)] = slot;
    if (slot >= 0 && slot != n - 1) out.order_ = row_order::scattered;
  }
  out.ready_ = true;
}

template <class Context, class Entry>
replaced replace(Context& ctx, layer_view<Entry> const& view, keep_set const& keep) {
  replaced out;
  replace(ctx, view, keep, out);
  return out;
}

}  // namespace KVEVICT_ABI
}  // namespace kvevict
