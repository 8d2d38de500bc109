// SPDX-License-Identifier: Apache-2.0
// Forks in one view on a device: what the host keeps, and its words where a common page would be written.
#include "support/forks.hpp"
#include "simt/same_words.hpp"

namespace forks_test {

using namespace simt_test;

TEST_CASE("a device plans forks in one view as the host does, and compacts none of them") {
  forks const all;
  for (layout const l : forks::tables)
    all.with(l, [&](auto& cache) {
      using entry = typename std::decay_t<decltype(cache.view)>::table_entry;
      CAPTURE(cache.name());
      device_cache<entry> there(cache);
      device_memory memory;
      kvevict::host host;
      cuda::device ctx(default_stream());
      auto const q = on_device_rows(memory, all.rows.queries(), 3);
      forks::each_policy([&](auto const& policy) {
        auto const want = plan(host, policy, kvevict::prompt(cache.view, all.rows.queries()), forks::ask);
        cuda::keep_set keep;
        plan(ctx, policy, kvevict::prompt(there.view, q), forks::ask, keep);
        auto const got = keep.read(ctx);
        CHECK(got.tokens == want.tokens);
        CHECK(got.row_begin == want.row_begin);
      });
      auto const keep = plan(host, streaming, kvevict::contents(cache.view), forks::ask);
      auto const before = there.snapshot();
      CHECK(contains(refusal([&] { on_gpu{}.compact(there.view, keep, kvevict::compaction::stable); }),
                     "would be written by both; copy it, declare the shared front with read_only, or relocate under a "
                     "page_ledger"));
      CHECK((there.snapshot() == before));
    });
}

TEST_CASE("both contexts plan forks, and say the same of pages that are no fork's") {
  forks const all;
  for (layout const l : forks::tables)
    all.with(l, [&](auto& cache) {
      CAPTURE(cache.name());
      contents_alike(cache, "", forks::ask);
      cache.view.proof = kvevict::order_proof::by_engine;
      auto& last = forks::entry(cache, 2, 0, 21 / cache.view.pages.page_size - 1);
      auto const was = std::exchange(last, forks::entry(cache, 2, 0, 1));
      contents_alike(cache, "are the same page; a row uses a page once", forks::ask);
      last = was;
      if (!cache.per_head()) return;
      for (std::int32_t const b : {1, 2}) forks::entry(cache, b, 1, 1) = forks::entry(cache, b, 0, 1);
      contents_alike(cache, "page 1 of sequence 1, head 1 is also page 1 of sequence 1, head 0", forks::ask);
    });
}

}  // namespace forks_test
