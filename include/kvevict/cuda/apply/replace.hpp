// SPDX-License-Identifier: Apache-2.0
// replace() on a device: the slot of every row that the next token overwrites.
#pragma once

#include <optional>
#include <vector>

#include <kvevict/cuda/apply/expect_keep.hpp>
#include <kvevict/cuda/evidence/rows.hpp>
#include <kvevict/cuda/evidence/validate.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace cuda {

/// One thread per row.
template <class Entry> struct replace_kernel {
  static constexpr int max_threads = 128;
  watched watch;
  layer_view<Entry> v;
  std::int32_t const *tokens, *counts;
  std::int64_t stride;
  std::int32_t* slots;
  bool page_wise;

  KVEVICT_DEVICE void operator()(thread& t) const {
    std::int64_t const r = std::int64_t{t.block().x} * t.block_size().x + t.rank();
    if (r >= v.rows() || watch.stopped(t)) return;
    auto const b = static_cast<std::int32_t>(r / v.heads()), h = static_cast<std::int32_t>(r % v.heads());
    std::int32_t const lost = v.length(b, h) - counts[r];
    if (lost > 1) watch.refuse(t, fault::victims, b, h, lost);
    if (lost > 0 && page_wise) watch.refuse(t, fault::page_wise, b, h);
    slots[r] = lost == 0 ? -1 : kept_row(tokens + r * stride, counts[r], compaction::stable).stay;
  }
};

}  // namespace cuda

/// The slot of every row that the next token overwrites before its attention, or −1 where nothing was evicted: `slots`
/// (B·H) in device memory. Nothing is moved; rows become scattered where a slot is not the last one.
///
/// Cost     O(pages) checks, 4 launches, 5 with a read-only prefix.
/// Errors   as on the host, what only the device can see by ctx.wait(); `slots` is undefined then.
template <class Entry>
void replace(cuda::device& ctx, layer_view<Entry> const& view, cuda::keep_set const& keep, std::int32_t* slots) {
  KVEVICT_EXPECTS(view.rows() == 0 || slots != nullptr, "replace: slots is null; give device memory of B·H int32");
  cuda::validate(ctx, view);
  cuda::expect_keep("replace", ctx, view, keep);
  ctx.launch({cuda::blocks_for(view.rows(), 128)}, {128}, 0,
             cuda::replace_kernel<Entry>{ctx.watch("replace"), view, keep.tokens, keep.counts, keep.stride, slots,
                                         cuda::is_page_wise(view)});
  ctx.settle();
}

}  // namespace KVEVICT_ABI
}  // namespace kvevict
