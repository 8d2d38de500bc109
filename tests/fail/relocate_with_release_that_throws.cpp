// expect: relocate: a ledger has references(page), published(page), acquire(), which gives a page or nothing
// SPDX-License-Identifier: Apache-2.0
#include <optional>

#include <kvevict/kvevict.hpp>

struct ledger {
  std::int64_t references(std::int32_t page) const;
  bool published(std::int32_t page) const;
  std::optional<std::int32_t> acquire();
  void release(std::int32_t page);  // may throw when rows have moved
};

void evict(kvevict::host& ctx, kvevict::layer_view<> const& cache, kvevict::keep_set const& keep, ledger& pages) {
  kvevict::relocate(ctx, cache, keep, pages);
}
