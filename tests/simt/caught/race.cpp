// expect(thread): data race
// SPDX-License-Identifier: Apache-2.0
// A missing barrier: a thread reads its neighbour's element of shared memory. The values come out right when threads
// run in order.
#include <vector>

#include "simt/on_device.hpp"

namespace cuda = kvevict::cuda;

struct racy {
  std::uint32_t* out;
  void operator()(cuda::thread& t) const {
    std::uint32_t* const x = t.shared<std::uint32_t>(t.block_size().x);
    x[t.linear_index()] = t.linear_index();
    t.sync_block();
    out[t.linear_index()] = x[(t.linear_index() + 1) % t.block_size().x];
    // no barrier here
    x[t.linear_index()] = 7;  // the fault
  }
};

int main() {
  simt_test::on_device<std::uint32_t> out(std::vector<std::uint32_t>(256));
  cuda::launch(out.stream(), {1}, {256}, 1024, racy{out.data()});
  return out.read()[0] == 1 ? 0 : 1;
}
