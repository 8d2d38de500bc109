// SPDX-License-Identifier: Apache-2.0
// Chunks of a row's evictable tokens, and the order in which select::chunks keeps tokens. One text for all contexts.
#pragma once

#include <cstdint>
#include <limits>

#include <kvevict/core/score_rows.hpp>
#include <kvevict/core/spread.hpp>
#include <kvevict/evidence/unseen.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace select {

/// Scores of evictable tokens [first, last) of an ascending row.
struct chunk {
  float const* scores;  // of the row
  std::int32_t first, last;

  constexpr std::int32_t seen() const {
    std::int32_t n = 0;
    for (std::int32_t j = first; j < last; ++j) n += !unseen::is(scores[j]);
    return n;
  }
  /// Over the tokens that a later row sees; of none as they are.
  constexpr float mean() const {
    std::int32_t const n = seen();
    float sum = n == 0 ? unseen::score : 0;
    for (std::int32_t j = first; j < last; ++j)
      if (!unseen::is(scores[j])) sum += scores[j] / static_cast<float>(n);
    return sum;
  }
  /// How many of its tokens come before token j: score descending, newer first.
  constexpr std::int32_t better_than(std::int32_t j) const {
    std::int32_t n = 0;
    for (std::int32_t i = first; i < j; ++i) n += scores[i] > scores[j];
    for (std::int32_t i = j + 1; i < last; ++i) n += scores[i] >= scores[j];
    return n;
  }
  /// H(p) / log n, p = scores / Σ scores, shifted up by the least where that is negative.
  constexpr float evenness() const {
    float least = 0, sum = 0;
    for (std::int32_t j = first; j < last; ++j)
      if (!unseen::is(scores[j]) && scores[j] < least) least = scores[j];
    for (std::int32_t j = first; j < last; ++j)
      if (!unseen::is(scores[j])) sum += scores[j] - least;
    std::int32_t const n = seen();
    if (n < 2 || !(sum > 0)) return 0;
    std::int64_t parts = 0;
    for (std::int32_t j = first; j < last; ++j)
      if (!unseen::is(scores[j])) parts += spread::part((scores[j] - least) / sum);
    return spread::share(parts, n);
  }
};

/// What every token's chunk is.
struct chunking {
  score_rows tokens;
  std::int32_t size;

  constexpr bool begins(row const& in, std::int64_t j) const {
    return j >= in.first && j < in.last && (j - in.first) % size == 0;
  }
  /// That begins with token j.
  constexpr chunk at(row const& in, std::int64_t j) const {
    auto const first = static_cast<std::int32_t>(j);
    return {tokens.values + tokens.begin[tokens.index_of(in)], first, in.last - first < size ? in.last : first + size};
  }
};

/// Means and evenness of chunks, each at its chunk's first token; below them all elsewhere.
struct write_means {
  chunking of;
  constexpr void operator()(row const& in, std::int64_t j, float& x) const {
    x = of.begins(in, j) ? of.at(in, j).mean() : 2 * unseen::score;
  }
};
struct write_evenness {
  chunking of;
  constexpr void operator()(row const& in, std::int64_t j, float& x) const {
    x = of.begins(in, j) ? of.at(in, j).evenness() : 2 * unseen::score;
  }
};

/// Rows whose quota()-th best chunk is the median, the lower one of an even number.
struct keep_half {
  std::int32_t size;
  row* out;
  constexpr void operator()(slice<row> of, std::int64_t b) const {
    for (std::int64_t h = 0; h < of.size; ++h) {
      row& to = out[b * of.size + h] = of[h];
      if (!to.active) continue;
      std::int32_t const chunks = to.candidates / size + (to.candidates % size != 0 ? 1 : 0);
      to.budget = to.protected_tokens() + (chunks == 0 ? 0 : chunks / 2 + 1);
    }
  }
};

/// Which chunks are cut to a few tokens: those whose mean is not below the median, and whose evenness is.
struct peak_gate {
  std::int32_t peak = 0;  // tokens that stay of such a chunk; 0: there is no gate
  score_rows means{}, evenness{};
  float const *of_means = nullptr, *of_evenness = nullptr;  // (B·H) medians

  constexpr bool holds(row const& in, std::int64_t j) const {
    std::int64_t const r = means.index_of(in);
    return means.score(in, j) >= of_means[r] && evenness.score(in, j) < of_evenness[r];
  }
};
/// Tokens that chunks keep, at the chunk's first token.
struct count_kept {
  chunking of;
  peak_gate gate;
  KVEVICT_HOST_DEVICE constexpr float operator()(row const& in, std::int64_t j) const {
    if (!of.begins(in, j)) return 0;
    std::int32_t const n = of.at(in, j).seen();
    return static_cast<float>(gate.holds(in, j) && n > gate.peak ? gate.peak : n);
  }
};

/// The order as scores and positions, by which select_best then keeps tokens: those of better chunks first, of chunks
/// that are equally good the newer one's, within a chunk the better token, and tokens that chunks gave up last, by
/// their own scores.
struct write_order {
  chunking of;
  float* values;            // planes of the rows'
  std::int32_t* positions;  //
  peak_gate gate;
  float const* kept = nullptr;  // (B·H) tokens that chunks keep; with a gate

  constexpr void operator()(row const& in, std::int64_t j, float&) const {
    std::int64_t const r = of.tokens.index_of(in), at = of.tokens.begin[r];
    if (j < in.first || j >= in.last) positions[at + j] = static_cast<std::int32_t>(j);
    if (!of.begins(in, j)) return;
    constexpr float largest = std::numeric_limits<float>::max();
    chunk const here = of.at(in, j);
    float const mean = here.mean();
    bool const is_peak = gate.peak != 0 && gate.holds(in, j),
               all_kept = gate.peak != 0 && static_cast<float>(in.quota()) > kept[r];
    for (std::int32_t i = here.first; i < here.last; ++i) {
      std::int32_t const before = here.better_than(i);
      bool const given_up = is_peak && before >= gate.peak;
      positions[at + i] = here.last - 1 - before;
      values[at + i] = unseen::is(here.scores[i]) ? 4 * unseen::score
                       : all_kept                 ? (given_up ? here.scores[i] : largest)
                       : given_up                 ? 2 * unseen::score
                                                  : mean;
    }
  }
};

}  // namespace select
}  // namespace KVEVICT_ABI
}  // namespace kvevict
