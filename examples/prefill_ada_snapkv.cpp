// SPDX-License-Identifier: Apache-2.0
// After prefill: two sequences of different lengths in vLLM-like pages, one page table per KV head, Ada-SnapKV, real
// moves.
#include <cstdio>
#include <numeric>
#include <random>
#include <vector>

#include <kvevict/kvevict.hpp>
#include <kvevict/threads.hpp>

namespace {

constexpr int B = 2, Hq = 8, H = 2, D = 64, P = 16, W = 32, columns = 64;

/// What an engine owns: pages of one KV head each, K and V side by side, and who uses them.
struct engine_cache {
  std::vector<float> pages;           // (pages, 2, P, D)
  std::vector<std::int32_t> table;    // (B, H, columns)
  std::vector<std::int32_t> lengths;  // (B, H)
  std::vector<std::int32_t> free;

  kvevict::layer_view<> view() {
    auto const component = [&](kvevict::role what, std::int64_t offset) {
      kvevict::component c;
      c.what = what;
      c.rows = {.base = reinterpret_cast<std::byte*>(pages.data()),
                .offset = offset,
                .page_count = B * H * columns,
                .page_stride = 2 * P * D * 4,
                .slot_stride = D * 4,
                .run_bytes = D * 4};
      return c;
    };
    kvevict::layer_view<> v;
    v.pages = {.entries = table.data(),
               .seq_stride = H * columns,
               .head_stride = columns,
               .sequences = B,
               .heads = H,
               .columns = columns,
               .page_size = P};
    v.lengths = {lengths.data(), H, 1};
    return v.with(component(kvevict::role::k, 0)).with(component(kvevict::role::v, P * D * 4));
  }
};

std::vector<float> normals(std::size_t n, unsigned seed) {
  std::mt19937 bits(seed);
  std::normal_distribution<float> normal;
  std::vector<float> out(n);
  for (float& x : out) x = normal(bits);
  return out;
}

}  // namespace

int main() {
  engine_cache cache{normals(std::size_t{B * H * columns * 2 * P * D}, 1),
                     std::vector<std::int32_t>(B * H * columns),
                     {900, 900, 500, 500},
                     {}};
  std::iota(cache.table.begin(), cache.table.end(), 0);
  // (B·W, Hq, D): the last W tokens of each prompt, rotated
  auto const queries = normals(std::size_t{B * W * Hq * D}, 2);
  std::int32_t const row_begin[B + 1] = {0, W, 2 * W};

  constexpr auto policy = kvevict::presets::ada_snapkv({.window = W, .pool = 7, .floor_permille = 200});
  kvevict::threads pool(2);
  kvevict::host ctx(pool.as_executor());

  auto const view = cache.view();
  auto const evidence = kvevict::prompt(view, {.data = queries.data(),
                                               .token_stride = Hq * D,
                                               .head_stride = D,
                                               .heads = Hq,
                                               .head_dim = D,
                                               .row_begin = row_begin});
  auto const keep = kvevict::plan(ctx, policy, evidence, {.tokens_per_head = 256});
  auto const done = kvevict::compact(ctx, view, keep);

  for (auto page : done.freed_pages()) cache.free.push_back(page);
  std::copy(done.lengths().begin(), done.lengths().end(), cache.lengths.begin());
  for (int b = 0; b < B; ++b) {
    std::printf("sequence %d keeps", b);
    int sum = 0;
    for (int h = 0; h < H; ++h)
      std::printf(" %d", cache.lengths[std::size_t(b * H + h)]), sum += cache.lengths[std::size_t(b * H + h)];
    std::printf(" tokens, %d in all\n", sum);
    if (sum != H * 256) return 1;
  }
  std::printf("%zu pages are free again, %lld rows were moved\n", cache.free.size(),
              static_cast<long long>(done.moves().moves()));
}
