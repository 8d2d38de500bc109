// SPDX-License-Identifier: Apache-2.0
// Squared norms of the rows of one component.
#pragma once

#include <kvevict/core/messages.hpp>
#include <kvevict/core/score_rows.hpp>
#include <kvevict/kernels/kernel.hpp>
#include <kvevict/kernels/tile.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {

void has_kernel(squared_norms_tag, host&);

/// Σ x² of one row: `lanes` partial sums over d, then their sum, whatever the layout.
template <class T> float squared_norm(std::byte const* row, row_map const& m, std::int32_t width) {
  vec sum = {};
  for (std::int32_t d = 0; d < width; d += lanes) {
    vec const x = read_chunk<T>(row, m, d, width);
    sum = multiply_add(x, x, sum);
  }
  return sum_of(sum);
}

/// Those of a quantised component: the same sums of what is decoded.
template <class Entry>
[[gnu::noinline]] void coded_squared_norms_of(layer_view<Entry> const& view, component const& c, row const& in,
                                              std::int64_t first, int count, float* out) {
  row_code const code(c);
  coded_rows<Entry> const rows(view, c, in.sequence, in.head);
  for (int j = 0; j < count; ++j) {
    vec sum = {};
    for (std::int32_t from = 0; from < code.width(); from += most_block) {
      float x[most_block];
      std::int32_t const n = std::min(most_block, code.width() - from);
      code.decode(rows(first + j), from, n, x);
      for (std::int32_t d = 0; d < n; d += lanes) {
        vec const y = load_some(x + d, n - d);
        sum = multiply_add(y, y, sum);
      }
    }
    out[j] = sum_of(sum);
  }
}

inline constexpr int norms_abreast = 16;  // tokens of a head; those of the next block are fetched meanwhile

/// The norms of up to norms_abreast tokens of one row from `first`.
template <class Entry>
void squared_norms_of(layer_view<Entry> const& view, component const& c, row const& in, std::int64_t first, int count,
                      float* out) {
  if (c.is_quantised()) return coded_squared_norms_of(view, c, in, first, count, out);
  std::byte const *rows[norms_abreast], *ahead[norms_abreast];
  row_addresses(view, c, in.sequence, in.head, first, count, count, rows);
  std::int64_t const next = std::min<std::int64_t>(first + count, in.tokens - 1);
  row_addresses(view, c, in.sequence, in.head, next, static_cast<int>(std::min<std::int64_t>(count, in.tokens - next)),
                count, ahead);
  auto const width = static_cast<std::int32_t>(c.width());
  with_type(c.type, [&](auto type) {
    for (int j = 0; j < count; ++j) {
      fetch_row(ahead[j], c.rows);
      out[j] = squared_norm<decltype(type)>(rows[j], c.rows, width);
    }
  });
}

inline constexpr int tokens_together = 64;  // of all heads

/// Those of up to tokens_together tokens of all heads of a sequence, whose rows lie beside each other: in the order of
/// memory, which is fetched two tokens ahead, those behind the last one too.
template <class Entry>
void squared_norms_of_tokens(layer_view<Entry> const& view, component const& c, std::int32_t sequence,
                             std::int64_t first, score_rows const& out) {
  constexpr int ahead = 2;
  row_map const& m = c.rows;
  std::int64_t const of_sequence = std::int64_t{sequence} * out.heads;
  auto const width = static_cast<std::int32_t>(c.width());
  std::int64_t longest = 0;
  for (std::int32_t h = 0; h < out.heads; ++h) {
    row const& in = out.rows[of_sequence + h];
    if (in.active) longest = std::max<std::int64_t>(longest, in.tokens);
  }
  if (first >= longest) return;
  std::byte const* at[tokens_together + ahead];
  row_addresses(view, c, sequence, 0, first,
                static_cast<int>(std::min<std::int64_t>(tokens_together + ahead, longest - first)),
                tokens_together + ahead, at);
  with_type(c.type, [&](auto type) {
    for (int j = 0; j < std::min<std::int64_t>(tokens_together, longest - first); ++j)
      for (std::int32_t h = 0; h < out.heads; ++h) {
        row const& in = out.rows[of_sequence + h];
        if (!in.active || first + j >= in.tokens) continue;
        fetch_row(at[j + ahead] + h * m.head_stride, m);
        out.scores(of_sequence + h).data[first + j] = squared_norm<decltype(type)>(at[j] + h * m.head_stride, m, width);
      }
  });
}

/// ‖row‖² of every token of every active row.
///
///   s(h,j) = Σ_d x(h,j,d)²      in float
///
/// Shapes   component (H,N,D) in f32, f16 or bf16, or quantised → scores (H,N) float.
/// Cost     one pass at memory speed; no scratch. Quantised: over rows and scales, at the speed of decoding.
/// Errors   contract_violation if the component's elements are no numbers.
template <class Entry>
void kernel(squared_norms_tag, host& ctx, layer_view<Entry> const& view, component const& c, score_rows const& out) {
  KVEVICT_EXPECTS(c.has_numbers(), "squared_norms: the component has type ", name_of(c.type), "; ",
                  messages::readable_types);
  // what lies together is read together: a token's heads, or many tokens of a head
  bool const together = c.rows.heads_together(), by_token = together && !view.pages.per_head() && !c.is_quantised();
  std::int64_t const chunk = by_token ? tokens_together : together ? norms_abreast : 16 * norms_abreast;
  std::int64_t longest = 0;
  for (std::int64_t r = 0; r < out.count(); ++r) longest = std::max<std::int64_t>(longest, out.rows[r].tokens);
  std::int64_t const chunks = (longest + chunk - 1) / chunk;
  ctx.for_each(out.sequences * chunks, [&](std::int64_t i, std::int32_t) {
    std::int64_t const begin = i % chunks * chunk;
    auto const b = static_cast<std::int32_t>(i / chunks);
    if (by_token) return squared_norms_of_tokens(view, c, b, begin, out);
    for (std::int64_t r = std::int64_t{b} * out.heads; r < (std::int64_t{b} + 1) * out.heads; ++r) {
      row const& in = out.rows[r];
      std::int64_t const end = in.active ? std::min<std::int64_t>(begin + chunk, in.tokens) : begin;
      for (std::int64_t first = begin; first < end; first += norms_abreast)
        squared_norms_of(view, c, in, first, static_cast<int>(std::min<std::int64_t>(norms_abreast, end - first)),
                         out.scores(r).data + first);
    }
  });
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
