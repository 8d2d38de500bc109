// expect: kernels::pool has no overload for this context; include the header of the context's kernels
// SPDX-License-Identifier: Apache-2.0
#include <kvevict/kernels/kernel.hpp>

struct my_device {};

int main() {
  my_device device;
  kvevict::kernels::pool(device, kvevict::pool_options{}, 0);
}
