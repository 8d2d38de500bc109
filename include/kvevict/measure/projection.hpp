// SPDX-License-Identifier: Apache-2.0
// A layer's output projection, as far as a measure reads it.
#pragma once

#include <cmath>
#include <cstdint>

#include <kvevict/core/contract.hpp>
#include <kvevict/core/fill.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace measure {

/// W_O of a layer, or nothing: then outputs are those of V, head beside head. Value channel d of query head hq adds
/// weights[(hq·D + d)·input_stride + o·output_stride] of itself to output o; a stack has layer_stride from a layer's to
/// the next. PyTorch's o_proj.weight (E, Hq·D): {w, E, 1, Hq·D}.
struct projection {
  float const* weights = nullptr;
  std::int32_t outputs = 0;  // E
  std::int64_t input_stride = 1, output_stride = 0, layer_stride = 0;

  constexpr bool is_given() const { return weights != nullptr; }

  /// to[o] += Σ_d x[d]·W(hq·D + d, o)
  void add(std::int32_t layer, std::int64_t hq, double const* x, std::int32_t D, double* to) const {
    float const* const of_head = weights + layer * layer_stride + hq * D * input_stride;
    for (std::int32_t o = 0; o < outputs; ++o) {
      float const* const w = of_head + o * output_stride;
      double sum = 0;
      for (std::int32_t d = 0; d < D; ++d) sum += x[d] * static_cast<double>(w[d * input_stride]);
      to[o] += sum;
    }
  }
};

inline void expect_projection(projection const& w, std::int32_t layers) {
  KVEVICT_EXPECTS(!w.is_given() || (w.outputs >= 1 && w.input_stride >= 1 && w.output_stride >= 1), "measure: W_O has ",
                  w.outputs, " outputs, strides of ", w.input_stride, " and ", w.output_stride,
                  " elements; give E ≥ 1 and both strides, of a tensor (E, Hq·D) 1 and Hq·D");
  KVEVICT_EXPECTS(!w.is_given() || layers == 1 || w.layer_stride != 0, "measure: W_O of one layer for a stack of ",
                  layers, "; give layer_stride, or measure layers one by one");
}

}  // namespace measure
}  // namespace KVEVICT_ABI
}  // namespace kvevict
