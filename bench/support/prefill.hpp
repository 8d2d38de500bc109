// SPDX-License-Identifier: Apache-2.0
// A layer's causal prefill attention with plain Eigen products, to compare with.
#pragma once

#include <Eigen/Core>

#include "support/roof.hpp"

namespace bench {

class prefill_attention {
 public:
  prefill_attention(std::int32_t q_heads, std::int32_t kv_heads, std::int32_t head_dim, std::int32_t tokens)
      : heads_(kv_heads),
        tokens_(tokens),
        K_(matrix::Random(head_dim, tokens)),
        V_(matrix::Random(head_dim, tokens)),
        Q_(matrix::Random(head_dim, rows * q_heads / kv_heads)),
        Z_(tile, Q_.cols()),
        O_(head_dim, Q_.cols()) {}

  /// CPU seconds of one thread: measured on the last 64 tokens and scaled to all N, which read N/2 keys on average
  /// instead of N.
  double measure() {
    double const start = seconds(1);
    for (std::int32_t h = 0; h < heads_; ++h) {
      O_.setZero();
      for (Eigen::Index j = 0; j < K_.cols(); j += tile) {
        Eigen::Index const n = std::min<Eigen::Index>(tile, K_.cols() - j);
        auto z = Z_.topRows(n);
        z.noalias() = K_.middleCols(j, n).transpose() * Q_;
        z = z.array().exp();
        O_.noalias() += V_.middleCols(j, n) * z;
      }
      benchmark::DoNotOptimize(O_.data());
    }
    return (seconds(1) - start) * tokens_ / rows / 2;
  }

 private:
  using matrix = Eigen::MatrixXf;
  static constexpr std::int32_t rows = 64, tile = 512;
  std::int32_t heads_, tokens_;
  matrix K_, V_, Q_, Z_, O_;
};

}  // namespace bench
