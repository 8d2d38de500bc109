// SPDX-License-Identifier: Apache-2.0
// Any score, times how much a token's value can add to the layer's output.
#pragma once

#include <algorithm>

#include <kvevict/cache/row_reader.hpp>
#include <kvevict/core/projection.hpp>
#include <kvevict/core/shape.hpp>
#include <kvevict/evidence/evidence.hpp>
#include <kvevict/evidence/same_tokens.hpp>
#include <kvevict/kernels/kernel.hpp>
#include <kvevict/kernels/matrix.hpp>
#include <kvevict/kernels/together.hpp>
#include <kvevict/score/shares.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace score {

/// A token's norm as it is, or as its share of those that the token has in all KV heads of its layer.
enum class output_norms : std::uint8_t { absolute, share_of_heads };

namespace output_norm {

/// W_O as lines, E of every query head of a KV head's group.
template <class Entry> struct lines_of {
  static constexpr kernels::mapped_term term = kernels::mapped_term::size;
  static constexpr bool triangular = false;
  projection output;
  page_table<Entry> pages;
  std::int32_t group, width;

  constexpr std::int64_t lines() const { return std::int64_t{group} * output.outputs; }
  KVEVICT_HOST_DEVICE float at(row const& in, std::int64_t, std::int64_t i, std::int32_t d) const {
    std::int64_t const g = i / output.outputs, hq = std::int64_t{in.head} * group + g;
    return output.at(pages.layer_of(in.sequence), hq * width + d, static_cast<std::int32_t>(i - g * output.outputs));
  }
};

/// Σ of the floats that a token's row of the component holds.
template <class Norms> struct sum_of {
  Norms norms;
  KVEVICT_HOST_DEVICE void operator()(row const& in, std::int64_t j, float& x) const {
    auto const n = norms.reader(in);
    x = 0;
    for (std::int32_t d = 0; d < n.width(); ++d) x += n(j, d);
  }
};

/// Query heads of a KV head's group: of the rows of attention, or as W_O says.
template <class Evidence> std::int32_t group_of(char const* who, Evidence const& e) {
  std::int32_t heads = e.output.heads;
  if constexpr (has_attention<Evidence>) heads = heads == 0 ? e.attention.heads : heads;
  std::int32_t const H = e.cache.heads();
  if (H == 0) return 1;
  KVEVICT_EXPECTS(heads > 0 && heads % H == 0, who, ": W_O of ", heads, " query heads for ", H,
                  " KV heads; give projection::heads, a multiple of the cache's heads");
  return heads / H;
}

/// Σ_g ‖v_j·W_O^g‖₁ of every token, and by how many it is to be divided.
template <class Context, class Evidence>
std::int32_t sums(char const* who, Context& ctx, Evidence const& e, score_rows const& out) {
  if (e.cache.find(role::output_norm) != nullptr) {
    component const& given = readable(who, e.cache, role::output_norm);
    with_elements(e.cache, given, [&](auto const& norms) {
      kernels::each_token(ctx, out, sum_of<std::decay_t<decltype(norms)>>{norms});
    });
    return static_cast<std::int32_t>(given.width());
  }
  KVEVICT_EXPECTS(e.output.is_given(), who,
                  ": nothing says how large values are behind W_O; add a role::output_norm component to the view, "
                  "or give the layer's W_O by with_output");
  expect_projection(who, e.output, e.cache.pages.layers);
  component const& v = readable(who, e.cache, role::v);
  auto const D = static_cast<std::int32_t>(v.width());
  std::int32_t const group = group_of(who, e);
  using entry = typename std::decay_t<decltype(e.cache)>::table_entry;
  lines_of<entry> const lines{e.output, e.cache.pages, group, D};
  with_elements(e.cache, v, [&](auto const& values) { kernels::mapped_sums(ctx, out, lines, values); });
  return group;
}

/// x ← (x + ε)·n/count
struct weigh {
  score_rows norms;
  float epsilon, count;
  constexpr void operator()(row const& in, std::int64_t j, float& x) const {
    x = (x + epsilon) * (norms.score(in, j) / count);
  }
};
/// x ← (x + ε)·n/Σ n over the heads
struct weigh_by_share {
  score_rows norms;
  float epsilon;
  constexpr void operator()(row const& in, std::int64_t j, float& x) const {
    row of = in;
    float sum = 0;
    for (of.head = 0; of.head < norms.heads; ++of.head) sum += norms.score(of, j);
    x = sum == 0 ? 0.0f : (x + epsilon) * (norms.score(in, j) / sum);
  }
};

}  // namespace output_norm

/// The inner score, and a little, times the L1 norm of what the token's value adds to the layer's output where it has
/// all the attention of a query head, averaged over the GQA group. As of_share_before, it refines what the share before
/// it was chosen by.
///
///   ŝ(h,j) = ( s(h,j) + ε ) · 1/G·Σ_g ‖ v(h,j)·W_O^(h·G+g) ‖₁
///
/// The norms are the cache's role::output_norm component, of width 1 (their mean) or G, else W_O's, with_output.
/// output_norms::share_of_heads divides each by the sum of those that the token has in all KV heads of its layer.
/// Paper    CriticalKV, Feng et al. 2025, arXiv:2502.03805: its second half.   Second-hand: as kvpress 0.5.5 has it.
///          DefensiveKV, Feng et al. 2025: its factor is the share of heads, and ε = 0.
/// Shapes   values (H,N,D), D ≤ 256, W_O (Hq·D,E), or norms (H,N,·) → scores (H,N).
/// Cost     the inner score's; of norms one read of them; of W_O 2·Hq·N·D·E flop, what projecting the attention's
///          output of N tokens costs: worth keeping as a component, a float a token. Scratch N floats a row.
/// Errors   contract_violation: neither norms nor W_O; a W_O that does not fit; values or norms that are no numbers;
///          the inner score's; of shares: heads that hold different tokens.
template <class Inner> struct output_weighted {
  static constexpr bool refines = refines_before<Inner>;
  Inner inner;
  float epsilon = 1e-4f;
  output_norms by = output_norms::absolute;

  template <class Context, class Evidence> void operator()(Context& ctx, Evidence const& e, score_rows& out) const {
    KVEVICT_EXPECTS(epsilon >= 0 && epsilon < 1e9f, "output_weighted: epsilon is ", epsilon,
                    "; give 0 or a little more, such as 1e-4");
    inner(ctx, e, out);
    frame scratch(ctx.scratch());
    score_rows norms = out;  // the same rows
    norms.values = scratch.template allocate<float>(out.total_floats);
    std::int32_t const count = output_norm::sums("output_weighted", ctx, e, norms);
    if (by == output_norms::absolute)
      return kernels::each_token(ctx, out, output_norm::weigh{norms, epsilon, static_cast<float>(count)});
    kernels::same_tokens(ctx, e.cache, out, planning::alike{together_over::heads});
    kernels::each_token(ctx, out, output_norm::weigh_by_share{norms, epsilon});
  }

  template <class Context> std::int64_t workspace_bytes(Context const& ctx, cache_shape const& s) const {
    std::int64_t of_inner = 0;
    if constexpr (requires { inner.workspace_bytes(ctx, s); }) of_inner = inner.workspace_bytes(ctx, s);
    return std::max(of_inner, scratch_step(s.rows() * s.tokens * 4) + kernels::mapped_sums.bytes(ctx, s));
  }
};
template <class Inner> output_weighted(Inner) -> output_weighted<Inner>;
template <class Inner> output_weighted(Inner, float) -> output_weighted<Inner>;
template <class Inner> output_weighted(Inner, float, output_norms) -> output_weighted<Inner>;

}  // namespace score
}  // namespace KVEVICT_ABI
}  // namespace kvevict
