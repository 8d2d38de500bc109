// expect: with: this type is no stage; a score has operator()(ctx, evidence, score_rows&) const
// SPDX-License-Identifier: Apache-2.0
#include <kvevict/kvevict.hpp>

auto const policy = kvevict::presets::snapkv().with(kvevict::pool_options{5});
