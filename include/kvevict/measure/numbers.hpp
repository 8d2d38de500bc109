// SPDX-License-Identifier: Apache-2.0
// A measure of every row of the cache.
#pragma once

#include <cstdint>
#include <vector>

#include <kvevict/core/contract.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace measure {

/// A number of every sequence and KV head, (B·H), and how much went into it: rows without any count for nothing in
/// `mean`, `least` and `most`, which are of no number 0.
struct numbers {
  std::int32_t sequences = 0, heads = 0;
  std::vector<double> of_rows;  // row b·heads + h
  std::vector<double> weights;  // of each in the mean

  double operator()(std::int32_t b, std::int32_t h) const {
    KVEVICT_EXPECTS(b >= 0 && b < sequences && h >= 0 && h < heads, "measure: there is no sequence ", b, ", head ", h,
                    " among ", sequences, " of ", heads, " heads; ask for one of the view that was measured");
    return of_rows[static_cast<std::size_t>(b) * static_cast<std::size_t>(heads) + static_cast<std::size_t>(h)];
  }
  double mean() const {
    double sum = 0, all = 0;
    for (std::size_t r = 0; r < of_rows.size(); ++r)
      if (weights[r] != 0) sum += weights[r] * of_rows[r], all += weights[r];
    return all == 0 ? 0 : sum / all;
  }
  double least() const {
    return best([](double a, double b) { return a < b; });
  }
  double most() const {
    return best([](double a, double b) { return a > b; });
  }

 private:
  template <class Better> double best(Better better) const {
    double found = 0;
    bool any = false;
    for (std::size_t r = 0; r < of_rows.size(); ++r)
      if (weights[r] != 0 && (!any || better(of_rows[r], found))) found = of_rows[r], any = true;
    return found;
  }
};

/// Of the rows of a cache of that shape.
inline numbers numbers_of(std::int32_t sequences, std::int32_t heads) {
  auto const rows = static_cast<std::size_t>(sequences) * static_cast<std::size_t>(heads);
  numbers out{sequences, heads, {}, {}};
  out.of_rows.resize(rows), out.weights.resize(rows);
  return out;
}

}  // namespace measure
}  // namespace KVEVICT_ABI
}  // namespace kvevict
