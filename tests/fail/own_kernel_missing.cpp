// expect: halve: no kernel for this context; include mine/halve.hpp (host) or mine/halve.cuh (CUDA), or write kernel(halve_tag, ctx, ...)
// SPDX-License-Identifier: Apache-2.0
#include <kvevict/kernels/kernel.hpp>

namespace mine {
KVEVICT_KERNEL(halve, "mine/halve.hpp", "mine/halve.cuh");
}

int main() {
  kvevict::host ctx;
  mine::halve(ctx, 2);
}
