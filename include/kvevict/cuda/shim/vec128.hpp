// SPDX-License-Identifier: Apache-2.0
// Sixteen bytes, moved by one instruction.
#pragma once

#include <cstdint>

namespace kvevict {
inline namespace v0 {
namespace cuda {

struct alignas(16) vec128 {
  std::uint32_t words[4];
};

}  // namespace cuda
}  // namespace v0
}  // namespace kvevict
