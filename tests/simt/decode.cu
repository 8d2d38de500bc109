// SPDX-License-Identifier: Apache-2.0
// Decoding, compaction and relocation as nvcc reads them, over every table entry: compiled by tests/run.sh, never run
// yet.
#include <kvevict/cuda.cuh>

#include "support/ledger.hpp"

using namespace kvevict;

template <class Entry>
void decode(cuda::device& ctx, layer_view<Entry> const& v, attention_rows const& a, query_rows const& q,
            float const* lse, cuda::keep_set& keep, std::int32_t* slots, cuda::compacted<Entry>& out) {
  auto const policy = presets::h2o({.recent = 4});
  budget const ask{.tokens_per_head = 16};
  observe(ctx, policy, step(v, a), ask);
  observe(ctx, policy, step(v, q), ask);
  observe(ctx, policy, step(v, q).with_lse(lse, 1, 1), ask);
  plan(ctx, policy, remembered(v), ask, keep);
  replace(ctx, v, keep, slots);
  compact(ctx, v, keep, compaction::stable, out);
  compact(ctx, v, keep, compaction::fill_holes, out);
}
template void decode(cuda::device&, layer_view<std::int32_t> const&, attention_rows const&, query_rows const&,
                     float const*, cuda::keep_set&, std::int32_t*, cuda::compacted<std::int32_t>&);
template void decode(cuda::device&, layer_view<std::int64_t> const&, attention_rows const&, query_rows const&,
                     float const*, cuda::keep_set&, std::int32_t*, cuda::compacted<std::int64_t>&);
template void decode(cuda::device&, layer_view<std::byte*> const&, attention_rows const&, query_rows const&,
                     float const*, cuda::keep_set&, std::int32_t*, cuda::compacted<std::byte*>&);

template <class Entry>
void move_away(cuda::device& ctx, host& on_host, layer_view<Entry> const& v, keep_set const& keep,
               support::ledger<Entry>& pages, relocated<Entry>& out) {
  relocate(ctx, on_host, v, keep, pages, out);
}
template void move_away(cuda::device&, host&, layer_view<std::int32_t> const&, keep_set const&,
                        support::ledger<std::int32_t>&, relocated<std::int32_t>&);
template void move_away(cuda::device&, host&, layer_view<std::int64_t> const&, keep_set const&,
                        support::ledger<std::int64_t>&, relocated<std::int64_t>&);
template void move_away(cuda::device&, host&, layer_view<std::byte*> const&, keep_set const&,
                        support::ledger<std::byte*>&, relocated<std::byte*>&);
