// expect(thread): data race
// SPDX-License-Identifier: Apache-2.0
// A shuffle where a warp barrier is needed: it orders no memory.
#include <vector>

#include "simt/on_device.hpp"

namespace cuda = kvevict::cuda;

struct racy {
  std::uint32_t* out;
  void operator()(cuda::thread& t) const {
    std::uint32_t* const x = t.shared<std::uint32_t>(32);
    x[t.lane()] = t.lane();
    std::uint32_t const y = cuda::shuffle_xor(t, t.lane(), 1);
    out[t.lane()] = x[t.lane() ^ 1] + y;  // the fault
  }
};

int main() {
  simt_test::on_device<std::uint32_t> out(std::vector<std::uint32_t>(32));
  cuda::launch(out.stream(), {1}, {32}, 128, racy{out.data()});
  return out.read()[0] == 2 ? 0 : 1;
}
