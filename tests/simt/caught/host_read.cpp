// expect(address): AddressSanitizer: SEGV
// SPDX-License-Identifier: Apache-2.0
// The host reads device memory.
#include <vector>

#include "simt/on_device.hpp"

int main() {
  simt_test::on_device<int> x(std::vector<int>(64));
  int volatile* const p = x.data();
  return p[3];  // the fault
}
