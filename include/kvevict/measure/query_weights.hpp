// SPDX-License-Identifier: Apache-2.0
// Weights of query rows over the tokens of one row of the cache, in double.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include <kvevict/cache/row_reader.hpp>
#include <kvevict/cache/row_sights.hpp>
#include <kvevict/core/evidence_messages.hpp>
#include <kvevict/core/fill.hpp>
#include <kvevict/core/queries.hpp>
#include <kvevict/core/score_rows.hpp>
#include <kvevict/core/weight_sum.hpp>
#include <kvevict/measure/blocks.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace measure {

inline void expect_finite(bool is_finite, row const& in) {
  KVEVICT_EXPECTS(is_finite, "measure: ", messages::row(in.sequence, in.head),
                  ": attention is not finite; look for NaN and infinity in keys, queries, LSE or weights");
}

/// One block over one row of the cache:
///
///   a(i,j) = exp(z − lse);   without LSE exp(z) / Σ exp(z) over the tokens that row i sees and its learned sink
///
/// Cost     2·G·rows·N·D flop; each key is decoded once for the block.
template <class Entry> class query_weights {
 public:
  query_weights(measured_rows<Entry> const& rows, query_rows const& q, row_block const& block, std::int32_t h)
      : rows_(rows),
        q_(q.of(block.sequence)),
        block_(block),
        in_(rows.all.rows[std::int64_t{block.sequence} * rows.all.heads + h]),
        window_(newest_rows(rows.view, q, in_.sequence, in_.tokens, rows.counts[in_.sequence], rows.place)),
        sights_(sights_of(rows.view, q, in_.sequence, in_.head, in_.tokens, window_, rows.place)),
        always_(sights_.always()) {}

  /// False where a row is not sound; `raise`: says why.
  bool write(block_weights const& out, bool raise) const {
    std::int32_t const count = rows_.group * block_.count();
    for (std::int32_t i = 0; i < count; ++i) load_query(i, out.queries + i * width());
    double const longest_key = write_products(count, out);
    bool sound = true;
    for (std::int32_t i = 0; i < count; ++i) sound = normalise(i, longest_key, out, raise) && sound;
    return sound;
  }

 private:
  static constexpr double none = -std::numeric_limits<double>::infinity();

  std::int64_t width() const { return q_.head_dim; }
  std::int32_t window_row(std::int32_t i) const { return block_.first + i % block_.count(); }
  std::int64_t row_of(std::int32_t i) const { return window_.first + window_row(i); }
  std::int64_t head_of(std::int32_t i) const { return std::int64_t{in_.head} * rows_.group + i / block_.count(); }

  void load_query(std::int32_t i, double* to) const {
    auto const* const from = static_cast<std::byte const*>(q_.data) +
                             (row_of(i) * q_.token_stride + head_of(i) * q_.head_stride) * size_of(q_.type);
    with_type(q_.type, [&](auto type) {
      using T = decltype(type);
      for (std::int32_t d = 0; d < q_.head_dim; ++d) {
        T x;
        std::memcpy(&x, from + d * size_of(q_.type), sizeof x);
        to[d] = static_cast<double>(to_float(x));
      }
    });
  }

  /// q·k of all tokens; returns the length of the longest key.
  double write_products(std::int32_t count, block_weights const& out) const {
    component const* const parts[] = {rows_.view.find(role::k), rows_.view.second_keys()};
    double longest = 0;
    for (std::int64_t j = 0; j < in_.tokens; ++j) {
      kvevict::fill_n(out.sums, count, 0.0);
      double square = 0;
      std::int64_t at = 0;
      for (component const* const part : parts)
        if (part != nullptr) square += add_products(row_reader<Entry>(rows_.view, *part, in_), j, at, count, out);
      if (square > longest && square <= static_cast<double>(weight_sum::largest_key)) longest = square;
      for (std::int32_t i = 0; i < count; ++i) out.of_tokens[i * std::int64_t{in_.tokens} + j] = out.sums[i];
    }
    return std::sqrt(longest);
  }
  /// Of one part of a key, whose first element is that of the queries with number `at`, which moves on; returns ‖k‖².
  double add_products(row_reader<Entry> const& k, std::int64_t j, std::int64_t& at, std::int32_t count,
                      block_weights const& out) const {
    double square = 0;
    for (std::int32_t d = 0; d < k.width(); d += row_chunk) {
      float x[row_chunk];
      k.read(j, d, x);
      std::int32_t const n = std::min(row_chunk, k.width() - d);
      for (std::int32_t c = 0; c < n; ++c) square += static_cast<double>(x[c]) * static_cast<double>(x[c]);
      for (std::int32_t i = 0; i < count; ++i)
        for (std::int32_t c = 0; c < n; ++c)
          out.sums[i] += out.queries[i * width() + at + d + c] * static_cast<double>(x[c]);
    }
    at += k.width();
    return square;
  }

  bool is_seen(sight const& s, std::int64_t j) const {
    std::int32_t const order = rows_.all.order(rows_.all.index_of(in_), j);
    return order < s.to && (order >= s.from || always_.has(order));
  }

  /// Products become logits, −∞ where the row does not see; returns the largest: −∞ of a row that sees nothing, NaN
  /// where one is, or where the row sees −∞ alone.
  double write_logits(std::int32_t i, double* z) const {
    auto const scale = static_cast<double>(q_.logit_scale()), cap = static_cast<double>(q_.softcap);
    sight const s = sights_.of(window_row(i));
    double top = none;
    bool sees = false;
    for (std::int64_t j = 0; j < in_.tokens; ++j) {
      bool const seen = is_seen(s, j);
      sees = sees || seen, z[j] = seen ? scale * z[j] : none;
      if (cap != 0 && z[j] != none) z[j] = cap * std::tanh(z[j] / cap);
      top = z[j] > top || z[j] != z[j] ? z[j] : top;
    }
    return sees && top == none ? __builtin_nan("") : top;
  }

  bool normalise(std::int32_t i, double longest_key, block_weights const& out, bool raise) const {
    double* const z = out.of_tokens + i * std::int64_t{in_.tokens};
    double const top = write_logits(i, z),
                 sink = q_.sink_logits == nullptr ? none : static_cast<double>(q_.sink_logits[head_of(i)]);
    double lse = top == none ? none : lse_of(i, z, top < sink ? sink : top, sink), sum = 0;
    for (std::int64_t j = 0; j < in_.tokens; ++j) sum += z[j] = lse == none ? 0 : std::exp(z[j] - lse);
    double const of_sink = lse == none ? 0 : std::exp(sink - lse);
    out.of_others[i] = rows_.others(q_.sum, sum, of_sink);
    if (raise) expect_finite(__builtin_isfinite(sum), in_);
    if (!q_.has_lse() || lse == none) return __builtin_isfinite(sum);
    return has_sound_sum(i, sum + of_sink, lse, longest_key, out.queries + i * width(), raise);
  }

  /// The engine's, or that of the logits.
  double lse_of(std::int32_t i, double const* z, double top, double sink) const {
    if (q_.has_lse()) return given_lse(i) * (q_.base == log_base::two ? 0.69314718055994531 : 1.0);
    double sum = std::exp(sink - top);
    for (std::int64_t j = 0; j < in_.tokens; ++j) sum += std::exp(z[j] - top);
    return top + std::log(sum);
  }
  double given_lse(std::int32_t i) const {
    return static_cast<double>(q_.lse[row_of(i) * q_.lse_token_stride + head_of(i) * q_.lse_head_stride]);
  }

  /// By the tolerance of kernels::expect_sums.
  bool has_sound_sum(std::int32_t i, double sum, double lse, double longest_key, double const* query,
                     bool raise) const {
    double square = 0;
    for (std::int64_t d = 0; d < width(); ++d) square += query[d] * query[d];
    double const bound = static_cast<double>(q_.logit_scale()) * std::sqrt(square) * longest_key;
    dtype const keys = rows_.view.find(role::k)->type;
    row_sum const expected = rows_.place == row_place::behind_cache ? row_sum::at_most_one : q_.sum;
    double const tolerance = weight_sum::least_tolerance(keys, q_.type, lse) +
                             weight_sum::tolerance_of_logits(keys, q_.type, q_.head_dim, bound);
    bool const sound = __builtin_isfinite(sum) && weight_sum::is_sound(sum, expected, tolerance);
    if (!sound && raise)
      messages::weight_sum(in_.sequence, in_.head, head_of(i), row_of(i) - q_.first_row(in_.sequence), sum,
                           static_cast<float>(given_lse(i)), q_.base);
    return sound;
  }

  measured_rows<Entry> const& rows_;
  query_rows const q_;
  row_block const block_;
  row const& in_;
  window_rows const window_;
  row_sights<Entry> const sights_;
  sight const always_;
};

}  // namespace measure
}  // namespace KVEVICT_ABI
}  // namespace kvevict
