// SPDX-License-Identifier: Apache-2.0
// The attention kernels as nvcc reads them: every product type, over tables of 32-bit ids.
#include <kvevict/cuda/attention/attention.hpp>
#include <kvevict/cuda/attention/softmax_rows.hpp>
using namespace kvevict;
template <class Entry>
void use(cuda::device& ctx, layer_view<Entry> const& v, query_rows const& q, attention_rows const& a,
         window_options const& o, score_rows const& s) {
  kernels::window_scores(ctx, v, q, o, s);
  kernels::window_weights(ctx, v, q, o, s);
  kernels::column_sums(ctx, v, q, o.group, s);
  kernels::newest_sums(ctx, v, q, o, s);
  kernels::window_scores(ctx, v, a, o, s);
  kernels::window_weights(ctx, v, a, o, s);
  kernels::column_sums(ctx, v, a, o.group, s);
  kernels::newest_sums(ctx, v, a, o, s);
}
template void use(cuda::device&, layer_view<std::int32_t> const&, query_rows const&, attention_rows const&,
                  window_options const&, score_rows const&);
