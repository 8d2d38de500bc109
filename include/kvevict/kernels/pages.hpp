// SPDX-License-Identifier: Apache-2.0
// Rows of pages: what a plan ranks where pages stay or go as a whole, in every context.
#pragma once

#include <cstdint>

#include <kvevict/core/score_rows.hpp>
#include <kvevict/core/visibility.hpp>
#include <kvevict/kernels/kernel.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// A page's score: the mean of its tokens' or the largest. (The sum is the mean: only full pages are ranked, padding
/// apart.)
enum class page_reduce : std::uint8_t { mean, max };

namespace pages {

/// From a row of tokens whose interval and budget are whole pages, see planning.
constexpr row row_of(row it, std::int32_t page) {
  std::int32_t const rest = it.tokens % page;
  it.budget = (it.budget - rest) / page, it.tokens /= page;
  it.first /= page, it.last /= page, it.candidates /= page;
  if (!it.active) it.budget = it.tokens;
  return it;
}

/// s(p) = 1/n · Σ s(p·P + i), or the largest, over the n tokens that are not padding; in their order, so that no bit
/// depends on the context.
struct reduce_tokens {
  score_rows tokens;
  std::int32_t page;
  page_reduce reduce;
  visibility sees;

  constexpr void operator()(row const& in, std::int64_t p, float& x) const {
    if (p < in.first || p >= in.last) return;
    float const* const of = tokens.values + tokens.begin[tokens.index_of(in)] + p * page;
    std::int64_t const none = sees.padding(in.sequence) - p * page;
    auto const from = static_cast<std::int32_t>(none < 0 ? 0 : none < page ? none : page - 1);
    auto const share = static_cast<float>(reduce == page_reduce::mean ? page - from : 1);
    float all = of[from] / share;
    for (std::int32_t i = from + 1; i < page; ++i)
      all = reduce == page_reduce::max ? larger_or_nan(of[i], all) : all + of[i] / share;
    x = all;
  }
};

/// Rows of the pages of scored rows of tokens, in scratch. A page of 1 token is a token.
template <class Context>
score_rows score(Context& ctx, frame& scratch, score_rows const& tokens, std::int32_t page, page_reduce reduce,
                 visibility const& sees) {
  if (page == 1) return tokens;
  score_rows const out = kernels::page_rows(ctx, scratch, tokens, page);
  kernels::each_token(ctx, out, reduce_tokens{tokens, page, reduce, sees});
  return out;
}

}  // namespace pages
}  // namespace KVEVICT_ABI
}  // namespace kvevict
