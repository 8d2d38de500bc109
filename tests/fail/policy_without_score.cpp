// expect: policy: the score is no score; give a class with operator()(ctx, evidence, score_rows&) const
// SPDX-License-Identifier: Apache-2.0
#include <kvevict/kvevict.hpp>

auto const policy = kvevict::policy{kvevict::heads::adaptive{}};
