// SPDX-License-Identifier: Apache-2.0
// Rows of attention that see some of their past, by position: the mask entry by entry, in double precision.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include <kvevict/core/attention_rows.hpp>

#include "support/attention_case.hpp"

namespace reference {

using kvevict::attention_rows, kvevict::columns, kvevict::query_rows, kvevict::row_sum, kvevict::score_rows;
using kvevict::role, kvevict::row_order, kvevict::visibility;

/// A batch with positions of its own: of tokens, gaps among them, and of rows, some behind the tokens, some before.
struct seeing_case {
  attention_case a;
  std::vector<std::vector<std::int32_t>> tokens;  // (B·H, N) positions by slot
  std::vector<std::int32_t> row_positions;        // (T)
  std::vector<std::int32_t> first_token;          // (B)
  std::vector<float> sinks;                       // (Hq) learned logits
  visibility sees;
  bool scattered = false, carried = true;

  /// The mask, as a sentence says it.
  bool is_seen(std::int32_t b, std::int32_t h, std::int64_t t, std::int32_t slot) const {
    std::int64_t const p = row_positions[static_cast<std::size_t>(t)],
                       n = tokens[static_cast<std::size_t>(b * a.heads() + h)][static_cast<std::size_t>(slot)];
    if (n > p) return false;
    if (!scattered && sees.first_token != nullptr && slot < first_token[static_cast<std::size_t>(b)]) return false;
    bool const in_window = sees.window == 0 || n > p - sees.window;
    bool const in_chunk = sees.chunk == 0 || n / sees.chunk == p / sees.chunk;
    return (in_window && in_chunk) || n < sees.sinks;
  }
  /// One query row's weights over its KV head's tokens, 0 where it sees none.
  std::vector<double> weights(std::int32_t b, std::int32_t hq, std::int32_t i) const {
    std::int32_t const h = hq / a.shape.group, n = a.tokens(b, h);
    std::int64_t const t = first_row(b) + i;
    double top = -1e300, sum = 0;
    bool any = false;
    for (std::int32_t j = 0; j < n; ++j)
      if (is_seen(b, h, t, j)) top = std::max(top, a.logit(b, hq, i, j)), any = true;
    if (!sinks.empty()) top = std::max(top, double{sinks[static_cast<std::size_t>(hq)]});
    std::vector<double> out(static_cast<std::size_t>(n), 0.0);
    if (!any) return out;
    for (std::int32_t j = 0; j < n; ++j)
      if (is_seen(b, h, t, j)) sum += out[static_cast<std::size_t>(j)] = std::exp(a.logit(b, hq, i, j) - top);
    if (!sinks.empty()) sum += std::exp(double{sinks[static_cast<std::size_t>(hq)]} - top);
    for (double& x : out) x /= sum;
    return out;
  }
  double lse(std::int32_t b, std::int32_t hq, std::int32_t i) const {
    auto const w = weights(b, hq, i);
    for (std::size_t j = 0; j < w.size(); ++j)
      if (w[j] > 1e-3) return a.logit(b, hq, i, static_cast<std::int32_t>(j)) - std::log(w[j]);
    return -std::numeric_limits<double>::infinity();
  }
  std::int64_t first_row(std::int32_t b) const {
    return std::accumulate(a.shape.query_tokens.begin(), a.shape.query_tokens.begin() + b, std::int64_t{0});
  }

  template <class View> auto view_of(View view) const {
    if (!carried) {
      auto const all = view;
      view.component_count = 0;
      for (auto const& c : all)
        if (c.what != role::position) view = view.with(c);
    }
    return view.with_order(scattered ? row_order::scattered : row_order::ascending);
  }
  template <class Cache> void fill(Cache& cache) const {
    a.fill(cache);
    cache.fill(role::position, [&](int b, int h, int t, int) {
      return tokens[static_cast<std::size_t>(b * a.heads() + h)][static_cast<std::size_t>(t)];
    });
  }
};

inline std::int32_t pick(generator& g, std::int32_t from, std::int32_t to) {
  return from + static_cast<std::int32_t>(g.below(static_cast<std::uint64_t>(to - from + 1)));
}

/// `evicted`: tokens have gaps; `whole`: a row of every token.
inline seeing_case random_case(std::uint64_t seed, bool scattered, bool whole) {
  generator g(seed);
  attention_shape s;
  s.cache.heads = pick(g, 1, 3), s.cache.head_dim = 8, s.group = pick(g, 1, 3), s.seed = seed;
  s.cache.lengths.clear();
  for (std::int32_t b = pick(g, 1, 3); b > 0; --b) s.cache.lengths.push_back(pick(g, whole ? 1 : 0, 140));
  if (!whole)
    for (std::int32_t const n : s.cache.lengths) s.query_tokens.push_back(std::max(std::min(n, 9), pick(g, 0, 40)));
  seeing_case c{attention_case(s), {}, {}, {}, {}, {}, scattered, true};
  std::int32_t const step = pick(g, 1, 4);  // a shard has every step-th token
  for (std::int32_t b = 0; b < c.a.sequences(); ++b) {
    std::int32_t p = pick(g, 0, 3), last = 0;
    std::vector<std::int32_t> of;
    for (std::int32_t j = 0; j < c.a.tokens(b, 0); ++j) of.push_back(last = p), p += pick(g, 1, step);
    if (scattered)
      for (std::size_t j = of.size(); j > 1; --j)
        std::swap(of[j - 1], of[static_cast<std::size_t>(pick(g, 0, static_cast<std::int32_t>(j) - 1))]);
    for (std::int32_t h = 0; h < c.a.heads(); ++h) c.tokens.push_back(of);
    std::int32_t const rows = c.a.query_tokens(b);
    std::int32_t q = whole ? 0 : std::max(0, last - pick(g, -5, 40));
    for (std::int32_t i = 0; i < rows; ++i) {
      c.row_positions.push_back(whole ? of[static_cast<std::size_t>(i)] : q);
      q += pick(g, 0, 2);
    }
    c.first_token.push_back(scattered ? 0 : pick(g, 0, std::max(0, c.a.tokens(b, 0) / 3)));
  }
  return c;
}

inline void vary(seeing_case& c, std::uint64_t seed) {
  generator g(seed * 77 + 1);
  if (g.below(2) != 0) c.sees.window = pick(g, 1, 60);
  if (g.below(3) == 0) c.sees.chunk = pick(g, 1, 50);
  if (g.below(2) != 0) c.sees.sinks = pick(g, 0, 6);
  if (g.below(3) == 0 && !c.scattered) c.sees.first_token = c.first_token.data();
  if (g.below(3) == 0)
    for (std::int32_t hq = 0; hq < c.a.query_heads(); ++hq) c.sinks.push_back(static_cast<float>(pick(g, -2, 2)));
}

inline query_rows queries_of(seeing_case& c, bool normalised, std::vector<float>& lse) {
  query_rows q = c.a.queries();
  q.positions = c.row_positions.data(), q.sees = c.sees;
  q.sink_logits = c.sinks.empty() ? nullptr : c.sinks.data();
  if (!normalised) return q;
  lse.clear();
  for (std::int32_t b = 0; b < c.a.sequences(); ++b)
    for (std::int32_t i = 0; i < c.a.query_tokens(b); ++i)
      for (std::int32_t hq = 0; hq < c.a.query_heads(); ++hq) lse.push_back(static_cast<float>(c.lse(b, hq, i)));
  q.lse = lse.data(), q.lse_token_stride = c.a.query_heads(), q.lse_head_stride = 1;
  return q;
}

/// Softmax rows of the reference, with numbers in the columns that the row does not see.
inline attention_rows softmax_of(seeing_case& c, std::vector<float>& memory) {
  std::int32_t slots = 1;
  for (std::int32_t const n : c.a.shape.cache.lengths) slots = std::max(slots, n);
  memory.assign(c.row_positions.size() * static_cast<std::size_t>(c.a.query_heads() * slots), 0.25f);
  for (std::int32_t b = 0; b < c.a.sequences(); ++b)
    for (std::int32_t i = 0; i < c.a.query_tokens(b); ++i)
      for (std::int32_t hq = 0; hq < c.a.query_heads(); ++hq) {
        auto const w = c.weights(b, hq, i);
        for (std::size_t j = 0; j < w.size(); ++j)
          if (c.is_seen(b, hq / c.a.shape.group, c.first_row(b) + i, static_cast<std::int32_t>(j)))
            memory[static_cast<std::size_t>(((c.first_row(b) + i) * c.a.query_heads() + hq) * slots) + j] =
                static_cast<float>(w[j]);
      }
  attention_rows rows;
  query_rows const q = c.a.queries();
  rows.weights = memory.data(), rows.head_stride = slots, rows.token_stride = std::int64_t{slots} * c.a.query_heads();
  rows.heads = c.a.query_heads(), rows.slots = slots, rows.row_begin = q.row_begin;
  rows.positions = c.row_positions.data(), rows.sees = c.sees;
  rows.sum = c.sinks.empty() ? row_sum::one : row_sum::at_most_one;
  return rows;
}

/// The same with each weight in its token's cell of the pool, of a table of page ids that all heads share.
template <class View> attention_rows by_cell(seeing_case& c, View const& view, std::vector<float>& memory) {
  std::vector<float> by_slot;
  attention_rows const from = softmax_of(c, by_slot);
  attention_rows out = from;
  std::int64_t const P = view.pages.page_size;
  out.by = columns::by_entry, out.slots = static_cast<std::int32_t>(view.find(role::k)->rows.page_count * P);
  out.head_stride = out.slots, out.token_stride = std::int64_t{out.slots} * out.heads;
  memory.assign(c.row_positions.size() * static_cast<std::size_t>(out.token_stride), 0.75f);  // of other sequences
  for (std::int32_t b = 0; b < c.a.sequences(); ++b)
    for (std::int64_t t = c.first_row(b); t < c.first_row(b) + c.a.query_tokens(b); ++t)
      for (std::int32_t hq = 0; hq < out.heads; ++hq)
        for (std::int32_t j = 0; j < c.a.tokens(b, 0); ++j) {
          auto const cell = static_cast<std::int64_t>(view.pages.entry(b, 0, j / P)) * P + j % P;
          memory[static_cast<std::size_t>(t * out.token_stride + hq * out.head_stride + cell)] =
              by_slot[static_cast<std::size_t>(t * from.token_stride + hq * from.head_stride + j)];
        }
  out.weights = memory.data();
  return out;
}

/// Σ over the last W rows, mean over the group.
inline double expected(seeing_case const& c, std::int32_t b, std::int32_t h, std::int32_t wanted, std::int32_t slot) {
  std::int32_t const given = c.a.query_tokens(b), W = std::min({wanted, given, c.a.tokens(b, h)});
  double sum = 0;
  for (std::int32_t i = given - W; i < given; ++i)
    for (std::int32_t g = 0; g < c.a.shape.group; ++g)
      sum += c.weights(b, h * c.a.shape.group + g, i)[static_cast<std::size_t>(slot)];
  return sum / c.a.shape.group;
}

/// The largest difference between the scores in `c.a.values` and those of W rows.
inline double worst_error(seeing_case const& c, std::int32_t W) {
  double worst = 0;
  for (std::size_t r = 0; r < c.a.rows.size(); ++r)
    for (std::int32_t j = 0; j < c.a.rows[r].tokens; ++j) {
      double const want = expected(c, c.a.rows[r].sequence, c.a.rows[r].head, W, j),
                   got = double{c.a.values[static_cast<std::size_t>(c.a.begin[r] + j)]};
      worst = std::max(worst, std::isfinite(got) ? std::abs(got - want) : 1e9);
    }
  return worst;
}

inline score_rows rows_of(seeing_case& c, std::vector<std::int32_t>& positions) {
  score_rows out = c.a.out();
  positions.clear();
  for (auto const& of : c.tokens) positions.insert(positions.end(), of.begin(), of.end());
  if (c.scattered) out.positions = positions.data();
  return out;
}

}  // namespace reference
