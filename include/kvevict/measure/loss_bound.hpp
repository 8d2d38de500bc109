// SPDX-License-Identifier: Apache-2.0
// Ada-KV's bound of what an eviction does to a layer's output.
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

/// C of a sequence's layer: the largest ‖v_j·W_O‖₁ of a query head and token, from slot `first` on.
///
/// Cost     2·Hq·N·D·E flop in double: the dear part of the bound.
template <class Entry>
double largest_projection(layer_view<Entry> const& view, std::int32_t b, std::int32_t first, std::int32_t group,
                          projection const& wo, double* value, double* projected) {
  component const& values = readable("measure", view, role::v);
  auto const D = static_cast<std::int32_t>(values.width());
  double largest = 0;
  for (std::int32_t h = 0; h < view.heads(); ++h) {
    row_reader<Entry> const v(view, values, b, h);
    for (std::int64_t j = first; j < view.length(b, h); ++j) {
      for (std::int32_t d = 0; d < D; ++d) value[d] = static_cast<double>(v(j, d));
      for (std::int32_t g = 0; g < group; ++g) {
        kvevict::fill_n(projected, wo.outputs, 0.0);
        wo.add(view.pages.layer_of(b), std::int64_t{h} * group + g, value, D, projected);
        double sum = 0;
        for (std::int32_t o = 0; o < wo.outputs; ++o) sum += std::fabs(projected[o]);
        largest = sum > largest || sum != sum ? sum : largest;
      }
    }
  }
  return largest;
}

/// ε of every sequence, an upper bound of the L1 error of its layer's output, Σ over the rows that are measured.
///
///   ε = 2·C·Σ_rows Σ_hq (1 − F),  1 − F = the weights of a row's evicted tokens,  C = max_hq,j ‖v_j·W_O‖₁
///
/// Never below output_error(…).layer(b).l1 of the same rows.
/// Paper    Ada-KV, Feng et al., NeurIPS 2025, arXiv:2407.11550.   Differs: a sum over rows; what a learned sink has
///          stays.
/// Shapes   evidence, a keep set of its view, W_O (Hq·D, E) → (B).
/// Cost     retained_masses', and 2·Hq·N·D·E flop for C.
/// Errors   contract_violation: as output_error; no W_O.
template <class Evidence>
std::vector<double> loss_bounds(host& ctx, Evidence const& e, keep_set const& keep, projection const& wo,
                                options const& o = {}) {
  KVEVICT_EXPECTS(wo.is_given(), "measure: the bound needs W_O; give the layer's output projection");
  frame scratch(ctx.scratch());
  attention<Evidence> const rows(ctx, scratch, e, o);
  expect_keep_set(ctx, e.cache, keep);
  expect_projection("measure", wo, e.cache.pages.layers);
  auto* const lost = scratch.allocate<double>(rows.blocks() * keep.heads);
  rows.for_each([&](row_block const& block, std::int64_t i, std::int32_t h, block_weights const& a, std::int32_t) {
    slice<std::int32_t const> const kept = keep(block.sequence, h);
    std::int64_t const N = keep.lengths[static_cast<std::size_t>(std::int64_t{block.sequence} * keep.heads + h)];
    double& sum = lost[i * keep.heads + h] = 0;
    for (std::int64_t k = 0; k < std::int64_t{rows.group()} * block.count(); ++k) {
      row_mass const m = a.mass(k, N, kept);
      sum += m.tokens - m.kept;  // as they are: of 16 bits they add up to a little more than 1, and y with them
    }
  });
  std::vector<double> out(static_cast<std::size_t>(keep.sequences), 0.0);
  for (std::int64_t i = 0; i < rows.blocks() * keep.heads; ++i)
    out[static_cast<std::size_t>(rows.block(i / keep.heads).sequence)] += lost[i];
  auto* const value = scratch.allocate<double>(readable("measure", e.cache, role::v).width());
  auto* const projected = scratch.allocate<double>(wo.outputs);
  for (std::int32_t b = 0; b < keep.sequences; ++b) {
    double const C = largest_projection(e.cache, b, e.sees.padding(b), rows.group(), wo, value, projected);
    KVEVICT_EXPECTS(__builtin_isfinite(C), "measure: ", messages::of_sequence(b),
                    ": projected values are not finite; look for NaN and infinity in values and W_O");
    out[static_cast<std::size_t>(b)] *= 2 * C;
  }
  return out;
}

}  // namespace measure
}  // namespace KVEVICT_ABI
}  // namespace kvevict
