// expect: with_lse: an LSE belongs to queries; provide them with prompt(cache, queries)
// SPDX-License-Identifier: Apache-2.0
#include <kvevict/kvevict.hpp>

using view = kvevict::layer_view<std::int32_t>;

auto show(view const& cache, kvevict::feature_rows const& x, float const* lse) {
  return kvevict::prompt(cache, x).with_lse(lse, 1, 1);
}
