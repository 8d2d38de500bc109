// expect(address): AddressSanitizer:
// SPDX-License-Identifier: Apache-2.0
// A read one element beyond an allocation.
#include <vector>

#include "simt/on_device.hpp"

namespace cuda = kvevict::cuda;

struct too_far {
  float* x;
  void operator()(cuda::thread& t) const { x[t.linear_index()] = x[t.linear_index() + 1]; }  // the fault
};

int main() {
  simt_test::on_device<float> x(std::vector<float>(64));
  cuda::launch(x.stream(), {1}, {64}, 0, too_far{x.data()});
  return x.read()[0] == 0 ? 0 : 1;
}
