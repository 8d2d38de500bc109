// SPDX-License-Identifier: Apache-2.0
// A keep set on the device belongs to this cache, or nothing moves: what the kernels ask that begin to apply one.
#pragma once

#include <algorithm>

#include <kvevict/apply/moves.hpp>
#include <kvevict/cuda/context/keep_set.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

/// A keep set and the view that it is for.
template <class Entry> struct keep_check {
  watched watch;
  layer_view<Entry> v;
  keep_arrays keep;
  // names of components: of which all heads have one row, of which all layers do, whose scales cover a page; or null
  char const *of_heads, *of_layers, *page_wise;
  bool replaces;  // by replace(), which looks at page-wise scales itself

  /// By a block per row: planned for its length, ascending inside it, with its read-only prefix; equal counts where
  /// heads share a table and equal tokens where heads or layers share a component's rows; nothing to move where scales
  /// are page-wise. Whether its count may be believed.
  KVEVICT_DEVICE bool operator()(thread& t, std::int64_t r, std::int32_t b, std::int32_t h) const {
    std::int64_t const first = r - h;
    std::int32_t const n = v.length(b, h), count = keep.counts[r], others = keep.counts[first],
                       fixed = std::min(n, v.read_only_tokens(b));
    std::int32_t const* const kept = keep.tokens + r * keep.stride;
    bool const sound = keep.lengths[r] == n && count >= 0 && count <= n && count <= keep.stride;
    if (!sound && t.linear_index() == 0) watch.refuse(t, fault::keep_set, b, h, n, keep.lengths[r]);
    if (!sound) return false;
    if (t.linear_index() == 0) {
      if (!v.pages.per_head() && count != others) watch.refuse(t, fault::unequal_counts, b, h, others, count);
      if (fixed > 0 && (count < fixed || kept[fixed - 1] != fixed - 1))
        watch.refuse(t, fault::keep_prefix, b, h, fixed);
      if (page_wise != nullptr && !replaces && !moves_nothing(kept, count))
        watch.refuse_of(t, page_wise, fault::page_wise, b, h);
    }
    for (std::int32_t i = static_cast<std::int32_t>(t.linear_index()); i < count;
         i += static_cast<std::int32_t>(t.block_size().x)) {
      if (kept[i] < 0 || kept[i] >= n || (i > 0 && kept[i - 1] >= kept[i]))
        watch.refuse(t, fault::keep_unordered, b, h, n);
    }
    if (of_heads != nullptr && h != 0 && differs(t, r, first))
      watch.refuse_of(t, of_heads, replaces ? fault::heads_evict_apart : fault::heads_move_apart, b, h);
    if (of_layers != nullptr && v.pages.layer_of(b) != 0 && differs(t, r, v.row_in_first_layer(b, h)))
      watch.refuse_of(t, of_layers, replaces ? fault::layers_evict_apart : fault::layers_move_apart, b, h);
    return true;
  }

 private:
  /// A thread's part of whether two rows keep different tokens.
  KVEVICT_DEVICE bool differs(thread& t, std::int64_t r, std::int64_t other) const {
    std::int32_t const count = keep.counts[r], others = keep.counts[other];
    std::int32_t const *const kept = keep.tokens + r * keep.stride, *const of_other = keep.tokens + other * keep.stride;
    bool apart = count != others;
    for (std::int64_t i = t.linear_index(); i < count && !apart; i += t.block_size().x) apart = kept[i] != of_other[i];
    return apart;
  }

  KVEVICT_DEVICE bool moves_nothing(std::int32_t const* kept, std::int32_t count) const {
    return count <= 0 || (count <= keep.stride && kept[count - 1] == count - 1);
  }
};

/// The name of the first component of which that is true, or null.
template <class Entry, class Is> char const* name_of_first(layer_view<Entry> const& v, Is is) {
  auto const found = std::find_if(v.begin(), v.end(), is);
  return found == v.end() ? nullptr : name_of(found->what);
}

template <class Entry>
keep_check<Entry> check_of(char const* verb, device& ctx, layer_view<Entry> const& v, keep_set const& set,
                           bool replaces) {
  set.expect_planned(verb);
  keep_arrays const& keep = ctx.is_dry() ? ctx.dry_rows()(set) : set;
  KVEVICT_EXPECTS(keep.sequences == v.sequences() && keep.heads == v.heads(), verb, ": the keep set has ",
                  keep.sequences, " sequences of ", keep.heads, " heads and the cache ", v.sequences(), " of ",
                  v.heads(), "; use the view that was planned on");
  if (!ctx.is_dry()) contract::expect_same(verb, "keep set", fingerprint{set.epoch, 0}, fingerprint{v.epoch, 0});
  return {ctx.watch(verb),
          v,
          keep,
          name_of_first(v, [&](component const& c) { return v.shared_by_heads(c); }),
          name_of_first(v, [&](component const& c) { return v.shared_by_layers(c); }),
          name_of_first(v, [](component const& c) { return c.scope == quant_scope::page_channel; }),
          replaces};
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda
