// SPDX-License-Identifier: Apache-2.0
// How far the attention output of a head and of a layer moves when tokens are evicted.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include <kvevict/cache/keep_set.hpp>
#include <kvevict/core/projection.hpp>
#include <kvevict/measure/attention.hpp>
#include <kvevict/measure/outputs.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace measure {

/// Of every KV head, its query heads apart from each other, and of every sequence's layer.
struct output_errors {
  std::int32_t sequences = 0, heads = 0;
  std::vector<difference> of_heads;   // (B·H)
  std::vector<difference> of_layers;  // (B)

  difference const& head(std::int32_t b, std::int32_t h) const {
    KVEVICT_EXPECTS(b >= 0 && b < sequences && h >= 0 && h < heads, "measure: there is no sequence ", b, ", head ", h,
                    " among ", sequences, " of ", heads, " heads; ask for one of the view that was measured");
    return of_heads[static_cast<std::size_t>(std::int64_t{b} * heads + h)];
  }
  difference const& layer(std::int32_t b) const {
    KVEVICT_EXPECTS(b >= 0 && b < sequences, "measure: there is no sequence ", b, " among ", sequences,
                    "; ask for one of the view that was measured");
    return of_layers[static_cast<std::size_t>(b)];
  }
  /// Of all layers and sequences together.
  difference all() const {
    difference out;
    for (difference const& x : of_layers) out.add(x);
    return out;
  }
};

/// The error of the attention output that an eviction makes, for the rows that the evidence provides.
///
///   y = Σ_j a(j)·v(j)     ŷ = Σ_{j kept} a(j)·v(j) / (1 − Σ_{j evicted} a(j))      softmax over what stays
///   head    y of a query head, through V alone, or y·W_O of that head
///   layer   Σ over query heads of y·W_O; through V alone the heads side by side
///
/// A learned sink, or tokens of other shards, stay in the softmax and add nothing to y.
/// Shapes   evidence of B sequences, a keep set of its view, W_O (Hq·D, E) → errors (B·H) and (B).
/// Cost     4·Hq·W·N·D flop in double, with W_O 4·Hq·W·D·E more; scratch of retained_masses, and 8 rows of outputs a
///          worker.
/// Errors   contract_violation: as retained_masses; a cache without values that can be read; values that are not
///          finite; a W_O without its strides.
template <class Evidence>
output_errors output_error(host& ctx, Evidence const& e, keep_set const& keep, projection const& wo = {},
                           options const& o = {}) {
  frame scratch(ctx.scratch());
  attention<Evidence> const rows(ctx, scratch, e, o);
  expect_keep_set(ctx, e.cache, keep);
  expect_projection("measure", wo, e.cache.pages.layers);
  outputs<Evidence> const out(ctx, scratch, rows, keep, wo);
  std::int32_t const H = keep.heads;
  std::int64_t const parts = rows.blocks() * (H + 1);  // of the heads, and of the layer
  auto* const found = scratch.allocate<difference>(parts);
  kvevict::fill_n(found, parts, difference{});
  rows.for_each([&](row_block const& block, std::int64_t i, std::int32_t h, block_weights const& a, std::int32_t of) {
    out.add(block, h, a, of, found[i * (H + 1) + h], found[i * (H + 1) + H]);
  });
  output_errors all{keep.sequences, H, {}, {}};
  all.of_heads.resize(static_cast<std::size_t>(keep.rows()));
  all.of_layers.resize(static_cast<std::size_t>(keep.sequences));
  for (std::int64_t i = 0; i < parts; ++i) {
    std::int32_t const b = rows.block(i / (H + 1)).sequence;
    std::int64_t const h = i % (H + 1);
    KVEVICT_EXPECTS(__builtin_isfinite(found[i].squares_of_y) && std::isfinite(found[i].squares),
                    "measure: ", messages::of_sequence(b),
                    ": outputs are not finite; look for NaN and infinity in values and W_O");
    if (h == H)
      all.of_layers[static_cast<std::size_t>(b)].add(found[i]);
    else
      all.of_heads[static_cast<std::size_t>(std::int64_t{b} * H + h)].add(found[i]);
  }
  return all;
}

}  // namespace measure
}  // namespace KVEVICT_ABI
}  // namespace kvevict
