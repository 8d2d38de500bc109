// SPDX-License-Identifier: Apache-2.0
// How far one next-token distribution is from another.
#pragma once

#include <cmath>

#include <Eigen/Core>

namespace compare {

/// Rows of a softmax over the vocabulary against another's: mean KL(full ‖ other) in nats, and how often the best token
/// agrees.
struct divergence {
  double kl = 0, top1 = 0;
  int rows = 0;

  template <class Logits> void add(Eigen::RowVectorXf const& full, Logits const& other) {
    auto const log_softmax = [](auto const& x) -> Eigen::RowVectorXf {
      float const peak = x.maxCoeff();
      return (x.array() - (peak + std::log((x.array() - peak).exp().sum()))).matrix();
    };
    Eigen::RowVectorXf const p = log_softmax(full), q = log_softmax(Eigen::RowVectorXf(other));
    Eigen::Index a, b;
    p.maxCoeff(&a), q.maxCoeff(&b);
    kl += double((p.array().exp() * (p - q).array()).sum());
    top1 += a == b;
    ++rows;
  }
};

}  // namespace compare
