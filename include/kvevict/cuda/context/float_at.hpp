// SPDX-License-Identifier: Apache-2.0
// An element of an array whose type is known when the kernel runs.
#pragma once

#include <kvevict/core/dtype.hpp>
#include <kvevict/cuda/shim/shim.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

/// Element i of an array in f32, f16 or bf16.
template <class Index> KVEVICT_DEVICE float float_at(dtype type, void const* p, Index i) {
  if (type == dtype::f32) return static_cast<float const*>(p)[i];
  return type == dtype::f16 ? widen(static_cast<f16 const*>(p)[i]) : widen(static_cast<bf16 const*>(p)[i]);
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda
