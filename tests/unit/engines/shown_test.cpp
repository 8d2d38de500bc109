// SPDX-License-Identifier: Apache-2.0
// The view that each header of engines/ shows in its comment is compiled here as it stands there, and run.
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>

#include <kvevict/engines/contiguous.hpp>
#include <kvevict/engines/flashinfer.hpp>
#include <kvevict/engines/lmcache.hpp>
#include <kvevict/engines/sglang.hpp>
#include <kvevict/engines/tensorrt_llm.hpp>
#include <kvevict/engines/vllm.hpp>
#include <kvevict/kvevict.hpp>

#include "support/catch.hpp"
#include "support/engine_structs.hpp"
#include "support/random.hpp"

namespace engines_shown_test {

using namespace kvevict;

namespace {

constexpr auto policy = presets::snapkv({.window = 4, .pool = 3});

/// What an engine holds: tensors of numbers near zero, tables, queries of the last four tokens.
struct tensor {
  std::vector<std::uint16_t> bits;
  explicit tensor(std::size_t n, std::uint64_t seed = 1) {
    reference::generator random(seed);
    for (std::size_t i = 0; i < n; ++i) bits.push_back(from_float<f16>(static_cast<float>(random.normal())).bits);
  }
  void* data_ptr() { return bits.data(); }
};

struct newest {
  std::vector<float> data;
  std::vector<std::int32_t> begin;
  newest(std::int32_t sequences, std::int32_t heads, std::int32_t head_dim) {
    for (std::int32_t b = 0; b <= sequences; ++b) begin.push_back(4 * b);
    data = reference::generator(9).normals<float>(static_cast<std::size_t>(4 * sequences * heads * head_dim));
    rows.data = data.data(), rows.heads = heads, rows.head_dim = head_dim, rows.row_begin = begin.data();
    rows.token_stride = std::int64_t{heads} * head_dim, rows.head_stride = head_dim;
  }
  query_rows rows;
};

// clang-format off

void show_contiguous(host& ctx) {
  int const batch = 2, room = 40, heads = 2, head_dim = 16, tokens = 12;
  std::vector<std::int32_t> lengths{30, 40};
  tensor key(batch * room * heads * head_dim), value(batch * room * heads * head_dim);
  newest const last(batch, heads, head_dim);
  query_rows const& queries = last.rows;
  auto const run = [&](std::int32_t* lengths) {
    // [contiguous.hpp]
    pages::sizes const s{.pages = batch, .page_size = room, .heads = heads, .head_dim = head_dim, .type = dtype::f16};
    auto const cache = engines::contiguous::view(key.data_ptr(), value.data_ptr(), s, lengths);
    auto const done = compact(ctx, cache, plan(ctx, policy, prompt(cache, queries), {.tokens_per_head = tokens}));
    for (int b = 0; b < batch; ++b) lengths[b] = done.length(b, 0);
    // [/contiguous.hpp]
  };
  run(lengths.data());
  CHECK(lengths == std::vector<std::int32_t>{12, 12});
}

void show_flashinfer(host& ctx) {
  int const tokens = 9, max_num_pages = 8;
  tensor k(8 * 4 * 2 * 16), v(8 * 4 * 2 * 16);
  std::vector<std::int32_t> indices{5, 2, 7, 1, 0, 6}, indptr{0, 4, 4, 6}, last{3, 0, 4};
  engine_structs::paged_kv<f16> paged_kv{{4}, 2, 16, 3, 128, 32, 16, 128, 32, 16,
                                    static_cast<f16*>(k.data_ptr()), static_cast<f16*>(v.data_ptr()),
                                    indices.data(), indptr.data(), last.data()};
  newest of_last(3, 2, 16);
  of_last.begin = {0, 4, 4, 8};  // the second request is empty
  query_rows const& queries = of_last.rows;
  // [flashinfer.hpp]
  auto const cache = engines::flashinfer::view(paged_kv, dtype::f16, max_num_pages);
  auto const keep = plan(ctx, policy, prompt(cache, queries), {.tokens_per_head = tokens});
  auto const done = compact(ctx, cache, keep);
  engines::flashinfer::update(paged_kv, cache, done);
  // [/flashinfer.hpp]
  CHECK(indptr == std::vector<std::int32_t>{0, 3, 3, 5});
  CHECK(last == std::vector<std::int32_t>{1, 0, 4});
  CHECK(std::vector<std::int32_t>(indices.begin(), indices.begin() + 5) == std::vector<std::int32_t>{5, 2, 7, 0, 6});
  CHECK(cache.length(0, 0) == 9);  // the same arrays: the view of the next step is there
}

void show_vllm(host& ctx) {
  int const num_blocks = 6, block_size = 8, num_kv_heads = 2, head_size = 16, num_layers = 3, layer = 1, num_reqs = 2,
            max_num_blocks = 3, tokens = 10;
  std::int32_t const block_table[] = {4, 1, 5, 0, 2, -1}, seq_lens[] = {20, 16};
  tensor tensor(num_layers * num_blocks * block_size * num_kv_heads * 2 * head_size);
  newest const last(num_reqs, num_kv_heads, head_size);
  query_rows const& queries = last.rows;
  // [vllm.hpp]
  engines::vllm::kv_cache kv{.tensor = tensor.data_ptr(), .layout = engines::vllm::kv_cache_layout::LBNHC};
  kv.shape = {.pages = num_blocks, .page_size = block_size, .heads = num_kv_heads, .head_dim = head_size,
              .type = dtype::bf16, .layers = num_layers};
  auto const cache = engines::vllm::view(kv, layer, block_table, num_reqs, max_num_blocks, seq_lens);
  auto const done = compact(ctx, cache, plan(ctx, policy, prompt(cache, queries), {.tokens_per_head = tokens}));
  // [/vllm.hpp]
  CHECK(done.length(0, 0) == 10);
  CHECK(done.freed_pages().size == 1);
}

void show_sglang(host& ctx) {
  int const size = 40, head_num = 2, head_dim = 16, batch = 2, tokens = 6, capacity = 8;
  std::vector<std::int32_t> kv_indices_of, indptr{0, 20, 30};
  for (std::int32_t i = 40; i > 10; --i) kv_indices_of.push_back(i);
  std::int32_t const seq_lens[] = {20, 10}, *const kv_indices = kv_indices_of.data(), *const kv_indptr = indptr.data();
  tensor k_buffer((size + 1) * head_num * head_dim), v_buffer((size + 1) * head_num * head_dim);
  std::int64_t logical_indices[16];
  std::int32_t valid_lengths[2];
  newest const last(batch, head_num, head_dim);
  query_rows const& queries = last.rows;
  // [sglang.hpp]
  pages::sizes const s{.pages = size + 1, .heads = head_num, .head_dim = head_dim, .type = dtype::bf16};
  auto const pool = engines::sglang::token_pool(k_buffer.data_ptr(), v_buffer.data_ptr(), s);
  auto const cache = pages::view(pages::csr(kv_indices, kv_indptr, batch, s), {seq_lens}, pool);
  auto const one_set = policy.with(heads::together{});
  auto const keep = plan(ctx, one_set, prompt(cache, queries), {.tokens_per_head = tokens});
  engines::sglang::write_logical_indices(keep, logical_indices, valid_lengths, capacity);
  // [/sglang.hpp]
  for (int b = 0; b < 2; ++b) {
    CHECK(valid_lengths[b] == 6);
    for (int i = 0; i < 8; ++i) CHECK(logical_indices[b * 8 + i] == (i < 6 ? keep(b, 0)[i] : -1));
  }
}

void show_tensorrt_llm(host& ctx) {
  int const blocks = 12, num_kv_heads = 2, head_size = 16, sequences = 2, tokens = 7;
  std::int32_t const lengths[] = {11, 9};
  engine_structs::cache_index const table[] = {{2}, {6}, {0}, {3}, {7}, {1}, {8}, {4}, {10}, {9}, {5}, {11}};
  tensor pool(blocks * num_kv_heads * 4 * head_size);
  engine_structs::block_array const block_array{3, 4, 2 * 4 * 16 * 2, 0, 0, pool.data_ptr(), table};
  std::vector<std::int32_t> indices(2 * 14), offsets(3);
  std::int32_t *const sparse_kv_indices = indices.data(), *const sparse_kv_offsets = offsets.data();
  newest const last(sequences, num_kv_heads, head_size);
  query_rows const& queries = last.rows;
  // [tensorrt_llm.hpp]
  pages::sizes const s{.pages = blocks, .heads = num_kv_heads, .head_dim = head_size, .type = dtype::f16};
  auto const cache = engines::tensorrt_llm::view(block_array, s, sequences, lengths);
  auto const keep = plan(ctx, policy, prompt(cache, queries), {.tokens_per_head = tokens});
  engines::tensorrt_llm::write_sparse_kv(plan_moves(ctx, cache, keep), sparse_kv_indices, sparse_kv_offsets);
  // [/tensorrt_llm.hpp]
  CHECK(offsets == std::vector<std::int32_t>{0, 7, 14});
  for (int b = 0; b < 2; ++b)
    for (int h = 0; h < 2; ++h)
      for (int i = 0; i < 7; ++i) CHECK(indices[static_cast<std::size_t>(h * 14 + b * 7 + i)] == keep(b, h)[i]);
}

void show_lmcache(host& ctx) {
  int const num_tokens = 20, heads = 2, head_dim = 16, num_layers = 3, preserved_num_tokens = 8;
  std::int32_t const lengths[] = {20, 20, 20};
  tensor k(num_layers * num_tokens * heads * head_dim, 2), v(num_layers * num_tokens * heads * head_dim, 3);
  tensor const before = k;
  newest const last(num_layers, heads, head_dim);
  query_rows const& queries = last.rows;
  // [lmcache.hpp]
  pages::sizes const s{.page_size = num_tokens, .heads = heads, .head_dim = head_dim, .type = dtype::bf16,
                       .layers = num_layers};
  auto const cache = engines::lmcache::view(k.data_ptr(), v.data_ptr(), s, lengths);
  budget const of_layers{.tokens_per_head = preserved_num_tokens, .layer_count = num_layers};
  auto const keep = plan(ctx, policy, prompt(cache, queries), of_layers);
  auto const kept = engines::lmcache::expect_preserved(keep, preserved_num_tokens);
  compact(ctx, cache, keep);  // k[:, :kept] and v[:, :kept] are what compact_kv returns
  // [/lmcache.hpp]
  REQUIRE(kept == 8);
  for (int l = 0; l < 3; ++l)
    for (int h = 0; h < 2; ++h)
      for (int i = 0; i < 8; ++i)
        for (int d = 0; d < 16; ++d)
          CHECK(k.bits[static_cast<std::size_t>(((l * 20 + i) * 2 + h) * 16 + d)] ==
                before.bits[static_cast<std::size_t>(((l * 20 + keep(l, h)[i]) * 2 + h) * 16 + d)]);
}

// clang-format on

std::string text_of(std::filesystem::path const& file) {
  std::ifstream in(file);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// Lines without their first columns.
std::vector<std::string> lines(std::string const& text, std::size_t columns) {
  std::vector<std::string> out;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) out.push_back(line.size() < columns ? "" : line.substr(columns));
  return out;
}

/// What the header's first comment shows: its lines from the first one with three spaces on.
std::vector<std::string> shown(std::string const& header) {
  std::vector<std::string> out;
  for (std::string const& line : lines(header.substr(0, header.find("#pragma once")), 0))
    if (line.rfind("//   ", 0) == 0) out.push_back(line.substr(5));
  return out;
}

std::vector<std::string> compiled(std::string const& test, std::string const& name) {
  std::string const from = "// [" + name + "]\n", to = "// [/" + name + "]\n";
  std::size_t const a = test.find(from), b = test.find(to);
  if (a == test.npos || b == test.npos) return {};
  std::string const between = test.substr(a + from.size(), test.rfind('\n', b) + 1 - a - from.size());
  return lines(between, between.find_first_not_of(' '));
}

}  // namespace

TEST_CASE("engines: what their headers show is compiled as it stands, and is at most eight lines") {
  std::filesystem::path const include = KVEVICT_INCLUDE_DIR;
  std::string const test = text_of(include / "../../tests/unit/engines/shown_test.cpp");
  for (char const* name :
       {"contiguous.hpp", "flashinfer.hpp", "vllm.hpp", "sglang.hpp", "tensorrt_llm.hpp", "lmcache.hpp"}) {
    CAPTURE(name);
    auto const in_header = shown(text_of(include / "engines" / name));
    CHECK(in_header.size() >= 3);
    CHECK(in_header.size() <= 8);
    CHECK(in_header == compiled(test, name));
  }
}

TEST_CASE("engines: what their headers show evicts") {
  host ctx;
  show_contiguous(ctx);
  show_flashinfer(ctx);
  show_vllm(ctx);
  show_sglang(ctx);
  show_tensorrt_llm(ctx);
  show_lmcache(ctx);
}

}  // namespace engines_shown_test
