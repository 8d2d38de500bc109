// expect(thread): data race
// SPDX-License-Identifier: Apache-2.0
// Two blocks write one element of global memory.
#include <vector>

#include "simt/on_device.hpp"

namespace cuda = kvevict::cuda;

struct racy {
  std::uint32_t* out;
  void operator()(cuda::thread& t) const { out[t.linear_index()] += 1; }  // the fault
};

int main() {
  simt_test::on_device<std::uint32_t> out(std::vector<std::uint32_t>(32));
  cuda::launch(out.stream(), {2}, {32}, 0, racy{out.data()});
  return out.read()[0] == 2 ? 0 : 1;
}
