// SPDX-License-Identifier: Apache-2.0
// The device shim as nvcc reads it: compiled by tests/run.sh for every architecture, never run yet.
#include "kernels.hpp"

void launch_all(kvevict::cuda::stream s) {
  namespace cuda = kvevict::cuda;
  using namespace simt_test;
  void* const p = cuda::allocate(s, 4096);
  cuda::fill_bytes(s, p, 0, 4096);
  auto* const f = static_cast<float*>(p);
  auto* const u = static_cast<std::uint32_t*>(p);
  cuda::launch(s, {4}, {256}, cuda::shared_bytes<std::uint32_t>(256), block_sum{u, u, 256});
  cuda::launch(s, {1}, {32, 2}, 0, warp_scan{u, u, u, static_cast<double*>(p)});
  cuda::launch(s, {1}, {32}, 0, half_warps{u});
  cuda::launch(s, {4}, {64}, 0, counters{u, static_cast<std::int32_t*>(p), static_cast<std::uint64_t*>(p)});
  cuda::launch(s, {1}, {64}, 64 << 10, reverse_async{f, f, 256, u});
  cuda::launch(s, {1}, {32}, 0,
               matrix_product<kvevict::f16>{static_cast<kvevict::f16*>(p), static_cast<kvevict::f16*>(p), f});
  cuda::launch(s, {1}, {32}, 0,
               matrix_product<kvevict::bf16>{static_cast<kvevict::bf16*>(p), static_cast<kvevict::bf16*>(p), f});
  cuda::launch(s, {1}, {32}, 0, arithmetic{f, f});
  cuda::launch(s, {256}, {256}, 0, conversions<kvevict::f16>{u, static_cast<std::uint16_t*>(p)});
  cuda::launch(s, {256}, {256}, 0, conversions<kvevict::bf16>{u, static_cast<std::uint16_t*>(p)});
  cuda::copy_on_device(s, p, p, 4);
  cuda::copy_to_device(s, p, &s, 4);
  cuda::copy_to_host(s, &s, p, 4);
  cuda::release(s, p);
  cuda::synchronize(s);
  cuda::owned_stream own;
  cuda::synchronize(own);
}
