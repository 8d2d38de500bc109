// SPDX-License-Identifier: Apache-2.0
// A batch of random layers, and the rows of attention that an engine would provide for them.
#pragma once

#include <cstdint>
#include <vector>

#include <kvevict/core/attention_rows.hpp>
#include <kvevict/core/queries.hpp>

#include "support/random.hpp"
#include "support/reference.hpp"

namespace support {

using reference::counts;
using reference::index_row;
using reference::index_rows;
using reference::rows;

inline std::int32_t int32(std::size_t n) { return static_cast<std::int32_t>(n); }

/// B sequences of one layer. Sequence b has N[b] tokens in the cache and `future` tokens that come after it.
struct batch {
  std::size_t Hq = 0, H = 0, D = 0, future = 0;
  std::vector<std::size_t> N;
  std::vector<reference::layer> layers;  // N[b] + future tokens, all query rows
  std::uint64_t seed = 0;

  [[nodiscard]] std::size_t B() const { return N.size(); }
  [[nodiscard]] reference::layer prompt(std::size_t b) const { return reference::prefix(layers[b], N[b]); }
};

struct shape {
  std::size_t Hq = 4, H = 2, D = 8;
  std::vector<std::size_t> N{60};
  std::size_t future = 6;
};

inline batch random_batch(std::uint64_t seed, shape const& s, double deviation = 1.5) {
  reference::generator random(seed);
  batch out{s.Hq, s.H, s.D, s.future, s.N, {}, seed};
  for (std::size_t const n : s.N) {
    std::size_t const all = n + s.future;
    reference::layer l;
    l.queries = {s.Hq, all, s.D, random.normals(s.Hq * all * s.D, deviation)};
    l.keys = {s.H, all, s.D, random.normals(s.H * all * s.D, deviation)};
    l.values = {s.H, all, s.D, random.normals(s.H * all * s.D)};
    out.layers.push_back(l);
  }
  return out;
}

/// The batch of one given layer, all of whose tokens are in the cache.
inline batch batch_of(reference::layer const& l) { return {l.Hq(), l.H(), l.D(), 0, {l.N()}, {l}, 0}; }

/// Query heads q and KV heads h of the result are heads order[h]·G + g and order[h] of the input.
inline batch permuted(batch in, std::vector<std::size_t> const& order) {
  auto const heads = [&](reference::cube const& x, std::size_t G) {
    reference::cube out(x.heads, x.tokens, x.width);
    for (std::size_t h = 0; h < x.heads; ++h)
      for (std::size_t n = 0; n < x.tokens; ++n)
        for (std::size_t d = 0; d < x.width; ++d) out.at(h, n, d) = x.at(order[h / G] * G + h % G, n, d);
    return out;
  };
  for (reference::layer& l : in.layers)
    l.queries = heads(l.queries, in.Hq / in.H), l.keys = heads(l.keys, 1), l.values = heads(l.values, 1);
  return in;
}

/// Positions of the tokens in the slots of every row: [b][h][slot].
using slot_positions = std::vector<std::vector<index_row>>;

inline slot_positions whole_cache(batch const& in) {
  slot_positions out;
  for (std::size_t const n : in.N) out.emplace_back(in.H, reference::first_indices(n));
  return out;
}

/// Rows of attention as an engine owns them: queries with their natural LSE, and the softmax rows. (T,Hq,…)
struct attention {
  std::size_t Hq = 0, D = 0, slots = 0;
  std::vector<float> q, lse, weights;
  std::vector<std::int32_t> begin{0}, positions;

  [[nodiscard]] kvevict::query_rows queries() const {
    kvevict::query_rows out;
    out.data = q.data();
    out.heads = int32(Hq), out.head_dim = int32(D);
    out.head_stride = static_cast<std::int64_t>(D), out.token_stride = static_cast<std::int64_t>(Hq * D);
    out.row_begin = begin.data(), out.positions = positions.data();
    return out;
  }
  [[nodiscard]] kvevict::attention_rows rows() const {
    return {weights.data(),
            static_cast<std::int64_t>(Hq * slots),
            static_cast<std::int64_t>(slots),
            int32(Hq),
            int32(slots),
            begin.data(),
            positions.data()};
  }
  [[nodiscard]] std::int64_t lse_stride() const { return static_cast<std::int64_t>(Hq); }
};

/// What a query at a position normalises over: the slots that hold earlier tokens and itself, or all tokens there ever
/// were.
enum class seen : std::uint8_t { slots, everything };

/// Rows of the positions [from[b], to[b]) of every sequence over the given slots.
inline attention rows_of(batch const& in, slot_positions const& slots, std::vector<std::size_t> const& from,
                         std::vector<std::size_t> const& to, seen over = seen::slots) {
  attention out;
  out.Hq = in.Hq, out.D = in.D;
  for (auto const& sequence : slots)
    for (auto const& row : sequence) out.slots = std::max(out.slots, row.size());
  for (std::size_t b = 0; b < in.B(); ++b) {
    reference::layer const& l = in.layers[b];
    for (std::size_t i = from[b]; i < to[b]; ++i) {
      out.positions.push_back(int32(i));
      for (std::size_t hq = 0; hq < in.Hq; ++hq) {
        for (std::size_t d = 0; d < in.D; ++d) out.q.push_back(static_cast<float>(l.queries.at(hq, i, d)));
        index_row const& row = slots[b][l.kv_head(hq)];
        index_row const keys = over == seen::slots ? reference::visible(row, i) : reference::first_indices(i + 1);
        double const lse = reference::log_sum_exp(reference::logits(l, hq, i, keys));
        out.lse.push_back(static_cast<float>(lse));
        for (std::size_t n = 0; n < out.slots; ++n) {
          bool const seen_here = n < row.size() && row[n] <= i;
          out.weights.push_back(seen_here ? static_cast<float>(std::exp(reference::logit(l, hq, i, row[n]) - lse))
                                          : 0.0f);
        }
      }
    }
    out.begin.push_back(int32(out.positions.size()));
  }
  return out;
}

/// The queries of the last `count` rows of every prompt, alone: for layers too large for the naive softmax.
inline attention last_queries(batch const& in, std::size_t count) {
  attention out;
  out.Hq = in.Hq, out.D = in.D;
  for (std::size_t b = 0; b < in.B(); ++b) {
    reference::cube const& q = in.layers[b].queries;
    for (std::size_t i = in.N[b] - std::min(in.N[b], count); i < in.N[b]; ++i) {
      out.positions.push_back(int32(i));
      for (std::size_t hq = 0; hq < in.Hq; ++hq)
        for (std::size_t d = 0; d < in.D; ++d) out.q.push_back(static_cast<float>(q.at(hq, i, d)));
    }
    out.begin.push_back(int32(out.positions.size()));
  }
  return out;
}

/// The last `count` rows of every prompt.
inline attention last_rows(batch const& in, std::size_t count) {
  std::vector<std::size_t> from;
  for (std::size_t const n : in.N) from.push_back(n - std::min(n, count));
  return rows_of(in, whole_cache(in), from, in.N);
}
inline attention all_rows(batch const& in) {
  return rows_of(in, whole_cache(in), std::vector<std::size_t>(in.B(), 0), in.N);
}

/// The rows that come after the prompts, with their LSE over everything.
inline attention future_rows(batch const& in) {
  std::vector<std::size_t> to;
  for (std::size_t const n : in.N) to.push_back(n + in.future);
  return rows_of(in, whole_cache(in), in.N, to, seen::everything);
}

}  // namespace support
