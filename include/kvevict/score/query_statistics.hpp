// SPDX-License-Identifier: Apache-2.0
// Mean and covariance of one query head of each group before rotation: as the evidence gives them, or of its queries.
#pragma once

#include <cstdint>

#include <kvevict/cache/turn_back.hpp>
#include <kvevict/core/query_moments.hpp>
#include <kvevict/core/shape.hpp>
#include <kvevict/core/token_groups.hpp>
#include <kvevict/evidence/evidence.hpp>
#include <kvevict/kernels/kernel.hpp>
#include <kvevict/kernels/matrix.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace score {

/// The rows that evidence has of one query head, as row_reader reads keys.
struct query_reader {
  std::byte const* data;
  dtype type;
  std::int64_t stride;  // elements from a row to the next
  std::int32_t width;

  query_reader() = default;
  KVEVICT_HOST_DEVICE query_reader(query_rows const& q, std::int32_t b, std::int64_t hq)
      : data(q.data_of(b) + (q.first_row(b) * q.token_stride + hq * q.head_stride) * size_of(q.type)),
        type(q.type),
        stride(q.token_stride),
        width(q.head_dim) {}
  KVEVICT_HOST_DEVICE float operator()(std::int64_t i, std::int32_t d) const {
    return with_type(type,
                     [&](auto t) { return to_float(reinterpret_cast<decltype(t) const*>(data)[i * stride + d]); });
  }
  KVEVICT_HOST_DEVICE void read(std::int64_t i, std::int32_t first, float (&x)[row_chunk]) const {
    for (std::int32_t k = 0; k < row_chunk; ++k) x[k] = first + k < width ? (*this)(i, first + k) : 0.0f;
  }
};

/// Queries of head g of every group, turned back, in the place of tokens: of a row with T of them query T−1−j for token
/// j; zeros where there is none, or it is of one of the first positions.
template <class Entry> struct unrotated_queries {
  query_rows rows;
  unrotated_elements<Entry> keys;
  std::int32_t left_out, group, g;

  /// Its number among the row's queries, or −1.
  KVEVICT_HOST_DEVICE std::int32_t number(row const& in, std::int64_t j) const {
    std::int32_t const i = rows.rows(in.sequence) - 1 - static_cast<std::int32_t>(j);
    return i < 0 || position(in, i) < left_out ? -1 : i;
  }
  KVEVICT_HOST_DEVICE std::int64_t position(row const& in, std::int32_t i) const {
    if (rows.positions != nullptr) return rows.places().position(in.sequence, i);
    return unrotated_reader<Entry>(keys.cache, keys.of, keys.by, in).position(in.tokens - rows.rows(in.sequence) + i);
  }
  KVEVICT_HOST_DEVICE void operator()(row const& in, std::int64_t j, std::int32_t first, float (&x)[row_chunk]) const {
    std::int32_t const i = number(in, j);
    for (float& e : x) e = 0;
    if (i < 0) return;
    std::int64_t const p = position(in, i);
    turning const& by = keys.by;
    turn_back(
        by, query_reader(rows, in.sequence, std::int64_t{in.head} * group + g), i, first,
        [&](std::int32_t pair) {
          turn const t = turn_by(p, by.steps[pair]);
          return turn{t.cos * by.undo, t.sin * by.undo};
        },
        x);
  }
};

/// Σ as a map for xᵀΣx, of the lower half of what is given or of products and how many they are of.
template <class Entry> struct covariance_form {
  static constexpr kernels::mapped_term term = kernels::mapped_term::product;
  static constexpr bool triangular = true;
  query_moments given;
  page_table<Entry> pages;
  double const* products;  // (B·H, D, D), or null
  float const* counts;     // (B·H)
  std::int32_t width, group, g;

  constexpr std::int64_t lines() const { return width; }
  KVEVICT_HOST_DEVICE float at(row const& in, std::int64_t r, std::int64_t i, std::int32_t d) const {
    if (d > i) return 0;
    float const twice = d == i ? 1.0f : 2.0f;
    if (products == nullptr)
      return twice * given.covariance_of(pages.layer_of(in.sequence), pages.sequence_of(in.sequence),
                                         std::int64_t{in.head} * group + g)[i * width + d];
    float const n = counts[r] < 1 ? 1.0f : counts[r];
    return twice * (static_cast<float>(products[(r * width + i) * width + d]) / n);
  }
};

namespace query_statistics {

template <class Queries> struct counted {
  Queries of;
  KVEVICT_HOST_DEVICE float operator()(row const& in, std::int64_t j) const {
    return of.number(in, j) < 0 ? 0.0f : 1.0f;
  }
};
struct divide {
  float* sums;
  float const* counts;
  std::int32_t width;
  KVEVICT_HOST_DEVICE void operator()(row const&, std::int64_t r) const {
    for (std::int32_t d = 0; d < width; ++d) sums[r * width + d] /= counts[r] < 1 ? 1.0f : counts[r];
  }
};
template <class Queries> struct centred {
  Queries of;
  score_rows rows;
  float const* means;  // (B·H, D)
  std::int32_t width;
  KVEVICT_HOST_DEVICE void operator()(row const& in, std::int64_t j, std::int32_t first, float (&x)[row_chunk]) const {
    of(in, j, first, x);
    if (of.number(in, j) < 0) return;
    float const* const mean = means + rows.index_of(in) * width;
    for (std::int32_t i = 0; i < row_chunk && first + i < width; ++i) x[i] -= mean[first + i];
  }
};
template <class Entry> struct copy_means {
  query_moments given;
  page_table<Entry> pages;
  std::int32_t group, g;
  float* to;
  KVEVICT_HOST_DEVICE void operator()(row const& in, std::int64_t r) const {
    float const* const from =
        given.mean_of(pages.layer_of(in.sequence), pages.sequence_of(in.sequence), std::int64_t{in.head} * group + g);
    for (std::int32_t d = 0; d < given.head_dim; ++d) to[r * given.head_dim + d] = from[d];
  }
};

}  // namespace query_statistics
}  // namespace score
}  // namespace KVEVICT_ABI
}  // namespace kvevict
