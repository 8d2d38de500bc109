// SPDX-License-Identifier: Apache-2.0
// libFuzzer's entry; main.cpp calls it, too.
#include "fuzz/input.hpp"

namespace fuzz {
void run_int32(input&);
void run_int64(input&);
void run_address(input&);
}  // namespace fuzz

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  fuzz::input in(data, size);
  switch (in.below(3)) {
    case 0: fuzz::run_int32(in); break;
    case 1: fuzz::run_int64(in); break;
    default: fuzz::run_address(in);
  }
  return 0;
}
