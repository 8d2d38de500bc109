// SPDX-License-Identifier: Apache-2.0
// Reductions over the rows of a cache in both contexts, and what they are in double.
#pragma once

#include <cmath>
#include <limits>
#include <vector>

#include <kvevict/cache/row_reader.hpp>
#include <kvevict/core/token_groups.hpp>
#include <kvevict/kernels/row_reductions.hpp>

#include "support/catch.hpp"
#include "support/layouts.hpp"
#include "support/selection.hpp"

namespace support {

/// A score for every token of a cache; all but the first two and the last three may be evicted, the last row is not
/// active.
template <class Entry> reference::selection_input rows_of(layouts::cache<Entry> const& cache) {
  reference::selection_input in;
  in.sequences = cache.view.sequences(), in.heads = cache.view.heads();
  for (std::int32_t b = 0; b < in.sequences; ++b)
    for (std::int32_t h = 0; h < in.heads; ++h) {
      std::int32_t const n = cache.view.length(b, h);
      in.rows.push_back({b, h, n, 2, n - 3, std::max(n - 5, 0), n, true});
      in.begin.push_back(in.begin.back() + n);
      for (std::int32_t j = 0; j < n; ++j) in.values.push_back(std::sin(static_cast<float>(1 + b + 2 * h + 3 * j)));
    }
  in.rows.back().active = false;
  return in;
}
inline kvevict::score_rows host_rows(reference::selection_input& in) {
  kvevict::score_rows out = in.view();
  out.total_floats = in.begin.back();
  for (auto const& r : in.rows) out.most_tokens = std::max<std::int64_t>(out.most_tokens, r.tokens);
  return out;
}

/// A channel of a token times its score; the score alone.
template <class Entry> struct times_score {
  kvevict::row_elements<Entry> elements;
  kvevict::score_rows scores;

  KVEVICT_HOST_DEVICE void operator()(kvevict::row const& in, std::int64_t j, std::int32_t first,
                                      float (&x)[kvevict::row_chunk]) const {
    elements(in, j, first, x);
    for (float& e : x) e *= scores.score(in, j);
  }
};
struct score_alone {
  kvevict::score_rows scores;
  KVEVICT_HOST_DEVICE float operator()(kvevict::row const& in, std::int64_t j) const { return scores.score(in, j); }
};

enum class reduction { sum, max, min };

/// (B·H, G, width) of f(row, token, channel) in double; NaN marks what is not written.
template <class F>
std::vector<double> reduced(reduction how, kvevict::score_rows const& in, kvevict::token_groups const& groups,
                            std::int64_t most_tokens, std::int32_t width, F f) {
  double const infinity = std::numeric_limits<double>::infinity();
  std::vector<double> out;
  for (std::int64_t r = 0; r < in.count(); ++r)
    for (std::int64_t g = 0; g < groups.count(most_tokens); ++g)
      for (std::int32_t c = 0; c < width; ++c) {
        kvevict::row const& it = in.rows[r];
        double x = how == reduction::sum ? 0 : how == reduction::max ? -infinity : infinity;
        for (std::int64_t j = groups.first; j < it.tokens; ++j) {
          if (groups.size != 0 && (j - groups.first) / groups.size != g) continue;
          if (groups.range == kvevict::token_range::evictable && (j < it.first || j >= it.last)) continue;
          double const y = f(it, j, c);
          x = how == reduction::sum ? x + y : how == reduction::max ? std::max(x, y) : std::min(x, y);
        }
        out.push_back(it.active ? x : std::nan(""));
      }
  return out;
}

/// What was written is close to `want`, the rest as it was: 77.
inline void check_close(std::vector<float> const& got, std::vector<double> const& want) {
  REQUIRE(got.size() == want.size());
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    double const x = static_cast<double>(got[i]);
    wrong += std::isnan(want[i]) ? x != 77 : !(x == want[i] || std::abs(x - want[i]) <= 4e-6 * (1 + std::abs(want[i])));
  }
  CHECK(wrong == 0);
}

template <class Context, class F>
void reduce(reduction how, Context& ctx, kvevict::score_rows const& in, kvevict::token_groups const& groups,
            std::int32_t width, F const& f, float* out) {
  namespace kernels = kvevict::kernels;
  if (how == reduction::sum)
    kernels::row_sums(ctx, in, groups, width, f, out);
  else if (how == reduction::max)
    kernels::row_max(ctx, in, groups, width, f, out);
  else
    kernels::row_min(ctx, in, groups, width, f, out);
}

}  // namespace support
