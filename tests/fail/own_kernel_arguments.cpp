// expect: halve: the arguments do not match; compare them with kernel(halve_tag, ctx, ...) in mine/halve.hpp (host)
// SPDX-License-Identifier: Apache-2.0
#include <kvevict/kernels/kernel.hpp>

namespace mine {
KVEVICT_KERNEL(halve, "mine/halve.hpp", "mine/halve.cuh");
void has_kernel(halve_tag, kvevict::host&);
inline void kernel(halve_tag, kvevict::host&, float*) {}
}  // namespace mine

int main() {
  kvevict::host ctx;
  mine::halve(ctx, 2);
}
