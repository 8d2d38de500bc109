// SPDX-License-Identifier: Apache-2.0
// A random gate and the hidden states of a ragged batch, as numbers for the reference and as bytes for the library.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include <kvevict/core/dtype.hpp>
#include <kvevict/core/gate.hpp>

#include "support/batch.hpp"
#include "support/random.hpp"
#include "support/reference_gate.hpp"

namespace support {

inline constexpr float garbage = std::numeric_limits<float>::quiet_NaN();

/// x as an element of that type, appended; x becomes what was stored.
inline void append(std::vector<std::byte>& bytes, kvevict::dtype type, double& x) {
  auto const put = [&](auto stored) {
    auto const at = bytes.size();
    bytes.resize(at + sizeof stored);
    std::memcpy(bytes.data() + at, &stored, sizeof stored);
    x = static_cast<double>(kvevict::to_float(stored));
  };
  auto const f = static_cast<float>(x);
  if (type == kvevict::dtype::f16)
    put(kvevict::from_float<kvevict::f16>(f));
  else if (type == kvevict::dtype::bf16)
    put(kvevict::from_float<kvevict::bf16>(f));
  else
    put(f);
}

/// K' and V' as an engine keeps them. Rows that were never written hold NaN.
struct gate_rows {
  std::vector<float> rows;
  std::vector<std::int32_t> tokens;
  std::int64_t stride;
  std::int32_t capacity;

  gate_rows(std::size_t B, std::int32_t capacity_, std::int32_t width, std::int64_t more = 0)
      : rows(B * static_cast<std::size_t>(capacity_ * 2 * width + more), garbage),
        tokens(B, 0),
        stride(capacity_ * 2 * width + more),
        capacity(capacity_) {}
  [[nodiscard]] kvevict::gate_memory view() { return {rows.data(), stride, capacity, tokens.data()}; }
};

/// Hidden states that an engine provides.
struct hidden {
  std::vector<std::byte> bytes;
  std::vector<std::int32_t> begin{0};
  kvevict::dtype type = kvevict::dtype::f32;
  std::int32_t width = 0, stride = 0;

  [[nodiscard]] kvevict::feature_rows rows(kvevict::gate_memory memory = {}) const {
    return {bytes.data(), type, stride, width, begin.data(), memory};
  }
};

struct gate_shape {
  std::vector<std::size_t> N{40};
  std::int32_t H = 2, group = 1;  // flags = H·group
  std::int32_t heads = 2, width = 4, features = 24;
  kvevict::dtype weights = kvevict::dtype::f32, states = kvevict::dtype::f32;
  std::int32_t gap = 0;  // elements of garbage behind every row of hidden states
  double spread = 1;     // of the logits
  std::uint64_t seed = 1;
};

class gate_case {
 public:
  explicit gate_case(gate_shape s) : shape(std::move(s)) {
    reference::generator random(shape.seed);
    std::size_t const A = size(shape.heads * shape.width), E = size(shape.features), F = size(shape.H * shape.group);
    double const unit = 1 / std::sqrt(static_cast<double>(E));
    gate = {size(shape.heads),
            size(shape.width),
            E,
            F,
            random.normals(A * E, unit * shape.spread),
            random.normals(A * E, unit * shape.spread),
            random.normals(A * E, unit * 2),
            random.normals(F * A, 2 / std::sqrt(static_cast<double>(A))),
            random.normals(F, 0.3)};
    for (std::size_t const n : shape.N) {
      X.emplace_back();
      for (std::size_t t = 0; t < n; ++t) X.back().push_back(random.normals(E));
    }
    store();
  }

  gate_shape shape;
  reference::gate gate;
  std::vector<reference::rows> X;  // per sequence (N,E)

  /// After `gate` or `X` has been changed.
  void store() {
    for (int i = 0; i < 5; ++i) {
      reference::row* const from[] = {&gate.wq, &gate.wk, &gate.wv, &gate.wo, &gate.bias};
      bytes_[i].clear();
      for (double& x : *from[i]) append(bytes_[i], shape.weights, x);
    }
    std::vector<std::byte> unused;
    for (auto& sequence : X)
      for (auto& x : sequence)
        for (double& e : x) append(unused, shape.states, e);
  }

  [[nodiscard]] std::size_t B() const { return X.size(); }
  [[nodiscard]] std::int32_t sequences() const { return int32(B()); }
  [[nodiscard]] kvevict::gate_weights weights() const {
    return {bytes_[0].data(), bytes_[1].data(), bytes_[2].data(), bytes_[3].data(), bytes_[4].data(),
            shape.weights,    shape.heads,      shape.width,      shape.features,   int32(gate.flags)};
  }
  /// Tokens [from[b], to[b]) of every sequence.
  [[nodiscard]] hidden states(std::vector<std::size_t> const& from, std::vector<std::size_t> const& to) const {
    hidden out;
    out.type = shape.states, out.width = shape.features, out.stride = shape.features + shape.gap;
    for (std::size_t b = 0; b < B(); ++b) {
      for (std::size_t t = from[b]; t < to[b]; ++t) {
        for (double x : X[b][t]) append(out.bytes, out.type, x);
        for (std::int32_t i = 0; i < shape.gap; ++i) {
          double x = static_cast<double>(garbage);
          append(out.bytes, out.type, x);
        }
      }
      out.begin.push_back(out.begin.back() + int32(to[b] - from[b]));
    }
    return out;
  }
  [[nodiscard]] hidden states() const { return states(std::vector<std::size_t>(B(), 0), lengths()); }
  [[nodiscard]] std::vector<std::size_t> lengths() const {
    std::vector<std::size_t> out;
    for (auto const& x : X) out.push_back(x.size());
    return out;
  }
  [[nodiscard]] gate_rows memory(std::int32_t capacity, std::int64_t more = 0) const {
    return {B(), capacity, shape.heads * shape.width, more};
  }

  /// (flags,N) and (H,N) of sequence b.
  [[nodiscard]] rows flags(std::size_t b, reference::gate_sight sees = reference::gate_sight::causal) const {
    return reference::gate_flags(gate, X[b], sees);
  }
  [[nodiscard]] rows expected(std::size_t b, reference::gate_sight sees = reference::gate_sight::causal) const {
    return reference::gate_of_heads(flags(b, sees), size(shape.H));
  }

 private:
  static std::size_t size(std::int32_t n) { return static_cast<std::size_t>(n); }
  std::vector<std::byte> bytes_[5];
};

}  // namespace support
