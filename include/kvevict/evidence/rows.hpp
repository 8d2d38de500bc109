// SPDX-License-Identifier: Apache-2.0
// The host's rows of a plan and of observe(): from a cache, its positions and a budget.
#pragma once

#include <algorithm>

#include <kvevict/core/contract.hpp>
#include <kvevict/core/evidence_messages.hpp>
#include <kvevict/core/fill.hpp>
#include <kvevict/core/host.hpp>
#include <kvevict/core/messages.hpp>
#include <kvevict/core/shape.hpp>
#include <kvevict/evidence/evidence.hpp>
#include <kvevict/evidence/new_rows.hpp>
#include <kvevict/evidence/order.hpp>
#include <kvevict/evidence/planning.hpp>
#include <kvevict/evidence/row_budgets.hpp>
#include <kvevict/kernels/kernel.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace planning {

template <class Entry>
score_rows make_rows(bool observed, frame& scratch, layer_view<Entry> const& cache, budget const& want,
                     visibility const& sees = {}) {
  expect_positions(score_rows{.observed = observed}.verb(), cache);
  expect_order(cache, want, sees);
  score_rows out = rows_of_lengths(scratch, cache, want);
  out.observed = observed, out.values = scratch.allocate<float>(out.total_floats);
  if (cache.order == row_order::ascending) return out;
  component const* position = cache.find(role::position);
  auto* positions = scratch.allocate<std::int32_t>(out.total_floats);
  for (std::int64_t r = 0; r < out.count(); ++r) {
    row const& it = out.rows[r];
    auto const at = cache.rows_of(*position, it.sequence, it.head);
    each_run(at, 0, it.tokens, [&](std::int64_t first, std::int64_t count, std::byte* p) {
      std::int32_t* const to = positions + out.begin[r] + first;
      if (at.slot_stride == 4) return kvevict::copy_n(reinterpret_cast<std::int32_t const*>(p), count, to);
      for (std::int64_t i = 0; i < count; ++i, p += at.slot_stride) to[i] = *reinterpret_cast<std::int32_t const*>(p);
    });
  }
  out.positions = positions;
  return out;
}

}  // namespace planning

/// Scratch of the rows of one plan: their descriptions, scores and, where rows are scattered, positions.
constexpr std::int64_t rows_bytes(cache_shape const& s) {
  std::int64_t const n = s.rows();
  return scratch_step((n + 1) * 8) + scratch_step(n * std::int64_t{sizeof(row)}) + 2 * scratch_step(n * s.tokens * 4);
}

namespace kernels {

void has_kernel(plan_rows_tag, host&);
void has_kernel(observe_rows_tag, host&);
void has_kernel(new_rows_tag, host&);
void has_kernel(leave_faulty_out_tag, host&);

/// Rows with their budgets for plan(). Checks the budget against the protected tokens. `page`: see assign_budgets;
/// `sees`: where padding ends, which is in no order.
template <class Entry, class Layers>
score_rows kernel(plan_rows_tag, host&, frame& scratch, layer_view<Entry> const& cache, protect const& keep,
                  Layers const& layers, budget const& want, sharing share, std::int32_t page = 1,
                  visibility const& sees = {}) {
  score_rows out = planning::make_rows(false, scratch, cache, want, sees);
  planning::assign_budgets(out, cache, keep, layers, want, share, page);
  return out;
}

/// Rows for observe(): all tokens of those that have new ones; they are known by row.new_from. Rows of a sequence that
/// provides none are left out.
template <class Evidence, class Layers>
score_rows kernel(observe_rows_tag, host&, frame& scratch, Evidence const& e, protect const& keep, Layers const& layers,
                  budget const& want) {
  score_rows out = planning::make_rows(true, scratch, e.cache, want, e.sees);
  for (std::int64_t r = 0; r < out.count(); ++r) {
    row& it = out.rows[r];
    if (want.keeps_whole(it.sequence)) {
      planning::leave_out(it);
      continue;
    }
    std::int32_t const fresh = planning::expect_new_rows(e, it);
    if (want.of(it.sequence) < planning::least_budget<Layers>())
      messages::negative_budget("observe", want.of(it.sequence), it.sequence);
    if (rows_of(e, it.sequence) == 0) {
      planning::leave_out(it);
      continue;
    }
    planning::protect_row(out, r, 0, fresh);
    planning::expect_distinct(out, r);
    if (auto const found = planning::expect_newest(out, r, places_of(e), fresh, planning::is_shard(e)); found != fresh)
      planning::protect_row(out, r, 0, found);
    planning::observe_all(it, out.positions != nullptr, keep, layers,
                          want.in_layer(e.cache.pages.layer_of(it.sequence)), e.cache.read_only_tokens(it.sequence));
    if (e.older_of(it.sequence) == older_tokens::zero) planning::start_at_zero(it);
  }
  return out;
}

/// A fault is raised on the host, and the call made once more, see one_by_one.hpp.
inline void kernel(leave_faulty_out_tag, host&, score_rows const&) {}

/// The most rows that a sequence provides.
template <class Evidence> std::int32_t kernel(new_rows_tag, host&, Evidence const& e) {
  std::int32_t most = 0;
  for (std::int32_t b = 0; b < e.cache.sequences(); ++b) most = std::max(most, rows_of(e, b));
  return most;
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
