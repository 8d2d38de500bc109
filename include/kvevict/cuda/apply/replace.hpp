// SPDX-License-Identifier: Apache-2.0
// replace() on a device: the slot of every row that the next token overwrites.
#pragma once

#include <cstdint>

#include <kvevict/cuda/apply/expect_keep.hpp>
#include <kvevict/cuda/apply/kept_row.hpp>
#include <kvevict/cuda/context/call.hpp>
#include <kvevict/cuda/evidence/rows.hpp>
#include <kvevict/cuda/evidence/validate.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace cuda {

/// The keep set is checked while the slots are written, which mean nothing if it is refused. One block per row.
///
/// Shapes   kept tokens (B·H, stride), counts (B·H) → slots (B·H).
template <class Entry> struct replace_kernel {
  static constexpr int max_threads = 256;
  keep_check<Entry> c;
  std::int32_t* slots;

  KVEVICT_DEVICE void operator()(thread& t) const {
    if (c.watch.stopped(t)) return;
    std::int64_t const r = t.block().x;
    auto const b = static_cast<std::int32_t>(r / c.v.heads()), h = static_cast<std::int32_t>(r % c.v.heads());
    if (!c(t, r, b, h) || t.linear_index() != 0) return;
    std::int32_t const lost = c.v.length(b, h) - c.keep.counts[r];
    if (lost > 1) c.watch.refuse(t, fault::victims, b, h, lost);
    if (lost > 0 && c.page_wise != nullptr) c.watch.refuse_of(t, c.page_wise, fault::page_wise_slot, b, h);
    slots[r] = lost == 0 ? -1 : kept_row(c.keep.tokens + r * c.keep.stride, c.keep.counts[r], compaction::stable).stay;
  }
};

}  // namespace cuda

/// The slot of every row that the next token overwrites before its attention, or −1 where nothing was evicted: `slots`
/// (B·H) in device memory. Nothing is moved; rows become scattered where a slot is not the last one.
///
/// Cost     O(pages) checks, 3 launches, 4 with a read-only prefix.
/// Errors   as on the host, what only the device can see, and a refusal of the keep set's plan, by ctx.wait(); `slots`
///          is undefined then.
template <class Entry>
void replace(cuda::device& ctx, layer_view<Entry> const& view, cuda::keep_set const& keep, std::int32_t* slots) {
  cuda::device::call call(ctx, ctx.nameless(), view.sequences(), view.pages.layers);
  call.takes(keep.status());
  KVEVICT_EXPECTS(view.rows() == 0 || slots != nullptr, "replace: slots is null; give device memory of B·H int32");
  auto const check = cuda::check_of("replace", ctx, view, keep, true);
  cuda::validate(ctx, view);
  ctx.launch({static_cast<std::uint32_t>(view.rows())}, {256}, 0, cuda::replace_kernel<Entry>{check, slots});
  call.done();
}

}  // namespace KVEVICT_ABI
}  // namespace kvevict
