// SPDX-License-Identifier: Apache-2.0
// A policy of your own: one score (small_keys.hpp), the rest from the shelf. Here: keep the tokens with the smallest
// keys, 4 sinks and 64 recent ones.
#include <cstdio>
#include <random>
#include <vector>

#include <kvevict/kvevict.hpp>

#include "small_keys.hpp"

int main() {
  constexpr std::int64_t B = 1, H = 4, N = 1000, D = 64;  // 64 bits: strides of large pools pass 2^31
  // (B,H,N,D): a contiguous cache, as Hugging Face has it
  std::vector<float> k(std::size_t{B * H * N * D}), v(k.size());
  std::mt19937 bits(1);
  std::normal_distribution<float> normal;
  for (float& x : k) x = normal(bits);

  std::int32_t const lengths[] = {N};
  kvevict::layer_view<> cache;
  cache.pages = {.sequences = B, .heads = H, .columns = 1, .page_size = N};  // no entries: the page of sequence b is b
  cache.lengths = {lengths};
  for (auto [what, data] : {std::pair{kvevict::role::k, &k}, std::pair{kvevict::role::v, &v}}) {
    kvevict::component c;
    c.what = what;
    c.rows = {.base = reinterpret_cast<std::byte*>(data->data()),
              .page_count = B,
              .page_stride = H * N * D * 4,
              .head_stride = N * D * 4,
              .slot_stride = D * 4,
              .run_bytes = D * 4};
    cache = cache.with(c);
  }

  constexpr auto mine = kvevict::policy{small_keys{}, kvevict::protect{.sinks = 4, .recent = 64}};
  kvevict::host ctx;
  auto const keep = kvevict::plan(ctx, mine, kvevict::contents(cache), {.tokens_per_head = 200});
  auto const done = kvevict::compact(ctx, cache, keep);
  std::printf("%d of %d tokens stay in every head; head 0 keeps", done.lengths()[0], lengths[0]);
  for (std::int64_t i = 0; i < 8; ++i) std::printf(" %d", keep(0, 0)[i]);
  std::printf(" ...\n");
  return done.lengths()[0] == 200 ? 0 : 1;
}
