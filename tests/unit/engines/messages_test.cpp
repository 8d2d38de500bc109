// SPDX-License-Identifier: Apache-2.0
// Wrong use of the builders and adapters of engines/, and what is said of it.
#include <functional>
#include <string>
#include <vector>

#include <kvevict/engines/contiguous.hpp>
#include <kvevict/engines/flashinfer.hpp>
#include <kvevict/engines/lmcache.hpp>
#include <kvevict/engines/sglang.hpp>
#include <kvevict/engines/tensorrt_llm.hpp>
#include <kvevict/engines/vllm.hpp>
#include <kvevict/kvevict.hpp>

#include "support/catch.hpp"
#include "support/engine_structs.hpp"

namespace engines_messages_test {

using namespace kvevict;

namespace {

template <class F> std::string refused(F f) {
  try {
    f();
  } catch (contract_violation const& e) {
    return e.what();
  }
  return "accepted";
}
bool says(std::string const& text, char const* what) {
  UNSCOPED_INFO(text);
  return text.find(what) != std::string::npos;
}

/// Two sequences in pages of four tokens, K and V [pages,P,H,D].
struct small_cache {
  pages::sizes s{.pages = 8, .page_size = 4, .heads = 2, .head_dim = 16};
  std::vector<float> k = std::vector<float>(8 * 4 * 2 * 16, 0.25f), v = k;
  std::vector<std::int32_t> table{3, 0, 6, 5, 1, -1}, lengths{11, 8}, positions = std::vector<std::int32_t>(8 * 4);
  layer_view<> view() {
    return pages::view(pages::dense(table.data(), 2, 3, s), {lengths.data()},
                       pages::k_and_v(k.data(), v.data(), s, "BNHD"));
  }
};

/// One sequence of six tokens in SGLang's pool, two heads.
struct token_pool {
  std::vector<float> k = std::vector<float>(40 * 2 * 16), v = k;
  std::vector<std::int32_t> slots{4, 9, 2, 7, 30, 11}, indptr{0, 6}, lengths{6};

  layer_view<> view() {
    pages::sizes const s{.pages = 40, .heads = 2, .head_dim = 16};
    return pages::view(pages::csr(slots.data(), indptr.data(), 1, s), {lengths.data()},
                       engines::sglang::token_pool(k.data(), v.data(), s));
  }
};

keep_set one_set(std::vector<std::int32_t> tokens, std::int32_t length, std::int32_t heads) {
  keep_set keep;
  keep.sequences = 1, keep.heads = heads, keep.row_begin = {0};
  for (std::int32_t h = 0; h < heads; ++h) {
    keep.tokens.insert(keep.tokens.end(), tokens.begin(), tokens.end());
    keep.row_begin.push_back(static_cast<std::int64_t>(keep.tokens.size())), keep.lengths.push_back(length);
  }
  return keep;
}

}  // namespace

TEST_CASE("engines: strides in elements, sizes in bytes") {
  small_cache c;
  layer_view<> v = c.view();
  row_map& m = v.components[0].rows;  // by hand, of floats: a row is 64 bytes, the next head's begins after 16
  m.page_stride = 4 * 2 * 16, m.slot_stride = 2 * 16, m.head_stride = 16;
  CHECK(says(refused([&] { validate(v); }), "component k overlap"));

  c.s.bytes = 8 * 4 * 2 * 16 * 4;
  CHECK(refused([&] { c.view(); }) == "accepted");
  c.s.head_dim = 64;
  CHECK(says(refused([&] { c.view(); }), "takes 16384 bytes and the tensor has 4096; sizes are in elements"));
  c.s.head_dim = 16, c.s.bytes = 0, c.s.page_room = 16;
  CHECK(says(refused([&] { c.view(); }), "sizes::page_room is in elements, and holds a page"));
}

TEST_CASE("engines: a cell twice, columns in the wrong order") {
  small_cache c;
  c.table = {3, 0, 3, 5, 1, -1};
  CHECK(says(refused([&] { validate(c.view()); }), "pages 0 and 2 of sequence 0, head 0 are the same page"));
  c.table = {3, 0, 6, 5, 1, -1};
  layer_view<> v = c.view().with(pages::tensor(role::position, c.positions.data(), {8, 4, 1, 1, dtype::i32}, "BND"));
  for (std::int32_t b = 0; b < 2; ++b)
    for (std::int32_t t = 0; t < c.lengths[static_cast<std::size_t>(b)]; ++t)
      element<std::int32_t>(v, v.components[2], b, 0, t) = t;
  host ctx;
  auto const policy = presets::streaming_llm({.sinks = 1});
  auto const evict = [&] { plan(ctx, policy, contents(v), {.tokens_per_head = 6}); };
  CHECK(refused(evict) == "accepted");
  std::swap(c.table[0], c.table[1]);
  CHECK(says(refused(evict), "position"));
}

TEST_CASE("engines: keys by channel are dropped by pages") {
  // OpenVINO's default: 4 tokens of u8 and 8 bytes of scale and zero point a channel
  std::vector<std::byte> pool(8 * (4 + 8) * 16);
  std::vector<std::int32_t> table{3, 0, 6}, lengths{11};
  pages::sizes s{.pages = 8, .page_size = 4, .head_dim = 16, .type = dtype::u8};
  s.page_room = (4 + 8) * 16;
  component const k = pages::tensor(role::k, pool.data(), s, "BND");
  layer_view<> v;
  v.pages = pages::dense(table.data(), 1, 3, s), v.lengths = {lengths.data()};
  v = v.with(quantised::by_channel(k, dtype::u8, 4 * 16, 4 * 16 + 4 * 16));
  host ctx;
  auto const evict = [&](auto const& policy) { plan(ctx, policy, contents(v), {.tokens_per_head = 8}); };
  auto const policy = presets::streaming_llm({.sinks = 1});
  CHECK(says(refused([&] { evict(policy); }), "select::pages"));
  CHECK(refused([&] { evict(policy.with(select::pages{})); }) == "accepted");
  CHECK(says(refused([&] { compact(ctx, v, one_set({0, 9, 10}, 11, 1)); }), "drop"));
}

TEST_CASE("engines: layouts that no stride describes") {
  small_cache c;
  CHECK(
      says(refused([&] { pages::transposed_cells(role::v, c.v.data(), {.pages = 4, .heads = 2, .head_dim = 16}, 2); }),
           "2 streams have no common stride; make a view of each stream"));
  CHECK(says(refused([&] {
               engines::sglang::vectorized_5d(c.k.data(), c.v.data(), c.s = {8, 8, 2, 16});
             }),
             "packs of 4 slots in pages of 8"));
  CHECK(says(refused([&] { pages::tensor(role::k, c.k.data(), c.s, "BHD"); }), "has no axis for rows of 16 elements"));
  CHECK(says(refused([&] { pages::tensor(role::k, c.k.data(), c.s, "BNHHD"); }), "axis H twice"));
  CHECK(says(refused([&] { pages::tensor(role::k, c.k.data(), c.s, "SNHD"); }), "has axis S; write L, B, H"));
  CHECK(says(refused([&] { pages::tensor(role::k, c.k.data(), {8, 8, 2, 18}, "BHDNx"); }), "not packs of 4"));
  CHECK(says(refused([&] { pages::k_and_v(c.k.data(), c.s, "BNHD"); }), "no axis 2"));
  CHECK(says(refused([&] { pages::k_and_v(c.k.data(), {8, 8, 2, 16, dtype::f32, 1, 8}, "2BNHD"); }), "its own tensor"));
  CHECK(says(refused([&] {
               pages::tensor(role::k, c.k.data(), {std::int64_t{1} << 60, 8, 2, 16}, "BNHD");
             }),
             "axis B"));
  CHECK(says(refused([&] { pages::latent(c.k.data(), {8, 1, 1, 16}, "BD"); }), "v_head_dim"));
  CHECK(says(refused([&] { pages::strided(role::k, c.k.data(), c.s, {-1, 1, 1}); }), "none is negative"));
}

TEST_CASE("engines: fields that contradict each other") {
  small_cache c;
  std::int32_t indices[] = {0}, indptr[] = {0, 1}, last[] = {1};
  engine_structs::paged_kv<float> const kv{{4}, 2,  16,         1,          128,     32,     16,  128,
                                           32,  16, c.k.data(), c.v.data(), indices, indptr, last};
  CHECK(says(refused([&] { engines::flashinfer::view(kv, dtype::f16, 8); }), "an element is 4 bytes, and f16 has 2"));

  engines::vllm::kv_cache of{.tensor = c.k.data(), .shape = c.s};
  CHECK(says(refused([&] { engines::vllm::view(of, 1, c.table.data(), 2, 3, c.lengths.data()); }),
             "there is no layer 1"));
  of.shape.type = dtype::i8, of.shape.head_dim = 18, of.quant = engines::vllm::kv_quant::per_token_head;
  CHECK(says(refused([&] { engines::vllm::view(of, 0, c.table.data(), 2, 3, c.lengths.data()); }), "multiple of 4"));

  engine_structs::cache_index blocks[] = {{4}, {5}};
  std::int32_t const tokens[] = {3};
  engine_structs::block_array array{1, 4, 2 * 4 * 16 * 4, 0, 0, c.k.data(), blocks};
  auto const trt = [&] {
    return engines::tensorrt_llm::view(array, {.pages = 8, .heads = 2, .head_dim = 16}, 1, tokens);
  };
  CHECK(refused([&] { validate(trt()), engines::tensorrt_llm::expect_values_behind_keys(trt()); }) == "accepted");
  blocks[1].value = 6;
  CHECK(says(refused([&] { engines::tensorrt_llm::expect_values_behind_keys(trt()); }), "K at 4 and V at 6"));
  auto const by_rows = [&] {
    return engines::tensorrt_llm::view_by_rows(array, {.pages = 8, .heads = 2, .head_dim = 16}, 1, tokens);
  };
  CHECK(refused([&] { validate(by_rows()); }) == "accepted");
  blocks[1].value = 4;
  CHECK(says(refused([&] { validate(by_rows()); }), "components k and v overlap in page 0"));
  blocks[1].value = 8;
  CHECK(says(refused([&] { validate(by_rows()); }), "has id 8, but component v has 8 pages"));
  engine_structs::mixed_block_array const mixed{1, 4, 2 * 4 * 16, 2 * 4 * 8 + 1, c.k.data(), c.v.data(), blocks};
  CHECK(says(refused([&] {
               engines::tensorrt_llm::mixed_view(
                   mixed, {.pages = 8, .heads = 2, .head_dim = 16, .type = dtype::fp8_e4m3},
                   {.pages = 8, .heads = 2, .head_dim = 8, .type = dtype::opaque}, 1, tokens);
             }),
             "mBytesPerVBlock says 65"));
  blocks[0].value = 4 | std::numeric_limits<std::int32_t>::min();  // in the secondary pool
  CHECK(says(refused([&] { validate(trt()); }), "page"));
  array.mSinkTokens = 2, array.mBubbleLen = 2;
  CHECK(says(refused(trt), "2 sink tokens with a bubble of 2 slots"));
  array.mBytesPerBlock = 7;
  CHECK(says(refused(trt), "mBytesPerBlock says 7"));
}

TEST_CASE("engines: keep sets and plans that an engine's contract has no shape for") {
  token_pool pool;
  auto const cache = pool.view();
  host ctx;
  std::int32_t indices[16], count[4];
  auto keep = one_set({1, 3, 4}, 6, 2);
  CHECK(refused([&] { engines::sglang::write_logical_indices(keep, indices, count, 3); }) == "accepted");
  CHECK(says(refused([&] { engines::sglang::write_logical_indices(keep, indices, count, 2); }), "room for 2"));

  auto const stable = plan_moves(ctx, cache, keep), holes = plan_moves(ctx, cache, keep, compaction::fill_holes);
  std::int32_t tgt[4], src[4];
  CHECK(says(refused([&] { engines::sglang::write_locations(cache, stable, tgt, src); }), "compaction::fill_holes"));
  REQUIRE(engines::sglang::write_locations(cache, holes, tgt, src) == 2);
  CHECK((src[0] == 7 && src[1] == 30 && tgt[0] == 4 && tgt[1] == 2));  // slots 3, 4 into 0, 2
  CHECK(says(refused([&] { engines::tensorrt_llm::write_sparse_kv(holes, indices, count); }), "compaction::stable"));
  CHECK(refused([&] { engines::tensorrt_llm::write_sparse_kv(stable, indices, count); }) == "accepted");
  CHECK(std::vector<std::int32_t>(indices, indices + 6) == std::vector<std::int32_t>{1, 3, 4, 1, 3, 4});
  engines::tensorrt_llm::write_sparse_kv(plan_moves(ctx, cache, one_set({0, 3, 4}, 6, 2)), indices, count);
  CHECK(std::vector<std::int32_t>(indices, indices + 6) == std::vector<std::int32_t>{0, 3, 4, 0, 3, 4});

  CHECK(engines::lmcache::expect_preserved(keep, 3) == 3);
  CHECK(says(refused([&] { engines::lmcache::expect_preserved(keep, 2); }), "more than the 2"));
  keep.tokens[4] = 2;  // head 1
  CHECK(says(refused([&] { engines::sglang::write_logical_indices(keep, indices, count, 3); }), "heads::together"));
  auto const apart = plan_moves(ctx, cache, keep, compaction::fill_holes);
  CHECK(says(refused([&] { engines::sglang::write_locations(cache, apart, tgt, src); }), "heads::together"));
  keep.tokens.pop_back(), --keep.row_begin[2];
  CHECK(says(refused([&] { engines::lmcache::expect_preserved(keep, 3); }),
             "head 0 of layer 0 and head 1 of layer 0 keep 3 and 2 tokens"));
  auto unequal = stable;
  unequal.lengths[1] = 2;
  CHECK(says(refused([&] { engines::tensorrt_llm::write_sparse_kv(unequal, indices, count); }), "heads::uniform"));
}

TEST_CASE("engines: a latent row keeps the room of its pages and is compared with its tensor") {
  std::vector<float> memory(4 * 40);
  pages::sizes s{.pages = 4, .head_dim = 24, .v_head_dim = 16, .page_room = 40, .bytes = 4 * 40 * 4};
  for (component const& c : {pages::latent(memory.data(), s, "BD").k, engines::sglang::mla(memory.data(), s).v,
                             engines::sglang::mla_parts(memory.data(), s).rotary})
    CHECK(c.rows.page_stride == 40 * 4);
  s.bytes -= 1;
  CHECK(says(refused([&] { engines::sglang::mla(memory.data(), s); }), "takes 640 bytes and the tensor has 639"));
}

TEST_CASE("engines: rows of half bytes are described as bytes") {
  std::vector<std::byte> pool(8 * 4 * 2 * 2 * 8);
  std::int32_t const table[] = {3, 0, 6}, lengths[] = {11};
  pages::sizes s{.pages = 8, .page_size = 4, .heads = 2, .head_dim = 16, .type = dtype::i4};
  auto const words = "two elements of i4 share a byte, and sizes count whole ones; give u8 and the bytes of a row";
  CHECK(says(refused([&] { pages::tensor(role::k, pool.data(), s, "BNHD"); }), words));
  CHECK(says(refused([&] { pages::strided(role::k, pool.data(), s, {1, 1, 1}); }), words));
  engines::vllm::kv_cache const kv{.tensor = pool.data(), .shape = s};
  CHECK(says(refused([&] { engines::vllm::view(kv, 0, table, 1, 3, lengths); }), words));

  s.type = dtype::u8, s.head_dim = 8;
  pages::kv both = pages::k_and_v(pool.data(), s, "BN2HD");
  for (component* const c : {&both.k, &both.v}) *c = quantised::by_tensor(*c, dtype::i4, 0.5f);
  auto const cache = pages::view(pages::dense(table, 1, 3, s), {lengths}, both);
  CHECK(refused([&] { validate(cache); }) == "accepted");
  CHECK(cache.key_width() == 16);
}

TEST_CASE("engines: vLLM's strides are never negative") {
  small_cache c;
  engines::vllm::kv_cache kv{.tensor = c.k.data(), .shape = c.s};
  auto const view = [&] { engines::vllm::view(kv, 0, c.table.data(), 2, 3, c.lengths.data()); };
  CHECK(refused(view) == "accepted");
  for (std::int64_t* const x : {&kv.layer_stride, &kv.block_stride, &kv.offset}) {
    *x = -64;
    CHECK(says(refused(view), "are bytes, none below 0"));
    *x = 0;
  }
}

TEST_CASE("engines: numbers that 32 or 64 bits do not hold, and layouts that there are not") {
  small_cache c;
  auto const longer = "elements of f32 are longer than 2147483647 bytes; give what one head has of one token";
  for (std::int32_t const D : {1 << 29, 1 << 30}) {  // of four bytes: beyond 31 bits, and nothing in 32
    pages::sizes const s{.pages = 1, .head_dim = D, .v_head_dim = D, .pack = D};
    for (char const* const shape : {"BD", "BDN", "DB", "BDx"})
      CHECK(says(refused([&] { pages::tensor(role::k, c.k.data(), s, shape); }), longer));
    CHECK(says(refused([&] { pages::strided(role::k, c.k.data(), s, {}); }), longer));
    CHECK(says(refused([&] { pages::latent(c.k.data(), s, "BD"); }), longer));
  }
  pages::sizes const most{.pages = 1, .head_dim = (1 << 29) - 1};
  CHECK(pages::tensor(role::k, c.k.data(), most, "BD").width() == (1 << 29) - 1);

  engines::vllm::kv_cache kv{.tensor = c.k.data(), .shape = c.s};
  auto const view = [&] { engines::vllm::view(kv, kv.shape.layers - 1, c.table.data(), 2, 3, c.lengths.data()); };
  kv.shape.layers = 3;
  for (std::int32_t const requests : {-1, 1 << 30, std::numeric_limits<std::int32_t>::max()})
    CHECK(says(refused([&] { engines::vllm::stack(kv, c.table.data(), requests, 3, c.lengths.data()); }),
               " requests in 3 layers; give the rows of block_table"));
  for (std::int64_t* const x : {&kv.layer_stride, &kv.offset}) {
    *x = std::numeric_limits<std::int64_t>::max() - 7;
    CHECK(says(refused(view), "none below 0 or beyond 64 bits"));
    *x = 0;
  }
  for (int const i : {6, 77}) {
    kv.layout = static_cast<engines::vllm::kv_cache_layout>(i);
    CHECK(says(refused(view), "out of range; give one of the enumerators"));
  }
  kv.layout = engines::vllm::kv_cache_layout::LBHNC, kv.quant = static_cast<engines::vllm::kv_quant>(2);
  CHECK(says(refused(view), "out of range; give one of the enumerators"));
  kv.quant = engines::vllm::kv_quant::per_token_head, kv.shape.type = dtype::i8;
  kv.shape.head_dim = std::numeric_limits<std::int32_t>::max() - 3;
  CHECK(says(refused(view), "have no f32 scale"));

  for (std::int64_t const B : {std::int64_t{1} << 31, (std::int64_t{1} << 32) + 1}) {
    pages::sizes const s{.pages = B, .page_size = 4, .heads = 2, .head_dim = 16};
    auto const words = " sequences; sizes::pages is B, the first axis";
    CHECK(says(refused([&] { engines::contiguous::view(c.k.data(), c.v.data(), s, c.lengths.data()); }), words));
    CHECK(
        says(refused([&] { engines::contiguous::view_by_head(c.k.data(), c.v.data(), s, c.lengths.data()); }), words));
    CHECK(says(refused([&] {
                 engines::contiguous::view(c.k.data(), c.v.data(), s, c.lengths.data(), {128, 64, 16});
               }),
               words));
  }
}

TEST_CASE("engines: K and V of TensorRT-LLM's blocks have one size, and lengths stay within the table") {
  small_cache c;
  engine_structs::cache_index const blocks[] = {{4}, {2}, {5}, {3}};
  std::int32_t tokens[] = {8};
  namespace trt = engines::tensorrt_llm;
  engine_structs::block_array const array{2, 4, 2 * 4 * 16 * 4, 0, 0, c.k.data(), blocks};
  pages::sizes k{.pages = 8, .heads = 2, .head_dim = 16}, v = k;
  auto const view = [&] { return trt::view(array, k, 1, tokens); };
  CHECK(refused([&] { validate(view()), trt::expect_values_behind_keys(view()); }) == "accepted");
  tokens[0] = 9;
  CHECK(says(refused([&] { trt::expect_values_behind_keys(view()); }),
             "has 9 tokens and its row of the table has room "
             "for 8; give the lengths of this step"));
  tokens[0] = 8, k.v_head_dim = 16;
  CHECK(refused(view) == "accepted");
  k.v_head_dim = 8;
  CHECK(says(refused(view), "rows of 16 elements and V of 8 in blocks of one size"));
  CHECK(says(refused([&] { trt::view_by_rows(array, k, 1, tokens); }), "in blocks of one size"));

  engine_structs::mixed_block_array mixed{2, 4, 2 * 4 * 16 * 4, 2 * 4 * 16 * 4, c.k.data(), c.v.data(), blocks};
  auto const mix = [&] { return trt::mixed_view(mixed, k, v, 1, tokens); };
  CHECK(says(refused(mix), "in blocks of one size"));
  k.v_head_dim = 0, v.v_head_dim = 8;
  CHECK(says(refused(mix), "in blocks of one size"));
  v.v_head_dim = 0;
  CHECK(refused(mix) == "accepted");
  v.heads = 1, mixed.mBytesPerVBlock /= 2;
  CHECK(says(refused(mix), "2 heads of K and 1 of V; give both the KV heads of this rank"));
}

TEST_CASE("engines: damaged keep sets and plans are not written") {
  token_pool pool;
  auto const cache = pool.view();
  host ctx;
  std::vector<std::int32_t> out(16, -7), count(4, -7);
  auto const untouched = [&] { return out == std::vector(16, -7) && count == std::vector(4, -7); };
  auto const logical = [&](std::vector<std::int32_t> const& tokens) {
    return refused([&] { engines::sglang::write_logical_indices(one_set(tokens, 6, 2), out.data(), count.data(), 8); });
  };
  for (auto const& damaged : {std::vector{0, -0x7fffffff, 2}, {2, 1}, {3, 3}, {0, 6}, {-1, 0}}) {
    CHECK(says(logical(damaged), "write_logical_indices: the kept tokens of sequence 0, head 0 are not strictly"));
    CHECK(untouched());
  }

  auto const keep = one_set({1, 3, 4}, 6, 2);
  auto const sparse = [&](auto damage) {
    auto plan = plan_moves(ctx, cache, keep);
    damage(plan);
    auto const text = refused([&] { engines::tensorrt_llm::write_sparse_kv(plan, out.data(), count.data()); });
    return untouched() ? text : "written";
  };
  for (std::int32_t const length : {-1, 2, 7})
    CHECK(says(sparse([=](move_plan& p) { p.lengths = {length, length}; }), "; plan again"));
  CHECK(says(sparse([](move_plan& p) { p.sources[2] = 6; }), "moves slot 6 to 2, which no stable compaction of 6"));
  CHECK(says(sparse([](move_plan& p) { p.sources[0] = -1; }), "moves slot -1 to 0"));
  CHECK(says(sparse([](move_plan& p) { p.sources[4] = 1; }), "head 1 moves slot 1 to 1"));
  CHECK(says(sparse([](move_plan& p) { p.sources[5] = 3; }), "head 1 moves slot 3 to 2"));
  CHECK(says(sparse([](move_plan& p) { p.destinations[1] = 0; }), "moves slot 3 to 0"));
  CHECK(says(sparse([](move_plan& p) { p.lengths_before = p.lengths = {0x7fffffff, 0x7fffffff}; }), "; plan"));

  auto const locations = [&](layer_view<> const& of, auto damage) {
    auto plan = plan_moves(ctx, cache.with_epoch(1), keep, compaction::fill_holes);
    damage(plan);
    auto const text = refused([&] { engines::sglang::write_locations(of, plan, out.data(), count.data()); });
    return untouched() ? text : "written";
  };
  auto const nothing = [](move_plan&) {};
  auto const now = cache.with_epoch(1);
  CHECK(says(locations(cache.with_epoch(2), nothing), "write_locations: the move plan was planned in epoch 1"));
  CHECK(says(locations(now, [](move_plan& p) { p.sources = {3, 1 << 20, 3, 1 << 20}; }), "write_locations: move 1"));
  CHECK(says(locations(now, [](move_plan& p) { p.lengths_before = {7, 7}; }), "the moves are for 7"));
  auto const on_other_pages = [&](move_plan&) { std::swap(pool.slots[0], pool.slots[5]); };
  CHECK(says(locations(now, on_other_pages), "write_locations: the pages of the view are not those"));
  CHECK(untouched());
}

TEST_CASE("engines: a keep set without heads has no tokens in any sequence") {
  keep_set keep;
  keep.sequences = 2, keep.row_begin = {0};
  std::vector<std::int32_t> indices(4, 7), count(2, 7);
  engines::sglang::write_logical_indices(keep, indices.data(), count.data(), 2);
  CHECK(indices == std::vector<std::int32_t>(4, -1));
  CHECK(count == std::vector<std::int32_t>(2, 0));
}

TEST_CASE("engines: SGLang moves all layers alike, by one list") {
  constexpr std::int32_t layers = 3;
  std::vector<float> k(layers * 40 * 2 * 16), v = k;
  std::vector<std::int32_t> slots{4, 9, 2, 7, 30, 11}, indptr{0, 4, 6}, lengths{4, 2, 4, 2, 4, 2};
  pages::sizes const s{.pages = 40, .heads = 2, .head_dim = 16, .layers = layers};
  auto table = pages::csr(slots.data(), indptr.data(), 2 * layers, s);
  table.layers = layers;
  auto const cache = pages::view(table, {lengths.data()}, pages::k_and_v(k.data(), v.data(), s, "LBHD"));
  keep_set keep;
  keep.sequences = 2 * layers, keep.heads = 2, keep.row_begin = {0};
  for (std::int32_t b = 0; b < 2 * layers; ++b)
    for (std::int32_t h = 0; h < 2; ++h) {
      for (std::int32_t const t : b % 2 == 0 ? std::vector{1, 2} : std::vector{1}) keep.tokens.push_back(t);
      keep.row_begin.push_back(keep.kept()), keep.lengths.push_back(lengths[static_cast<std::size_t>(b)]);
    }
  host ctx;
  std::vector<std::int32_t> tgt(12, -1), src(12, -1);
  auto const write = [&] {
    auto const plan = plan_moves(ctx, cache, keep, compaction::fill_holes);
    return engines::sglang::write_locations(cache, plan, tgt.data(), src.data());
  };
  REQUIRE(write() == 2);  // of sequence 0 slot 2 into 0, of sequence 1 slot 1 into 0
  CHECK((src[0] == 2 && tgt[0] == 4 && src[1] == 11 && tgt[1] == 30 && src[2] == -1));
  for (auto const& lasts : {std::vector<std::size_t>{3}, {7, 9}}) {  // of head 1 in layer 0; of both heads in layer 1
    for (std::size_t const i : lasts) keep.tokens[i] = 3;
    CHECK(says(refused(write), "moves other tokens than head 0 in layer 0, and SGLang moves all alike"));
    for (std::size_t const i : lasts) keep.tokens[i] = 2;
  }
}

TEST_CASE("engines: a request of no tokens is an empty view for LMCache") {
  std::int32_t lengths[] = {0, 0};
  pages::sizes const s{.page_size = 0, .heads = 2, .head_dim = 16, .layers = 2};
  auto const cache = engines::lmcache::view(nullptr, nullptr, s, lengths);
  host ctx;
  auto const keep = plan(ctx, presets::streaming_llm(), contents(cache), {.tokens_per_head = 4, .layer_count = 2});
  CHECK(engines::lmcache::expect_preserved(keep, 4) == 0);
  CHECK(compact(ctx, cache, keep).length(1, 0) == 0);
  lengths[1] = 1;
  CHECK(refused([&] { validate(cache); }) != "accepted");
}

}  // namespace engines_messages_test
