// SPDX-License-Identifier: Apache-2.0
// How much scratch a policy takes.
#pragma once

#include <algorithm>
#include <cstdint>

#include <kvevict/cache/validate.hpp>
#include <kvevict/core/shape.hpp>
#include <kvevict/evidence/expect_fit.hpp>
#include <kvevict/evidence/rows.hpp>
#include <kvevict/evidence/taken_in_turn.hpp>
#include <kvevict/evidence/unseen.hpp>
#include <kvevict/kernels/kernel.hpp>
#include <kvevict/kernels/select_pages.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// Scratch bytes that plan() or observe() takes at most on the host for a layer of that shape (rows scattered or not,
/// with or without LSE); after ctx.reserve(bytes) not even the first call allocates. A score of your own without
/// `workspace_bytes(ctx, shape)` counts as 0. A device tells its scratch by cuda::device::try_out.
/// Errors   contract_violation: a negative count, query heads that are no multiple of the KV heads, a shape that no
///          machine holds.
template <class Context, class Policy>
std::int64_t workspace_bytes(Context const& ctx, Policy const& p, cache_shape const& s) {
  contract::expect_shape("workspace_bytes", s);
  auto const of = [&](auto const& stage) -> std::int64_t {
    if constexpr (requires { stage.workspace_bytes(ctx, s); })
      return stage.workspace_bytes(ctx, s);
    else
      return 0;
  };
  std::int64_t const stages =
      std::max({of(p.score), of(p.layers), of(p.heads), of(p.select), kernels::require_finite.bytes(ctx, s)});
  std::int64_t of_turns = 0;
  if constexpr (requires { p.score.in_thousandths(); }) of_turns = planning::turns::bytes(s, p.score.any_refines);
  std::int64_t const of_pages = stages::says_whole_pages<decltype(p.select)> ? kernels::page_rows_bytes(s) : 0;
  std::int64_t const outcomes = scratch_step(s.sequences) + 2 * scratch_step(s.sequences * 4);
  return std::max(validate_bytes(s.table_pages, s.pool_pages, s.sequences),
                  rows_bytes(s) + of_turns + of_pages + std::max(stages, unseen::bytes(s)) + outcomes);
}

}  // namespace KVEVICT_ABI
}  // namespace kvevict
