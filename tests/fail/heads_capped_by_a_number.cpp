// expect: policy: the heads stage is none; it needs `using stage = stages::heads`
// SPDX-License-Identifier: Apache-2.0
#include <kvevict/kvevict.hpp>

struct mine {
  using stage = kvevict::stages::heads;
  static constexpr bool equal_counts = true;
  static constexpr int capped = 64;
  template <class Context> void operator()(Context&, kvevict::score_rows&) const {}
};

auto const policy = kvevict::presets::snapkv().with(mine{});
