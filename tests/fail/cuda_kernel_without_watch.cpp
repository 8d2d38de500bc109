// expect: launch: the kernel has no `watched watch`
// SPDX-License-Identifier: Apache-2.0
#define KVEVICT_SIMT_EMULATION <support/simt/shim.hpp>
#include <kvevict/cuda/context/device.hpp>

struct halve {
  float* x;
  KVEVICT_DEVICE void operator()(kvevict::cuda::thread& t) const { x[t.index().x] /= 2; }
};

void run(kvevict::cuda::device& ctx, float* x) { ctx.launch({1}, {64}, 0, halve{x}); }
