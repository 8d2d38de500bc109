// expect: count_above: the arguments do not match; compare them with kernel(count_above_tag, ctx, ...)
// SPDX-License-Identifier: Apache-2.0
#define KVEVICT_SIMT_EMULATION <support/simt/shim.hpp>
#include <kvevict/cuda/select/count_above.hpp>

void count(kvevict::cuda::device& ctx, kvevict::score_rows& rows) { kvevict::kernels::count_above(ctx, rows); }

int main() {}
