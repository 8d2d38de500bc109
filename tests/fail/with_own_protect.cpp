// expect: with: protect is not replaced by a type of your own; fill in a kvevict::protect
// SPDX-License-Identifier: Apache-2.0
#include <kvevict/kvevict.hpp>

struct mine {
  using stage = kvevict::stages::protect;
  int sinks = 4;
};

auto const policy = kvevict::presets::snapkv().with(mine{});
