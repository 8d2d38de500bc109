// SPDX-License-Identifier: Apache-2.0
// Sixteen bytes, moved by one instruction.
#pragma once

#include <cstdint>

#include <kvevict/core/abi.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

struct alignas(16) vec128 {
  std::uint32_t words[4];
};

}  // namespace kvevict::inline KVEVICT_ABI::cuda
