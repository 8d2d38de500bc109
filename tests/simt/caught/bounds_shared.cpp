// expect(address): AddressSanitizer:
// SPDX-License-Identifier: Apache-2.0
// A write beyond one shared array, into what on a device is the next one.
#include <vector>

#include "simt/on_device.hpp"

namespace cuda = kvevict::cuda;

struct too_far {
  void operator()(cuda::thread& t) const {
    float *const a = t.shared<float>(32), *const b = t.shared<float>(32);
    a[t.linear_index() + 1] = b[t.linear_index()];  // the fault
  }
};

int main() {
  cuda::launch(simt_test::default_stream(), {1}, {32}, 256, too_far{});
  cuda::synchronize(simt_test::default_stream());
}
