// SPDX-License-Identifier: Apache-2.0
// The select stage: which tokens of a row stay once its budget is known.
#pragma once

#include <type_traits>

#include <kvevict/cache/keep_set.hpp>
#include <kvevict/core/score_rows.hpp>
#include <kvevict/core/shape.hpp>
#include <kvevict/core/stage.hpp>
#include <kvevict/kernels/kernel.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace select {

template <class Stage>
concept stage = std::is_same_v<stage_of<Stage>, stages::select>;

/// It writes the rows' tokens to that context's keep set.
template <class Stage, class Context, class KeepSet>
concept stage_for = requires(Stage const& select, Context& ctx, score_rows const& rows, KeepSet& out) {
  select(ctx, rows, out);
};

/// The best scores of each row: score descending, position descending. Exact and linear in N.
struct best {
  using stage = stages::select;
  template <class Context, class KeepSet> void operator()(Context& ctx, score_rows const& rows, KeepSet& out) const {
    kernels::select_best(ctx, rows, out);
  }
  template <class Context> std::int64_t workspace_bytes(Context const& ctx, cache_shape const& s) const {
    return kernels::select_best.bytes(ctx, s);
  }
};

}  // namespace select
}  // namespace KVEVICT_ABI
}  // namespace kvevict
