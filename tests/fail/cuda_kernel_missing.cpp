// expect: count_above: no kernel for this context; include kernels/count_above.hpp (host) or cuda/select/count_above.hpp (CUDA)
// SPDX-License-Identifier: Apache-2.0
#define KVEVICT_SIMT_EMULATION <support/simt/shim.hpp>
#include <kvevict/cuda/context/device.hpp>
#include <kvevict/heads/threshold.hpp>

// A stage whose kernel the device does not have: its header is not included.
void plan_on(kvevict::cuda::device& ctx, kvevict::score_rows& rows) { kvevict::heads::threshold{}(ctx, rows); }

int main() {}
