// SPDX-License-Identifier: Apache-2.0
// How much of the attention that an engine paid to its tokens goes to those that a keep set keeps.
#pragma once

#include <cstdint>

#include <kvevict/cache/keep_set.hpp>
#include <kvevict/measure/attention.hpp>
#include <kvevict/measure/numbers.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace measure {

/// Of every row (b, h) of the cache the share of attention that its kept tokens have.
///
///   F(b,h) = mean over query heads of h and query rows of   Σ_{j kept} a(j) / Σ_j a(j)
///
/// 1 where a row is kept whole; less where what later rows attend to is evicted. Query rows that see no token count for
/// nothing. A learned sink and tokens of other shards are not the cache's: they are in neither sum.
/// Shapes   evidence of B sequences (queries with or without LSE, or softmax rows) and a keep set of its view → (B·H).
/// Cost     2·Hq·W·N·D flop in double; scratch W'·G·N doubles a worker, W' = 8 rows at a time.
/// Errors   contract_violation: what plan() says of views and evidence; a keep set of another view, or refused; no row
///          of attention at all.
template <class Evidence>
numbers retained_masses(host& ctx, Evidence const& e, keep_set const& keep, options const& o = {}) {
  frame scratch(ctx.scratch());
  attention<Evidence> const rows(ctx, scratch, e, o);
  expect_keep_set(ctx, e.cache, keep);
  struct part {
    double sum, count;
  };
  std::int64_t const parts = rows.blocks() * keep.heads;
  auto* const of_blocks = scratch.allocate<part>(parts);
  kvevict::fill_n(of_blocks, parts, part{0, 0});
  rows.for_each([&](row_block const& block, std::int64_t i, std::int32_t h, block_weights const& a, std::int32_t) {
    slice<std::int32_t const> const kept = keep(block.sequence, h);
    std::int64_t const N = keep.lengths[static_cast<std::size_t>(std::int64_t{block.sequence} * keep.heads + h)];
    part& to = of_blocks[i * keep.heads + h];
    for (std::int64_t k = 0; k < std::int64_t{rows.group()} * block.count(); ++k) {
      row_mass const m = a.mass(k, N, kept);
      if (m.tokens > 0) to.sum += m.kept / m.tokens, to.count += 1;
    }
  });
  numbers out = numbers_of(keep.sequences, keep.heads);
  for (std::int64_t i = 0; i < parts; ++i) {
    auto const r =
        static_cast<std::size_t>(std::int64_t{rows.block(i / keep.heads).sequence} * keep.heads + i % keep.heads);
    out.of_rows[r] += of_blocks[i].sum, out.weights[r] += of_blocks[i].count;
  }
  for (std::size_t r = 0; r < out.of_rows.size(); ++r)
    out.of_rows[r] = out.weights[r] == 0 ? 1 : out.of_rows[r] / out.weights[r];
  return out;
}

/// The mean over all of them: `REQUIRE(measure::retained_mass(ctx, evidence, keep) >= 0.95)`.
template <class Evidence>
double retained_mass(host& ctx, Evidence const& e, keep_set const& keep, options const& o = {}) {
  return retained_masses(ctx, e, keep, o).mean();
}

}  // namespace measure
}  // namespace KVEVICT_ABI
}  // namespace kvevict
