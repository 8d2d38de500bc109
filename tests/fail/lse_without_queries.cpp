// expect: with_lse: an LSE belongs to queries; provide them with prompt(cache, queries)
// SPDX-License-Identifier: Apache-2.0
#include <kvevict/kvevict.hpp>

using view = kvevict::layer_view<std::int32_t>;

auto show(view const& cache, kvevict::attention_rows const& rows, float const* lse) {
  return kvevict::prompt(cache, rows).with_lse(lse, 1, 1);
}
