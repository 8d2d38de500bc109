// SPDX-License-Identifier: Apache-2.0
// Layer budgets from a fixed table.
#pragma once

#include <cstdint>

#include <kvevict/core/apportion.hpp>
#include <kvevict/core/contract.hpp>
#include <kvevict/kernels/kernel.hpp>
#include <kvevict/layers/layers.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace layers {

/// Each layer gets its share of the evictable budget, as a table says that somebody has measured once.
///
///   B_l = share(l) / Σ share · L·(budget − protected) + protected       all shares 0: evenly
///
/// Units and sums are layers::pyramid's, whose line this takes the place of: exact where all layers' lengths are known,
/// Σ ≤ L·budget where layers are planned one by one without them.
///
/// Paper    DuoAttention (arXiv:2410.10819), HeadKV (arXiv:2410.19258), LU-KV (arXiv:2602.08585) have tables of layers
///          and heads: with heads::table. Their numbers are not the library's; layers/share_text.hpp reads a file of
///          them.
/// Shapes   shares (L), each 0 to 1 000 000, in the context's memory.
/// Cost     O(L log) integer operations a unit; no memory.
/// Errors   contract_violation if there are no shares, not as many as layers, a share out of range, or L·budget is
///          2⁴³ or more.
struct table {
  using stage = stages::layers;
  std::int32_t const* shares = nullptr;  // (L)
  std::int32_t layers = 0;

  void validate(budget const& b) const {
    KVEVICT_EXPECTS(shares != nullptr && layers == b.layer_count, "layers::table: shares of ", layers,
                    " layers for a model of ", b.layer_count, "; give one of each layer of budget.layer_count");
    KVEVICT_EXPECTS(std::int64_t{layers} * b.tokens_per_head < std::int64_t{1} << 43, "layers::table: a budget of ",
                    b.tokens_per_head, " in ", layers, " layers; give less");
  }
  /// On a device only it reads them.
  template <class Context> void validate_shares(Context& ctx) const {
    kernels::expect_shares(ctx, "layers::table", shares, layers);
  }
  /// The rest is about units, see planning.
  constexpr bool moves_budget() const { return true; }

  /// Evictable tokens of a head in each layer, over the sum of the shares.
  struct numerators {
    std::int32_t const* shares = nullptr;  // null: evenly
    std::int64_t total = 0;
    constexpr std::int64_t operator()(std::int64_t l) const { return total * (shares == nullptr ? 1 : shares[l]); }
  };

  /// Σ share = L·base.
  constexpr rounded_parts<numerators> line_of(layer_query const& q) const {
    std::int64_t const n = q.layer_count, base = q.tokens_per_head - q.protected_tokens;
    std::int64_t sum = 0;
    for (std::int64_t l = 0; l < n; ++l) sum += shares[l];
    return {{sum == 0 ? nullptr : shares, n * base}, sum == 0 ? n : sum, n, n * base};
  }
  /// Of one layer by itself.
  constexpr std::int32_t operator()(layer_query const& q) const {
    return static_cast<std::int32_t>(line_of(q).share(q.layer)) + q.protected_tokens;
  }
};

}  // namespace layers
}  // namespace KVEVICT_ABI
}  // namespace kvevict
