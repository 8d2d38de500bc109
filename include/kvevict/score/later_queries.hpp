// SPDX-License-Identifier: Apache-2.0
// What is known of the queries that will come.
#pragma once

#include <algorithm>
#include <cstdint>

#include <kvevict/score/mean_turn.hpp>
#include <kvevict/score/query_statistics.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace score {

/// Which moments of the queries a score uses.
enum class query_spread : std::uint8_t { mean, mean_and_covariance };

/// Of later queries: how many positions are looked ahead; which moments; the first positions, which do not count.
struct later_options {
  std::int32_t positions = 512;
  query_spread of = query_spread::mean_and_covariance;
  std::int32_t left_out = 4;
};

/// Mean and covariance of later queries, one query head of every group at once, and keys turned back by R̄ᵀ, which
/// takes the place of turning the covariance: kᵀ(R̄ΣR̄ᵀ)k = xᵀΣx, x = R̄ᵀk.
///
/// They are those that with_query_moments gives, or of the evidence's queries, no more of them than a row has tokens.
/// Cost     of queries two reads of them and 2·T·D² flop a query head (the mean alone: one read, T·D); scratch
///          8·D² + 8·D + 8 bytes a row, as long as `scratch` lives.
template <class Evidence> class later_queries {
  using entry = typename std::decay_t<decltype(std::declval<Evidence>().cache)>::table_entry;
  static constexpr bool is_given = has<Evidence, facts::moments>;

 public:
  template <class Context>
  later_queries(char const* who, Context& ctx, frame& scratch, Evidence const& e, score_rows const& rows,
                later_options const& o)
      : e_(e), rows_(rows), o_(o), keys_(checked_keys(who, ctx, scratch, e, o)), turn_(turn_of(ctx, scratch)) {
    std::int32_t const D = width();
    means_ = scratch.template allocate<float>(rows.count() * D);
    if constexpr (!is_given) {
      counts_ = scratch.template allocate<float>(rows.count());
      if (with_covariance()) products_ = scratch.template allocate<double>(rows.count() * D * D);
    }
  }

  std::int32_t group() const { return e_.cache.heads() == 0 ? 1 : source().heads / e_.cache.heads(); }
  std::int32_t width() const { return static_cast<std::int32_t>(keys_.of.width()); }
  float logit_scale() const { return source().logit_scale(); }
  bool with_covariance() const { return o_.of == query_spread::mean_and_covariance; }

  /// Head g of every group from here on.
  template <class Context> void look_at(Context& ctx, std::int32_t g) {
    std::int32_t const D = width();
    g_ = g;
    if constexpr (is_given) {
      kernels::each_row(ctx, rows_,
                        query_statistics::copy_means<entry>{e_.moments, e_.cache.pages, group(), g, means_});
    } else {
      using queries = unrotated_queries<entry>;
      queries const q{e_.attention, keys_, o_.left_out, group(), g};
      kernels::row_sums(ctx, rows_, token_groups{}, 1, query_statistics::counted<queries>{q}, counts_);
      kernels::row_sums(ctx, rows_, token_groups{}, D, q, means_);
      kernels::each_row(ctx, rows_, query_statistics::divide{means_, counts_, D});
      if (with_covariance())
        kernels::gram(ctx, rows_, D, query_statistics::centred<queries>{q, rows_, means_, D}, products_);
    }
    turn_.turn_vectors(ctx, D, means_);
  }
  /// R̄μ.  → (B·H, D)
  float* means() const { return means_; }
  /// Σ, for keys(): R̄ᵀk.
  covariance_form<entry> covariance() const {
    query_moments given{};
    if constexpr (is_given) given = e_.moments;
    return {given, e_.cache.pages, products_, counts_, width(), group(), g_};
  }
  mean_turn<entry> const& keys() const { return turn_; }

 private:
  /// What says it: moments, or the rows of attention.
  auto const& source() const {
    if constexpr (is_given)
      return e_.moments;
    else
      return e_.attention;
  }
  template <class Context>
  static unrotated_elements<entry> checked_keys(char const* who, Context& ctx, frame& scratch, Evidence const& e,
                                                later_options const& o) {
    KVEVICT_EXPECTS(o.positions >= 1 && o.positions <= 1 << 24 && o.left_out >= 0, who, ": ", o.positions,
                    " later positions, and queries of the first ", o.left_out,
                    " left out; give 1 position or more, and 0 or more left out");
    component const& k = readable(who, e.cache, role::k);
    KVEVICT_EXPECTS(e.cache.second_keys() == nullptr, who,
                    ": keys lie in two components (MLA), whose rope turns one of them; use a score that attends");
    kernels::expect_matrix(who, static_cast<std::int32_t>(k.width()));
    if constexpr (is_given) {
      if (e.cache.heads() != 0) expect_moments(who, e.moments, e.cache.heads(), k.width(), e.cache.pages.layers);
      KVEVICT_EXPECTS(o.of == query_spread::mean || e.moments.covariance != nullptr, who,
                      ": query moments without covariances; give (Hq,D,D) of them, or ask for query_spread::mean");
    }
    return before_rotation(who, ctx, scratch, e, k);
  }
  template <class Context> mean_turn<entry> turn_of(Context& ctx, frame& scratch) const {
    return {ctx, scratch, rows_, keys_, o_.positions};
  }

  Evidence e_;
  score_rows rows_;
  later_options o_;
  unrotated_elements<entry> keys_;
  mean_turn<entry> turn_;
  float *means_ = nullptr, *counts_ = nullptr;
  double* products_ = nullptr;
  std::int32_t g_ = 0;
};

/// Scratch of later_queries and of what they call.
template <class Context>
std::int64_t later_queries_bytes(Context const& ctx, cache_shape const& s, later_options const& o) {
  std::int64_t const D = s.head_dim;
  std::int64_t const own = mean_turn_bytes(s) + scratch_step(s.rows() * D * 4) + scratch_step(s.rows() * 4);
  return o.of == query_spread::mean ? own : own + scratch_step(s.rows() * D * D * 8) + kernels::gram.bytes(ctx, s);
}

}  // namespace score
}  // namespace KVEVICT_ABI
}  // namespace kvevict
