// expect: with: the type's `stage` is no kind of stage; give stages::layers, protect, score, heads or select
// SPDX-License-Identifier: Apache-2.0
#include <kvevict/kvevict.hpp>

struct mine {
  using stage = int;
};

auto const policy = kvevict::presets::snapkv().with(mine{});
