// SPDX-License-Identifier: Apache-2.0
// Eviction while generating: the cache is held at its budget, token after token.
#pragma once

#include "table.hpp"

namespace compare {

/// The full cache samples a continuation; beside it, in the same batch, each policy at each budget reads the same
/// tokens. A file of its own, so that it compiles beside the rest.
void decode_beside(llama::engine& e, kvevict::host& ctx, llama::kv_pool& pool, settings const& s, table& out,
                   json const& passage, int tokens, progress& bar, double work);

}  // namespace compare
