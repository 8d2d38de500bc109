// expect: policy: the layers stage is none; it needs `using stage = stages::layers`
// SPDX-License-Identifier: Apache-2.0
#include <kvevict/kvevict.hpp>

struct mine {
  using stage = kvevict::stages::layers;
  constexpr void operator()(kvevict::layer_query const&) const {}
};

auto const policy = kvevict::presets::snapkv().with(mine{});
