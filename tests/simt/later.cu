// SPDX-License-Identifier: Apache-2.0
// Scores by W_O and by moments of queries as nvcc reads them: compiled by tests/run.sh, never run yet.
#include <kvevict/cuda.cuh>
using namespace kvevict;

void plan_later(cuda::device& ctx, layer_view<std::int32_t> const& v, query_rows const& q, query_moments const& m,
                projection const& wo, cuda::keep_set& keep) {
  budget const ask{.tokens_per_head = 16};
  plan(ctx, presets::expected_attention(), prompt(v, q), ask, keep);
  plan(ctx, presets::capkv(), contents(v).with_query_moments(m), ask, keep);
  plan(ctx, policy{score::output_weighted{score::key_norm{}}}, contents(v).with_output(wo), ask, keep);
}
