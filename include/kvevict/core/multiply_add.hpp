// SPDX-License-Identifier: Apache-2.0
// A product and a sum whose rounding does not depend on what a compiler chooses to fuse.
#pragma once

#include <kvevict/core/abi.hpp>
#include <kvevict/core/host_device.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// a·b + c with the one rounding of a fused instruction where there is one. For sums of two products: a compiler may
/// fuse either product of x·y + z·w, and does not choose alike in two copies of one function.
KVEVICT_HOST_DEVICE inline float multiply_add(float a, float b, float c) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA) || defined(__FP_FAST_FMAF) || defined(__CUDA_ARCH__)
  return __builtin_fmaf(a, b, c);
#else
  return a * b + c;
#endif
}

}  // namespace KVEVICT_ABI
}  // namespace kvevict
