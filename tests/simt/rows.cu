// SPDX-License-Identifier: Apache-2.0
// Scores of keys and values alone, whole pages and re-rotation as nvcc reads them: compiled by tests/run.sh, never run
// yet.
#include <kvevict/cuda.cuh>
#include <kvevict/heads/together.hpp>
#include <kvevict/layers/together.hpp>
using namespace kvevict;

/// Every score that reads rows: of floats and of codes, as they lie there or turned back; and what is made of them.
void plan_all(cuda::device& ctx, layer_view<std::int32_t> const& v, rope const& by, cuda::keep_set& keep) {
  budget const ask{.tokens_per_head = 16, .layer = 0, .layer_count = 2};
  auto const cached = presets::keydiff();
  plan(ctx, cached, contents(v), ask, keep);
  plan(ctx, cached.with(select::pages{}), contents(v), ask, keep);
  plan(ctx, cached.with(heads::together{}), contents(v), ask, keep);
  plan(ctx, cached.with(layers::together{}), contents(v), ask, keep);
  plan(ctx, cached.with(layers::pyramid{}), contents(v), ask, keep);
  plan(ctx, presets::keydiff({.keys = score::keys::unrotated}), contents(v).with_rope(by), ask, keep);
  plan(ctx, presets::lagkv(), contents(v), ask, keep);
  plan(ctx, presets::random(), contents(v), ask, keep);
  plan(ctx, presets::streaming_llm(), contents(v), ask, keep);
}

template <class Entry> void turn_all(cuda::device& ctx, layer_view<Entry> const& v, rope const& by) {
  rerotate(ctx, v, by);
}
template void turn_all(cuda::device&, layer_view<std::int32_t> const&, rope const&);
template void turn_all(cuda::device&, layer_view<std::int64_t> const&, rope const&);
template void turn_all(cuda::device&, layer_view<std::byte*> const&, rope const&);
