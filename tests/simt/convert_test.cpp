// SPDX-License-Identifier: Apache-2.0
// Conversions of the storage types inside a kernel: the host's bits for all of them.
#include <cstdint>
#include <vector>

#include "simt/kernels.hpp"
#include "simt/on_device.hpp"
#include "support/catch.hpp"

namespace convert_test {

using namespace simt_test;

namespace {

template <class T> void check_all() {
  std::size_t const count = 65536;
  on_device<std::uint32_t> wide(std::vector<std::uint32_t>(count, 7));
  on_device<std::uint16_t> back(std::vector<std::uint16_t>(count, 7));
  cuda::launch(wide.stream(), {count / 256}, {256}, 0, conversions<T>{wide.data(), back.data()});
  auto const floats = wide.read();
  auto const halves = back.read();
  std::size_t wrong = 0;
  for (std::uint32_t i = 0; i < count; ++i) {
    float const x = kvevict::to_float(T{static_cast<std::uint16_t>(i)});
    wrong += floats[i] != kvevict::bits::as_uint(x);
    wrong += halves[i] != kvevict::from_float<T>(kvevict::bits::as_float(i << 16 | i)).bits;
  }
  CHECK(wrong == 0);
}

}  // namespace

TEST_CASE("all halves and bfloats are converted in a kernel as on the host, to the bit") {
  check_all<kvevict::f16>();
  check_all<kvevict::bf16>();
}

}  // namespace convert_test
