// SPDX-License-Identifier: Apache-2.0
// What a model would know of itself, for laws: the same of every head and layer, so that heads may change places.
#pragma once

#include <map>
#include <utility>
#include <vector>

#include <kvevict/cache/layer_view.hpp>
#include <kvevict/core/projection.hpp>
#include <kvevict/core/query_moments.hpp>

#include "support/random.hpp"

namespace support {

/// W_O of 5 outputs, a block (D,5) after the other.
struct law_output {
  static constexpr std::int32_t outputs = 5, blocks = 64;
  std::vector<float> const& weights;
  std::int32_t D;

  explicit law_output(std::int64_t width) : weights(of_width(width)), D(static_cast<std::int32_t>(width)) {}
  template <class Entry> explicit law_output(kvevict::layer_view<Entry> const& view) : law_output(width_of(view)) {}

  /// Heads follow each other by a block, and so do layers.
  kvevict::projection at(float const* data) const { return {data, outputs, outputs, 1, std::int64_t{D} * outputs}; }
  kvevict::projection on_host() const { return at(weights.data()); }

 private:
  /// Of values; of those that no cache has, 1.
  template <class Entry> static std::int64_t width_of(kvevict::layer_view<Entry> const& view) {
    kvevict::component const* const v = view.find(kvevict::role::v);
    return v == nullptr || v->width() < 1 || v->width() > 1024 ? 1 : v->width();
  }
  static std::vector<float> const& of_width(std::int64_t D) {
    static std::map<std::int64_t, std::vector<float>> all;
    std::vector<float>& out = all[D];
    if (out.empty()) {
      auto const block = reference::generator(77).normals<float>(static_cast<std::size_t>(D * outputs));
      for (int i = 0; i < blocks; ++i) out.insert(out.end(), block.begin(), block.end());
    }
    return out;
  }
};

/// Moments of the queries of two query heads for each KV head, a block after the other; nothing turns their keys.
struct law_moments {
  static constexpr std::int32_t blocks = 64;
  std::vector<float> const &mean, &covariance;
  std::int32_t D, heads;

  template <class Entry> explicit law_moments(kvevict::layer_view<Entry> const& view) : law_moments(width_of(view)) {
    heads = view.heads() < 0 ? view.heads() : 2 * view.heads();  // of a broken view below 0
  }
  explicit law_moments(std::int32_t width)
      : mean(of_width(width).first), covariance(of_width(width).second), D(width), heads(2) {}

  /// Heads follow each other by a block, and so do layers.
  kvevict::query_moments at(float const* means, float const* covariances) const {
    return {means, covariances, heads, D, 0, 1, 0};
  }
  kvevict::query_moments on_host() const { return at(mean.data(), covariance.data()); }
  /// The view, which says that its keys are as they were.
  template <class View> static View unturned(View view) {
    for (auto& c : view.components)
      if (c.what == kvevict::role::k) c.turned_by = kvevict::rotation::none;
    return view;
  }

 private:
  template <class Entry> static std::int32_t width_of(kvevict::layer_view<Entry> const& view) {
    kvevict::component const* const k = view.find(kvevict::role::k);
    return k == nullptr || k->width() < 1 || k->width() > 128 ? 1 : static_cast<std::int32_t>(k->width());
  }
  static std::pair<std::vector<float>, std::vector<float>> const& of_width(std::int32_t D) {
    static std::map<std::int32_t, std::pair<std::vector<float>, std::vector<float>>> all;
    auto& [mean, covariance] = all[D];
    if (!mean.empty()) return all[D];
    reference::generator random(78);
    auto const n = static_cast<std::size_t>(D);
    std::vector<float> const one = random.normals<float>(n), factor = random.normals<float>(2 * n, 0.4);
    std::vector<float> square(n * n);
    for (std::size_t a = 0; a < n; ++a)
      for (std::size_t b = 0; b < n; ++b)
        square[a * n + b] = factor[a] * factor[b] + factor[n + a] * factor[n + b] + (a == b ? 0.1f : 0.0f);
    for (int i = 0; i < blocks; ++i) {
      mean.insert(mean.end(), one.begin(), one.end());
      covariance.insert(covariance.end(), square.begin(), square.end());
    }
    return all[D];
  }
};

}  // namespace support
