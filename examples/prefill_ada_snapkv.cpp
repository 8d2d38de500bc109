// SPDX-License-Identifier: Apache-2.0
// After prefill: two sequences of different lengths in vLLM-like pages, one page table per KV head, Ada-SnapKV, real
// moves. The README shows what lies between the marks.
#include <cstdio>
#include <numeric>
#include <random>
#include <vector>

#include <kvevict/threads.hpp>

// [README]
#include <kvevict/engines/pages.hpp>
#include <kvevict/kvevict.hpp>

namespace pages = kvevict::pages;
constexpr auto policy = kvevict::presets::ada_snapkv({.window = 32, .pool = 7, .floor_permille = 200});

/// A layer's cache as an engine has it: pages of one KV head, K before V; a page table per sequence and KV head.
struct engine_cache {
  float* pool;                          // (pages, 2, P, D)
  std::int32_t const *table, *lengths;  // (B, H, columns) page ids; (B, H) tokens
  std::int32_t pages, sequences, heads, columns, page_size, head_dim;
};

kvevict::compacted<std::int32_t> evict(kvevict::host& ctx, engine_cache const& c, kvevict::query_rows const& newest) {
  pages::sizes const s{.pages = c.pages, .page_size = c.page_size, .head_dim = c.head_dim, .type = kvevict::dtype::f32};
  auto const table = pages::by_head(c.table, c.sequences, c.heads, c.columns, s);
  auto const cache = pages::view(table, {c.lengths, c.heads, 1}, pages::k_and_v(c.pool, s, "B2ND"));
  auto const keep = kvevict::plan(ctx, policy, kvevict::prompt(cache, newest), {.tokens_per_head = 256});
  return kvevict::compact(ctx, cache, keep);  // in place: now free its freed_pages(), take its lengths()
}
// [/README]

namespace {

constexpr int B = 2, Hq = 8, H = 2, D = 64, P = 16, W = 32, columns = 64;

std::vector<float> normals(std::size_t n, unsigned seed) {
  std::mt19937 bits(seed);
  std::normal_distribution<float> normal;
  std::vector<float> out(n);
  for (float& x : out) x = normal(bits);
  return out;
}

}  // namespace

int main() {
  auto pool = normals(std::size_t{B * H * columns * 2 * P * D}, 1);
  std::vector<std::int32_t> table(B * H * columns), lengths{900, 900, 500, 500}, free_pages;
  std::iota(table.begin(), table.end(), 0);
  engine_cache const cache{pool.data(), table.data(), lengths.data(), B * H * columns, B, H, columns, P, D};

  // (B·W, Hq, D): the last W tokens of each prompt, rotated
  auto const queries = normals(std::size_t{B * W * Hq * D}, 2);
  std::int32_t const row_begin[B + 1] = {0, W, 2 * W};
  kvevict::query_rows const newest{.data = queries.data(),
                                   .token_stride = Hq * D,
                                   .head_stride = D,
                                   .heads = Hq,
                                   .head_dim = D,
                                   .row_begin = row_begin};

  kvevict::threads two(2);
  kvevict::host ctx(two.as_executor());
  auto const done = evict(ctx, cache, newest);

  free_pages.assign(done.freed_pages().begin(), done.freed_pages().end());
  lengths.assign(done.lengths().begin(), done.lengths().end());  // physical; logical positions are untouched
  for (int b = 0; b < B; ++b) {
    int const *kept = &lengths[std::size_t(b * H)], sum = kept[0] + kept[1];
    std::printf("sequence %d keeps %d %d tokens, %d in all\n", b, kept[0], kept[1], sum);
    if (sum != H * 256) return 1;
  }
  std::printf("%zu pages are free again, %lld rows were moved\n", free_pages.size(),
              static_cast<long long>(done.moves().moves()));
}
