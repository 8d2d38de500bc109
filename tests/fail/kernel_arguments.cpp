// expect: pool: the arguments do not match; compare them with kernel(pool_tag, ctx, ...) in kernels/pool.hpp (host)
// SPDX-License-Identifier: Apache-2.0
#include <kvevict/kernels/pool.hpp>

int main() {
  kvevict::host ctx;
  kvevict::kernels::pool(ctx, kvevict::pool_options{}, 0);
}
