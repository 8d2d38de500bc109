// SPDX-License-Identifier: Apache-2.0
// Checks of what an engine provides, against the cache it belongs to. O(B).
#pragma once

#include <kvevict/cache/validate.hpp>
#include <kvevict/core/aligned.hpp>
#include <kvevict/core/evidence_messages.hpp>
#include <kvevict/core/host.hpp>
#include <kvevict/core/visibility_messages.hpp>
#include <kvevict/evidence/evidence.hpp>
#include <kvevict/kernels/kernel.hpp>
#include <kvevict/kernels/require_finite.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace contract {

/// Where rows lie says one thing.
inline void check_places(row_places const& in, std::int64_t seq_stride, std::int64_t layer_stride, std::int32_t layers,
                         std::int32_t sequences) {
  KVEVICT_EXPECTS(in.sequences == 0 || std::int64_t{in.sequences} * layers == sequences, "evidence: rows of ",
                  in.sequences, " sequences a layer for a view of ", sequences, " in ", layers,
                  " layers; give query_rows::sequences = S of a stack's L·S, or 0");
  KVEVICT_EXPECTS((layer_stride == 0 || in.sequences != 0) && layer_stride >= 0 &&
                      layer_stride <= farthest_element / std::max(layers, 1),
                  "evidence: a layer_stride of ", layer_stride, " elements for rows of ", in.sequences,
                  " sequences a layer; give both, or neither");
  std::int32_t const S = in.sequences == 0 ? sequences : in.sequences;
  KVEVICT_EXPECTS(
      S <= 1 || in.row_count == nullptr || in.row_begin != nullptr || seq_stride != 0,
      "evidence: row_count without row_begin or seq_stride, so that all sequences would have the same rows; "
      "say where each one's begin");
  KVEVICT_EXPECTS((seq_stride == 0 || in.row_count != nullptr) && seq_stride >= 0 &&
                      seq_stride <= farthest_element / std::max(S, 1),
                  "evidence: a seq_stride of ", seq_stride, " elements for ", S,
                  " sequences; give it with row_count (B), the rows that are no padding");
}

/// What needs no look at the data, and every context checks. Not of an empty batch, which provides no rows.
template <class Entry, class Rows> void check_heads(layer_view<Entry> const& cache, Rows const& r) {
  if (r.row_begin == nullptr && r.row_count == nullptr) messages::no_data();
  check_places(r.places(), r.seq_stride, r.layer_stride, cache.pages.layers, cache.sequences());
  KVEVICT_EXPECTS(r.heads > 0 && (cache.heads() == 0 || r.heads % cache.heads() == 0), "evidence: ", r.heads,
                  " query heads are not a multiple of ", cache.heads(), " KV heads; provide Hq = G·H heads");
}
template <class Entry> void check_shape(layer_view<Entry> const& cache, query_rows const& q) {
  if (cache.sequences() == 0) return;
  check_heads(cache, q);
  component const* k = cache.find(role::k);
  KVEVICT_EXPECTS(k != nullptr, "evidence: the cache has no K component; add it, scores from queries read keys");
  KVEVICT_EXPECTS(k->has_numbers(), "evidence: keys of type ", name_of(k->type), "; ", messages::readable_types);
  KVEVICT_EXPECTS(is_floating(q.type), "evidence: queries of type ", name_of(q.type),
                  "; f32, f16 and bf16 can be read");
  expect_aligned("evidence", "queries", q.data, q.type), expect_aligned("evidence", "LSEs", q.lse, dtype::f32);
  component const* const second = cache.second_keys();
  KVEVICT_EXPECTS(q.head_dim == cache.key_width(), "evidence: queries have ", q.head_dim, " elements a head and keys ",
                  k->width(), second == nullptr ? "" : " in k and ",
                  second == nullptr ? "" : contract::number(second->width()),
                  second == nullptr ? "; both must be D" : " in rope; queries need both parts, in this order");
  KVEVICT_EXPECTS(second == nullptr || k->width() % 16 == 0, "evidence: keys of ", k->width(),
                  " elements in k with a second part in rope; the first part must be a multiple of 16 elements wide");
  KVEVICT_EXPECTS(
      kernels::is_finite(q.scale) && q.scale >= 0 && q.scale < 1e9f && kernels::is_finite(q.softcap) &&
          (q.softcap == 0 || (q.softcap >= 1e-6f && q.softcap < 1e9f)),
      "evidence: scale and softcap must be below 1e9, not negative, and a softcap 1e-6 or more; give those of "
      "the engine's softmax, 0 means 1/√D and none");
}
template <class Entry> void check_shape(layer_view<Entry> const& cache, attention_rows const& a) {
  if (cache.sequences() == 0) return;
  check_heads(cache, a);
  expect_aligned("evidence", "softmax rows", a.weights, dtype::f32);
}
template <class Entry> void check_shape(layer_view<Entry> const& cache, feature_rows const& x) {
  if (cache.sequences() == 0) return;
  KVEVICT_EXPECTS(x.row_begin != nullptr || x.row_count != nullptr,
                  "evidence: hidden states without row_begin; provide (T,E) rows with their "
                  "(B+1) offsets");
  check_places(x.places(), x.seq_stride, 0, cache.pages.layers, cache.sequences());
}

/// Rows of `width` elements, one per token and head, in either order. `last` is the largest row that may be read, the
/// first one being 0: a stride that takes part in its address steps over a row at least, and not beyond 64 bits. One
/// row is no exception, for it may lie behind others (row_begin[0] > 0).
inline void check_strides(char const* what, std::int64_t last, std::int32_t heads, std::int64_t token_stride,
                          std::int64_t head_stride, std::int32_t width) {
  KVEVICT_EXPECTS((last <= 0 || token_stride >= width) && (heads <= 1 || head_stride >= width), "evidence: ", what,
                  " of ", width, " elements are ", token_stride, " apart from token to token and ", head_stride,
                  " from head to head; give strides in elements, "
                  "at least a row each");
  KVEVICT_EXPECTS(
      (last <= 0 || token_stride <= farthest_element / last) && (heads <= 1 || head_stride <= farthest_element / heads),
      "evidence: ", what, " are ", token_stride, " elements apart from token to token and ", head_stride,
      " from head to head, so that addresses of rows do not fit into 64 bits; correct the strides");
}
inline void check_strides(query_rows const& q, std::int64_t last) {
  check_strides("queries", last, q.heads, q.token_stride, q.head_stride, q.head_dim);
  if (q.has_lse()) check_strides("LSEs", last, q.heads, q.lse_token_stride, q.lse_head_stride, 1);
}
inline void check_strides(attention_rows const& a, std::int64_t last) {
  check_strides("softmax rows", last, a.heads, a.token_stride, a.head_stride, a.slots);
}
/// The gate looks at its own.
inline void check_strides(feature_rows const&, std::int64_t) {}

/// The last row that is read, or −1.
inline std::int64_t check_offsets(row_places const& in, std::int32_t sequences) {
  std::int32_t const S = in.sequences == 0 ? sequences : in.sequences;
  std::int64_t last = -1;
  if (in.row_count == nullptr && S != 0 && in.row_begin[0] < 0) messages::row_begin_starts(in.row_begin[0]);
  for (std::int32_t b = 0; b < S; ++b) {
    if (in.row_count != nullptr && (in.row_count[b] < 0 || in.first_row(b) < 0))
      messages::row_count(b, in.first_row(b), in.row_count[b]);
    if (in.descends(b)) messages::row_begin_descends(b);
    if (in.rows(b) > 0) last = std::max(last, in.first_row(b) + in.rows(b) - 1);
  }
  return last;
}

/// Rows of a padded batch end before those of the next sequence and of the next head begin.
constexpr bool ends_in_sequence(std::int64_t last, std::int32_t heads, std::int64_t token_stride,
                                std::int64_t head_stride, std::int64_t seq_stride) {
  if (seq_stride == 0 || last < 0) return true;
  bool const by_head = heads > 1 && head_stride > token_stride;
  return by_head ? last < head_stride / std::max<std::int64_t>(token_stride, 1) : last * token_stride < seq_stride;
}

/// Checks that queries and softmax rows share.
template <class Entry, class Rows> void check_rows(layer_view<Entry> const& cache, Rows const& r) {
  std::int32_t const B = cache.sequences();
  if (B == 0) return;
  row_places const in = r.places();
  std::int64_t const last = check_offsets(in, B);
  check_strides(r, last);
  if (!r.has_data() && last >= 0) messages::no_data();
  for (std::int32_t b = 0; b < B && r.seq_stride != 0; ++b)
    if (in.rows(b) != 0 &&
        !ends_in_sequence(in.first_row(b) + in.rows(b) - 1, r.heads, r.token_stride, r.head_stride, r.seq_stride))
      messages::rows_behind(b, in.first_row(b), in.rows(b));
}

template <class Entry> void check(layer_view<Entry> const& cache, query_rows const& q) { check_rows(cache, q); }

template <class Entry> void check(layer_view<Entry> const& cache, attention_rows const& a) {
  check_rows(cache, a);
  for (std::int32_t b = 0; b < cache.sequences(); ++b)
    for (std::int32_t h = 0; h < cache.heads(); ++h)
      if (a.rows(b) != 0 && cache.length(b, h) > a.slots) messages::softmax_slots(a.slots, b, h, cache.length(b, h));
}

/// Padding ends within every row.
template <class Entry> void check_padding(layer_view<Entry> const& cache, visibility const& sees) {
  bool const scattered = cache.order == row_order::scattered;
  for (std::int32_t b = 0; sees.first_token != nullptr && b < cache.sequences(); ++b)
    for (std::int32_t h = 0; h < cache.heads(); ++h)
      if (std::int32_t const tokens = cache.length(b, h); !sees.is_padding(sees.padding(b), tokens, scattered))
        messages::padding(b, h, sees.padding(b), tokens, scattered);
}

/// The kernel checks the rest, against the gate.
template <class Entry> void check(layer_view<Entry> const& cache, feature_rows const& x) {
  check_offsets(x.places(), cache.sequences());
  for (std::int32_t b = 0; b < cache.sequences() && x.seq_stride != 0; ++b)
    if (x.rows(b) != 0 && !ends_in_sequence(x.first_row(b) + x.rows(b) - 1, 1, x.token_stride, 0, x.seq_stride))
      messages::rows_behind(b, x.first_row(b), x.rows(b));
}

}  // namespace contract

/// Evidence as far as it can be checked without reading arrays.
template <class View, class... Facts> void validate_shape(evidence<View, Facts...> const& e) {
  using all = evidence<View, Facts...>;
  if constexpr (has_attention<all>) contract::check_shape(e.cache, e.attention);
  if constexpr (has<all, facts::features>) contract::check_shape(e.cache, e.input);
  if constexpr (has<all, facts::state>)
    KVEVICT_EXPECTS(e.cache.find(role::state) != nullptr,
                    "evidence: remembered(cache) without a role::state component; add the one that observe fills: "
                    "cache.with(state)");
}

/// Raises contract_violation unless the cache is sound and the rows fit it.
template <class View, class... Facts>
void validate(evidence<View, Facts...> const& e, arena& scratch, page_use use = page_use::read) {
  using all = evidence<View, Facts...>;
  validate(e.cache, scratch, use);
  contract::check_padding(e.cache, e.sees);
  validate_shape(e);
  if constexpr (has_attention<all>) contract::check(e.cache, e.attention);
  if constexpr (has<all, facts::features>) contract::check(e.cache, e.input);
}

namespace kernels {

void has_kernel(validate_tag, host&);

template <class View, class... Facts>
void kernel(validate_tag, host& ctx, evidence<View, Facts...> const& e, page_use use) {
  KVEVICT_ABI::validate(e, ctx.scratch(), use);
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
