// SPDX-License-Identifier: Apache-2.0
// What a vector is multiplied with to have length 1.
#pragma once

#include <cmath>

#include <kvevict/core/abi.hpp>
#include <kvevict/core/host_device.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// 1/√x; 0 for 0, NaN where x is not finite.
KVEVICT_HOST_DEVICE inline float inverse_root(float x) { return x == 0 ? 0.0f : x - x + 1 / ::sqrtf(x); }

}  // namespace KVEVICT_ABI
}  // namespace kvevict
