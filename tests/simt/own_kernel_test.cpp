// SPDX-License-Identifier: Apache-2.0
// A kernel that a user declares in a namespace of theirs, for the host and for a device.
#include <kvevict/cuda/context/device.hpp>
#include <kvevict/kernels/kernel.hpp>

#include "simt/on_device.hpp"
#include "support/catch.hpp"

namespace own_kernel_test {

namespace mine {

KVEVICT_KERNEL(halve, "mine/halve.hpp", "mine/halve.cuh");  // (float* x, std::uint32_t n): x[i] /= 2

void has_kernel(halve_tag, kvevict::host&);
inline void kernel(halve_tag, kvevict::host&, float* x, std::uint32_t n) {
  for (std::uint32_t i = 0; i < n; ++i) x[i] /= 2;
}
inline std::int64_t workspace(halve_tag, kvevict::host const&, std::uint32_t n) { return n; }

struct halve_kernel {
  static constexpr int max_threads = 64;
  kvevict::cuda::watched watch;
  float* x;
  std::uint32_t n;

  KVEVICT_DEVICE void operator()(kvevict::cuda::thread& t) const {
    if (watch.stopped(t)) return;
    std::uint32_t const i = t.block().x * 64 + t.index().x;
    if (i < n) x[i] /= 2;
  }
};
void has_kernel(halve_tag, kvevict::cuda::device&);
inline void kernel(halve_tag, kvevict::cuda::device& ctx, float* x, std::uint32_t n) {
  ctx.launch({(n + 63) / 64}, {64}, 0, halve_kernel{ctx.watch(), x, n});
}

}  // namespace mine

TEST_CASE("a kernel of one's own is found from any namespace, in every context") {
  std::vector<float> x(100, 3.0f);
  simt_test::on_device<float> const there(x);
  kvevict::host host;
  mine::halve(host, x.data(), 100u);
  CHECK(mine::halve.bytes(host, 100u) == 100);
  kvevict::cuda::device device(simt_test::default_stream());
  mine::halve(device, there.data(), 100u);
  CHECK(x == std::vector<float>(100, 1.5f));
  CHECK(there.read() == x);
}

}  // namespace own_kernel_test
