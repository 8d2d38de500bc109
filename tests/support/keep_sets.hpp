// SPDX-License-Identifier: Apache-2.0
// Keep sets without a policy, and the message of a refused call.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include <kvevict/cache/keep_set.hpp>
#include <kvevict/cache/layer_view.hpp>

#include "support/random.hpp"

namespace support {

/// Rows in order b·heads + h.
template <class Entry>
kvevict::keep_set keep_of(kvevict::layer_view<Entry> const& v, std::vector<std::vector<std::int32_t>> const& rows) {
  kvevict::keep_set keep;
  keep.sequences = v.sequences(), keep.heads = v.heads();
  keep.row_begin.push_back(0);
  for (std::int32_t b = 0; b < v.sequences(); ++b)
    for (std::int32_t h = 0; h < v.heads(); ++h) {
      auto const& row = rows.at(static_cast<std::size_t>(b * v.heads() + h));
      keep.tokens.insert(keep.tokens.end(), row.begin(), row.end());
      keep.row_begin.push_back(keep.kept());
      keep.lengths.push_back(v.length(b, h));
    }
  return keep;
}

/// `count` of the tokens of a row, among them all below `fixed`; ascending.
inline std::vector<std::int32_t> random_row(reference::generator& random, std::int32_t tokens, std::int32_t count,
                                            std::int32_t fixed = 0) {
  std::vector<std::int32_t> all(static_cast<std::size_t>(tokens));
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::int32_t>(i);
  auto const from = static_cast<std::size_t>(fixed);
  for (std::size_t i = all.size(); i > from + 1; --i) std::swap(all[i - 1], all[from + random.below(i - from)]);
  all.resize(static_cast<std::size_t>(std::max(count, fixed)));
  std::sort(all.begin(), all.end());
  return all;
}

/// The same number in all heads of a sequence, unless `ragged`.
template <class Entry>
kvevict::keep_set random_keep(reference::generator& random, kvevict::layer_view<Entry> const& v, bool ragged) {
  std::vector<std::vector<std::int32_t>> rows;
  std::int32_t count = 0;
  for (std::int32_t b = 0; b < v.sequences(); ++b)
    for (std::int32_t h = 0; h < v.heads(); ++h) {
      std::int32_t const n = v.length(b, h);
      if (h == 0 || ragged) count = static_cast<std::int32_t>(random.below(static_cast<std::size_t>(n) + 1));
      rows.push_back(random_row(random, n, count, std::min(n, v.read_only_tokens(b))));
    }
  return keep_of(v, rows);
}

/// What a call says when it refuses; empty when it does not.
template <class F> std::string refusal(F f) {
  try {
    f();
  } catch (kvevict::contract_violation const& e) {
    return e.what();
  }
  return {};
}

inline bool contains(std::string const& text, std::string const& part) { return text.find(part) != std::string::npos; }

}  // namespace support
