// SPDX-License-Identifier: Apache-2.0
// Rows to select from, in device memory.
#pragma once

#include <cstring>
#include <limits>
#include <vector>

#include <kvevict/cuda/scores/each.hpp>

#include "simt/device_cache.hpp"
#include "support/selection.hpp"

namespace simt_test {

/// The rows of a selection_input as a device keeps them: room for the longest in every row, and for `spare` tokens
/// more.
struct device_rows {
  device_memory memory;
  kvevict::score_rows view;
  std::vector<std::int32_t> tokens;

  explicit device_rows(kvevict::score_rows const& s, std::int64_t spare = 0) {
    std::size_t const n = static_cast<std::size_t>(s.count());
    std::int64_t most = 1;
    for (std::size_t r = 0; r < n; ++r)
      most = std::max<std::int64_t>(most, s.rows[r].tokens), tokens.push_back(s.rows[r].tokens);
    most += spare;
    std::size_t const stride = static_cast<std::size_t>((most + 3) / 4 * 4);
    std::vector<std::int64_t> begin(n + 1);
    std::vector<float> values(n * stride, std::numeric_limits<float>::quiet_NaN());
    std::vector<std::int32_t> positions(n * stride, -7);
    for (std::size_t r = 0; r < n; ++r) {
      begin[r] = static_cast<std::int64_t>(r * stride);
      for (std::size_t j = 0; j < static_cast<std::size_t>(tokens[r]); ++j) {
        values[r * stride + j] = s.values[static_cast<std::size_t>(s.begin[r]) + j];
        positions[r * stride + j] = s.order(static_cast<std::int64_t>(r), static_cast<std::int64_t>(j));
      }
    }
    view = s;
    view.rows = memory.put(s.rows, n);
    view.values = memory.put(values);
    view.begin = memory.put(begin);
    view.positions = s.positions == nullptr ? nullptr : memory.put(positions);
    view.most_tokens = most, view.total_floats = static_cast<std::int64_t>(n * stride);
  }
  std::vector<float> values(kvevict::cuda::device& ctx) const {  // of active rows, zeros elsewhere
    std::vector<float> out;
    kvevict::kernels::read_scores(ctx, view, out);
    return out;
  }
  std::vector<kvevict::row> rows() const {
    auto const bytes = memory.read(0);
    std::vector<kvevict::row> out(bytes.size() / sizeof(kvevict::row));
    if (!out.empty()) std::memcpy(out.data(), bytes.data(), bytes.size());
    return out;
  }
};

}  // namespace simt_test
