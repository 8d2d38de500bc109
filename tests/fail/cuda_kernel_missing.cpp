// expect: kernels::count_above has no overload for this context; include the header of the context's kernels
// SPDX-License-Identifier: Apache-2.0
#define KVEVICT_SIMT_EMULATION <support/simt/shim.hpp>
#include <kvevict/cuda/context/device.hpp>
#include <kvevict/heads/threshold.hpp>

// A stage whose kernel the device does not have: its header is not included.
void plan_on(kvevict::cuda::device& ctx, kvevict::score_rows& rows) { kvevict::heads::threshold{}(ctx, rows); }

int main() {}
