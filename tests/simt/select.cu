// SPDX-License-Identifier: Apache-2.0
// Selection, head budgets and the small score kernels as nvcc reads them: every instance, compiled by tests/run.sh,
// never run yet.
#include <kvevict/cuda/scores/each.hpp>
#include <kvevict/cuda/scores/multiply_by_share.hpp>
#include <kvevict/cuda/scores/pool.hpp>
#include <kvevict/cuda/scores/require_finite.hpp>
#include <kvevict/cuda/scores/squared_norms.hpp>
#include <kvevict/cuda/select/count_above.hpp>
#include <kvevict/cuda/select/count_best.hpp>
#include <kvevict/cuda/select/expect_shares.hpp>
#include <kvevict/cuda/select/score_histograms.hpp>
#include <kvevict/cuda/select/select_best.hpp>
#include <kvevict/heads/adaptive.hpp>
#include <kvevict/heads/forced_floor.hpp>
#include <kvevict/heads/over_layers.hpp>
#include <kvevict/heads/table.hpp>
#include <kvevict/heads/threshold.hpp>
#include <kvevict/layers/entropy.hpp>

struct halve {
  constexpr void operator()(kvevict::row const&, std::int64_t, float& x) const { x /= 2; }
};

template <class Entry>
void norms(kvevict::cuda::device& ctx, kvevict::layer_view<Entry> const& view, kvevict::score_rows const& s) {
  kvevict::kernels::squared_norms(ctx, view, view.components[0], s);
}

void select_all(kvevict::cuda::device& ctx, kvevict::score_rows s, kvevict::cuda::keep_set& out, std::int32_t* counts,
                std::vector<float>& values) {
  namespace kernels = kvevict::kernels;
  kernels::require_finite(ctx, s);
  kernels::pool(ctx, kvevict::pool_options{7}, s);
  kernels::multiply_by_share(ctx, s, s);
  kernels::each_token(ctx, s, halve{});
  kernels::count_above(ctx, s, 0.5f, counts);
  kernels::count_pooled(ctx, s, kvevict::pooled_best{}, counts);
  kvevict::heads::adaptive{}(ctx, s);
  kvevict::heads::forced_floor{}(ctx, s);
  kvevict::heads::over_layers{}(ctx, s);
  kvevict::heads::table{}(ctx, s);
  kvevict::heads::threshold{}(ctx, s);
  kvevict::layers::entropy{}.divide(ctx, s, s, s, kvevict::sharing::heads);
  kernels::select_best(ctx, s, out);
  kernels::read_scores(ctx, s, values);
  norms(ctx, kvevict::layer_view<std::int32_t>{}, s);
  norms(ctx, kvevict::layer_view<std::int64_t>{}, s);
  norms(ctx, kvevict::layer_view<std::byte*>{}, s);
}
