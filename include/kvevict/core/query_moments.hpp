// SPDX-License-Identifier: Apache-2.0
// What queries are like before rotation: their mean and covariance.
#pragma once

#include <cstdint>

#include <kvevict/core/contract.hpp>
#include <kvevict/core/host_device.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// Mean and covariance of the queries of every query head before rotation, measured once for a model or a prompt.
///
///   μ = 1/T·Σ_t q°_t,   Σ = 1/T·Σ_t (q°_t − μ)(q°_t − μ)ᵀ
///
/// Those of layer l and sequence s begin l·layer_stride + s·seq_stride heads behind the first; 0: the same for all.
struct query_moments {
  float const* mean = nullptr;           // (Hq, D)
  float const* covariance = nullptr;     // (Hq, D, D), of which the lower half is read; or null
  std::int32_t heads = 0, head_dim = 0;  // Hq, D
  float scale = 0;                       // of logits; 0: 1/√D
  std::int64_t layer_stride = 0, seq_stride = 0;

  KVEVICT_HOST_DEVICE constexpr float const* mean_of(std::int32_t layer, std::int32_t seq, std::int64_t hq) const {
    return mean + head_at(layer, seq, hq) * head_dim;
  }
  KVEVICT_HOST_DEVICE constexpr float const* covariance_of(std::int32_t layer, std::int32_t seq,
                                                           std::int64_t hq) const {
    return covariance + head_at(layer, seq, hq) * head_dim * head_dim;
  }
  float logit_scale() const { return scale != 0 ? scale : 1.0f / __builtin_sqrtf(static_cast<float>(head_dim)); }

 private:
  KVEVICT_HOST_DEVICE constexpr std::int64_t head_at(std::int32_t layer, std::int32_t seq, std::int64_t hq) const {
    return layer * layer_stride + seq * seq_stride + hq;
  }
};

inline void expect_moments(char const* who, query_moments const& m, std::int32_t kv_heads, std::int64_t key_width,
                           std::int32_t layers) {
  KVEVICT_EXPECTS(m.mean != nullptr, who, ": query moments without means; give (Hq,D) of them");
  KVEVICT_EXPECTS(m.heads > 0 && m.heads % kv_heads == 0 && m.head_dim == key_width, who, ": moments of ", m.heads,
                  " query heads of ", m.head_dim, " elements for ", kv_heads, " KV heads of ", key_width,
                  "; give those of this model's queries");
  KVEVICT_EXPECTS(m.scale >= 0 && m.scale < 1e9f, who, ": query moments with a logit scale of ", m.scale,
                  "; give the model's, or 0 for 1/√D");
  KVEVICT_EXPECTS(layers == 1 || m.layer_stride != 0, who, ": query moments of one layer for a stack of ", layers,
                  "; give layer_stride, in heads, or take layers one by one");
}

}  // namespace KVEVICT_ABI
}  // namespace kvevict
