// SPDX-License-Identifier: Apache-2.0
// An engine's translation unit: a policy planned and applied on a device. Runs where there is one, and says so where
// there is none.
#include <cstdio>

#include <kvevict/cuda.cuh>

namespace {

constexpr auto policy = kvevict::presets::ada_snapkv({.window = 32});

void evict(kvevict::cuda::device& ctx, kvevict::layer_view<> const& cache, kvevict::query_rows const& queries,
           kvevict::cuda::keep_set& keep, kvevict::cuda::compacted<std::int32_t>& done) {
  kvevict::plan(ctx, policy, kvevict::prompt(cache, queries), {.tokens_per_head = 1024}, keep);
  compact(ctx, cache, keep, kvevict::compaction::stable, done);
}

}  // namespace

int main() try {
  kvevict::cuda::owned_stream stream;
  kvevict::cuda::device ctx(stream);
  kvevict::cuda::keep_set keep;
  kvevict::cuda::compacted<std::int32_t> done;
  kvevict::layer_view<> empty;
  try {
    evict(ctx, empty, {}, keep, done);
  } catch (kvevict::contract_violation const& e) {
    std::printf("refused, as it should: %s\n", e.what());
    return 0;
  }
  return 1;
} catch (kvevict::cuda::cuda_error const& e) {
  std::printf("no device: %s\n", e.what());
}
