// SPDX-License-Identifier: Apache-2.0
// A keep set on the device belongs to this cache, or nothing moves.
#pragma once

#include <algorithm>

#include <kvevict/apply/moves.hpp>
#include <kvevict/cuda/apply/kept_row.hpp>
#include <kvevict/cuda/context/keep_set.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace cuda {

/// One block per row: planned for its length, ascending inside it, with its read-only prefix; equal counts where heads
/// share a table and equal tokens where they share a component's rows; nothing to move where scales are page-wise.
template <class Entry> struct expect_keep_kernel {
  static constexpr int max_threads = 256;
  watched watch;
  layer_view<Entry> v;
  std::int32_t const *tokens, *counts, *lengths;
  std::int64_t stride;
  bool same_tokens, page_wise;

  KVEVICT_DEVICE void operator()(thread& t) const {
    if (watch.stopped(t)) return;
    std::int64_t const r = t.block().x, first = r / v.heads() * v.heads();
    auto const b = static_cast<std::int32_t>(r / v.heads()), h = static_cast<std::int32_t>(r % v.heads());
    std::int32_t const n = v.length(b, h), count = counts[r], fixed = std::min(n, v.read_only_tokens(b));
    std::int32_t const* const kept = tokens + r * stride;
    if (lengths[r] != n || count < 0 || count > n) {
      if (t.rank() == 0) watch.refuse(t, fault::keep_set, b, h, n, lengths[r]);
      return;
    }
    if (t.rank() == 0 && !v.pages.per_head() && count != counts[first])
      watch.refuse(t, fault::unequal_counts, b, h, counts[first], count);
    if (t.rank() == 0 && fixed > 0 && (count < fixed || kept[fixed - 1] != fixed - 1))
      watch.refuse(t, fault::keep_prefix, b, h, fixed);
    if (t.rank() == 0 && page_wise && !moves_nothing(kept, count)) watch.refuse(t, fault::page_wise, b, h);
    std::int32_t const others = counts[first];
    bool const common = same_tokens && !(moves_nothing(kept, count) && moves_nothing(tokens + first * stride, others));
    if (t.rank() == 0 && common && count != others) watch.refuse(t, fault::heads_disagree, b, h);
    for (std::int32_t i = static_cast<std::int32_t>(t.rank()); i < count;
         i += static_cast<std::int32_t>(t.block_size().x)) {
      if (kept[i] < 0 || kept[i] >= n || (i > 0 && kept[i - 1] >= kept[i]))
        watch.refuse(t, fault::keep_unordered, b, h, n);
      if (common && count == others && kept[i] != tokens[first * stride + i])
        watch.refuse(t, fault::heads_disagree, b, h);
    }
  }

 private:
  KVEVICT_DEVICE bool moves_nothing(std::int32_t const* kept, std::int32_t count) const {
    return count <= 0 || (count <= stride && kept[count - 1] == count - 1);
  }
};

/// Some component's scales cover a page or a channel, so that its tokens cannot move.
template <class Entry> bool is_page_wise(layer_view<Entry> const& v) {
  return std::any_of(v.begin(), v.end(), [](component const& c) { return c.scope == quant_scope::page_channel; });
}

template <class Entry>
void expect_keep(char const* verb, device& ctx, layer_view<Entry> const& v, keep_set const& keep) {
  KVEVICT_EXPECTS(keep.sequences == v.sequences() && keep.heads == v.heads(), verb, ": the keep set has ",
                  keep.sequences, " sequences of ", keep.heads, " heads and the cache ", v.sequences(), " of ",
                  v.heads(), "; use the view that was planned on");
  bool const same = std::any_of(v.begin(), v.end(), [&](component const& c) { return v.shared_by_heads(c); });
  ctx.launch({static_cast<std::uint32_t>(v.rows())}, {256}, 0,
             expect_keep_kernel<Entry>{ctx.watch(verb), v, keep.tokens, keep.counts, keep.lengths, keep.stride, same,
                                       is_page_wise(v)});
  ctx.settle();
}

}  // namespace cuda
}  // namespace KVEVICT_ABI
}  // namespace kvevict
