// SPDX-License-Identifier: Apache-2.0
// A layer's output projection, as far as scores and measures read it.
#pragma once

#include <cstdint>

#include <kvevict/core/aligned.hpp>
#include <kvevict/core/contract.hpp>
#include <kvevict/core/dtype.hpp>
#include <kvevict/core/host_device.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// W_O of a layer, or nothing. Value channel d of query head hq adds weights[(hq·D + d)·input_stride + o·output_stride]
/// of itself to output o; a stack has layer_stride from a layer's to the next. PyTorch's o_proj.weight (E, Hq·D): {w,
/// E, 1, Hq·D}. Of some heads of a model: those of their channels.
struct projection {
  void const* weights = nullptr;
  std::int32_t outputs = 0;  // E
  std::int64_t input_stride = 1, output_stride = 0, layer_stride = 0;
  std::int32_t heads = 0;  // Hq; 0: as many as the evidence's rows of attention have
  dtype type = dtype::f32;

  constexpr bool is_given() const { return weights != nullptr; }

  /// What channel `input` of the heads side by side adds to that output.
  KVEVICT_HOST_DEVICE float at(std::int32_t layer, std::int64_t input, std::int32_t output) const {
    std::int64_t const i = layer * layer_stride + input * input_stride + output * output_stride;
    return with_type(type, [&](auto t) { return to_float(static_cast<decltype(t) const*>(weights)[i]); });
  }
  /// to[o] += Σ_d x[d]·W(hq·D + d, o)
  void add(std::int32_t layer, std::int64_t hq, double const* x, std::int32_t D, double* to) const {
    for (std::int32_t o = 0; o < outputs; ++o) {
      double sum = 0;
      for (std::int32_t d = 0; d < D; ++d) sum += x[d] * static_cast<double>(at(layer, hq * D + d, o));
      to[o] += sum;
    }
  }
};

inline void expect_projection(char const* who, projection const& w, std::int32_t layers) {
  KVEVICT_EXPECTS(!w.is_given() || (w.outputs >= 1 && w.input_stride >= 1 && w.output_stride >= 1), who, ": W_O has ",
                  w.outputs, " outputs, strides of ", w.input_stride, " and ", w.output_stride,
                  " elements; give E ≥ 1 and both strides, of a tensor (E, Hq·D) 1 and Hq·D");
  KVEVICT_EXPECTS(is_floating(w.type), who, ": W_O has elements of type ", name_of(w.type), "; give f32, f16 or bf16");
  expect_aligned(who, "weights of W_O", w.weights, w.type);
  KVEVICT_EXPECTS(!w.is_given() || layers == 1 || w.layer_stride != 0, who, ": W_O of one layer for a stack of ",
                  layers, "; give layer_stride, or take layers one by one");
}

}  // namespace KVEVICT_ABI
}  // namespace kvevict
