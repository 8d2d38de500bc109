// SPDX-License-Identifier: Apache-2.0
// The kernels of cuda/gate/gate.hpp as nvcc reads them: compiled by tests/run.sh, never run yet.
#include <kvevict/cuda/gate/gate.hpp>

void launch_gate(kvevict::cuda::device& ctx, kvevict::gate_weights const& w, kvevict::feature_rows const& in,
                 kvevict::score_rows const& out, float* p) {
  namespace kernels = kvevict::kernels;
  kernels::expect_prompt(ctx, in, out);
  kernels::gate(ctx, w, in, kvevict::gate_mask::causal, out.sequences, out.heads, p);
  kernels::put_rows(ctx, in, p, out);
}
