// SPDX-License-Identifier: Apache-2.0
// Kernels of small matrices as nvcc reads them: compiled by tests/run.sh, never run yet.
#include <kvevict/cuda/scores/gram.hpp>
#include <kvevict/cuda/scores/inverse_cholesky.hpp>
#include <kvevict/cuda/scores/mapped_sums.hpp>

void matrices(kvevict::cuda::device& ctx, kvevict::layer_view<> const& view, kvevict::score_rows const& s, double* a,
              float* m) {
  kvevict::with_elements(view, view.components[0], [&](auto const& keys) {
    kvevict::kernels::gram(ctx, s, 128, keys, a);
    kvevict::kernels::mapped_sums(ctx, s, kvevict::kernels::lower_map{m, 128}, keys);
  });
  kvevict::kernels::inverse_cholesky(ctx, s, 128, kvevict::kernels::cholesky_options{0.01}, a, m);
}
