// SPDX-License-Identifier: Apache-2.0
// The heads stage: how a layer's budget is divided among the KV heads of a sequence.
#pragma once

#include <type_traits>

#include <kvevict/core/contract.hpp>
#include <kvevict/core/score_rows.hpp>
#include <kvevict/core/stage.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace heads {

template <class Stage> constexpr bool well_capped() {
  if constexpr (requires { Stage::capped; })
    return std::is_same_v<decltype(Stage::capped), bool const>;
  else
    return true;
}

/// Says in `equal_counts` whether it leaves the heads' budgets equal, and may say in `capped` that the budget is a cap,
/// or in `over_stack` that it moves budget between all layers of the view.
template <class Stage>
concept stage = std::is_same_v<stage_of<Stage>, stages::heads> && well_capped<Stage>() && requires {
  requires std::is_same_v<decltype(Stage::equal_counts), bool const>;
};

/// It divides the rows' budgets in that context.
template <class Stage, class Context>
concept stage_for = requires(Stage const& heads, Context& ctx, score_rows& rows) {
  heads(ctx, rows);
};

/// α of the stages that give every head a floor.
inline void expect_floor(char const* stage, std::int32_t floor_permille) {
  KVEVICT_EXPECTS(floor_permille >= 0 && floor_permille <= 1000, stage, ": floor_permille is ", floor_permille,
                  "; it is α in thousandths, 0 to 1000");
}

/// Every head keeps the same number of tokens.
struct uniform {
  using stage = stages::heads;
  static constexpr bool equal_counts = true;
  template <class Context> void operator()(Context&, score_rows&) const {}
};

}  // namespace heads
}  // namespace KVEVICT_ABI
}  // namespace kvevict
