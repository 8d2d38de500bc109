// SPDX-License-Identifier: Apache-2.0
// The control: what this folder includes does compile, and a stage of one's own is taken as it says.
#include <kvevict/kvevict.hpp>

static_assert(KVEVICT_VERSION_MAJOR >= 0);

template <bool Capped> struct mine {
  using stage = kvevict::stages::heads;
  static constexpr bool equal_counts = true;
  static constexpr bool capped = Capped;
  template <class Context> void operator()(Context&, kvevict::score_rows&) const {}
};
template <bool Capped>
inline constexpr kvevict::sharing budgets = decltype(kvevict::presets::snapkv().with(mine<Capped>{}))::budgets;

static_assert(budgets<true> == kvevict::sharing::cap);
static_assert(budgets<false> == kvevict::sharing::none);
