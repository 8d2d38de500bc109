// expect: pool: no kernel for this context; include kernels/pool.hpp (host) or cuda/scores/pool.hpp (CUDA)
// SPDX-License-Identifier: Apache-2.0
#include <kvevict/kernels/kernel.hpp>

struct my_device {};

int main() {
  my_device device;
  kvevict::kernels::pool(device, kvevict::pool_options{}, 0);
}
