// expect(any): block barrier is reached by 16 of 32 threads: thread 16 has returned
// SPDX-License-Identifier: Apache-2.0
// A barrier inside a condition that not all threads meet.
#include <cstdio>

#include "simt/on_device.hpp"

namespace cuda = kvevict::cuda;

struct divergent {
  void operator()(cuda::thread& t) const {
    if (t.linear_index() < 16) t.sync_block();
  }
};

int main() {
  try {
    cuda::launch(simt_test::default_stream(), {1}, {32}, 0, divergent{});
    cuda::synchronize(simt_test::default_stream());
  } catch (cuda::cuda_error const& e) {
    std::puts(e.what());
  }
}
