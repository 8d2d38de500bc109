// expect: policy: the select stage is none; it needs `using stage = stages::select`
// SPDX-License-Identifier: Apache-2.0
#include <kvevict/kvevict.hpp>

kvevict::policy<kvevict::score::none, kvevict::layers::uniform, kvevict::heads::uniform, kvevict::heads::uniform>
    policy;
