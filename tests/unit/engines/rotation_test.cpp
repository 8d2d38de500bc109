// SPDX-License-Identifier: Apache-2.0
// What turned the keys of an engine's cache: each adapter says what its engine does, and takes another word for it.
#include <kvevict/cache/unrotated_reader.hpp>
#include <kvevict/cache/validate.hpp>
#include <kvevict/engines/contiguous.hpp>
#include <kvevict/engines/flashinfer.hpp>
#include <kvevict/engines/lmcache.hpp>
#include <kvevict/engines/sglang.hpp>
#include <kvevict/engines/tensorrt_llm.hpp>
#include <kvevict/engines/vllm.hpp>

#include "support/catch.hpp"
#include "support/engine_structs.hpp"

namespace engines_rotation_test {

using namespace kvevict;
namespace engines = kvevict::engines;

namespace {

std::int32_t table[] = {0, 1}, lengths[] = {3}, indptr[] = {0, 1}, last[] = {3};
alignas(16) std::byte memory[4096];
pages::sizes const s{.pages = 2, .page_size = 8, .heads = 2, .head_dim = 8, .type = dtype::f16};

/// The cache of every adapter whose keys were turned by that; without a word where it is unsaid.
std::vector<std::pair<std::string, pages::kv>> all(rotation by) {
  bool const own = by == rotation::unsaid;
  std::vector<std::pair<std::string, pages::kv>> out;
  auto const add = [&](char const* name, layer_view<> const& v) {
    out.emplace_back(name, pages::kv{*v.find(role::k), *v.find(role::v)});
  };
  engines::vllm::kv_cache kv{.tensor = memory, .shape = s};
  if (!own) kv.keys = by;
  add("vllm", engines::vllm::view(kv, 0, table, 1, 2, lengths));
  add("vllm, stack", engines::vllm::stack(kv, table, 1, 2, lengths));
  void* const m = memory;
  pages::sizes const tokens{2, 1, 2, 8, dtype::f16};
  namespace sglang = engines::sglang;
  out.emplace_back("sglang", own ? sglang::token_pool(m, m, tokens) : sglang::token_pool(m, m, tokens, by));
  out.emplace_back("sglang, hnd", own ? sglang::hnd(m, m, s) : sglang::hnd(m, m, s, by));
  out.emplace_back("sglang, 5d", own ? sglang::vectorized_5d(m, m, s) : sglang::vectorized_5d(m, m, s, by));
  engine_structs::paged_kv<f16> const paged{
      {8}, 2, 8, 1, 128, 16, 8, 128, 16, 8, static_cast<f16*>(m), static_cast<f16*>(m), table, indptr, last};
  namespace flashinfer = engines::flashinfer;
  add("flashinfer", own ? flashinfer::view(paged, dtype::f16, 2) : flashinfer::view(paged, dtype::f16, 2, 0, {}, by));
  auto const* const ids = reinterpret_cast<engine_structs::cache_index const*>(table);
  engine_structs::block_array const blocks{2, 8, 256, 0, 0, m, ids};
  namespace trt = engines::tensorrt_llm;
  add("tensorrt_llm", own ? trt::view(blocks, s, 1, lengths) : trt::view(blocks, s, 1, lengths, by));
  add("contiguous",
      own ? engines::contiguous::view(m, m, s, lengths) : engines::contiguous::view(m, m, s, lengths, by));
  add("contiguous, by head", own ? engines::contiguous::view_by_head(m, m, s, lengths)
                                 : engines::contiguous::view_by_head(m, m, s, lengths, by));
  engines::contiguous::strides const apart{128, 64, 8};
  add("contiguous, strided", own ? engines::contiguous::view(m, m, s, lengths, apart)
                                 : engines::contiguous::view(m, m, s, lengths, apart, by));
  add("lmcache", own ? engines::lmcache::view(m, m, s, lengths) : engines::lmcache::view(m, m, s, lengths, by));
  return out;
}

}  // namespace

TEST_CASE("engines: adapters say that their engine's keys were turned by a rope, and values by nobody") {
  for (auto const& [name, both] : all(rotation::unsaid)) {
    CAPTURE(name);
    CHECK(both.k.turned_by == rotation::rope);
    CHECK(both.v.turned_by == rotation::unsaid);
    CHECK_NOTHROW(contract::expect_turned("my_score", both.k, rope{10000}));
  }
  for (rotation const by : {rotation::none, rotation::opaque})
    for (auto const& [name, both] : all(by)) {
      CAPTURE(name);
      CHECK(both.k.turned_by == by);
      CHECK(both.v.turned_by == rotation::unsaid);
    }
}

TEST_CASE("engines: of latent rows, a part of which is turned, nothing is said, or of each part what is so") {
  pages::sizes const latent{
      .pages = 2, .page_size = 1, .heads = 1, .head_dim = 24, .type = dtype::f16, .v_head_dim = 16};
  auto const whole = engines::sglang::mla(memory, latent);
  CHECK(whole.k.turned_by == rotation::unsaid);
  auto const parts = engines::sglang::mla_parts(memory, latent);
  CHECK(parts.latent.k.turned_by == rotation::none);
  CHECK(parts.rotary.turned_by == rotation::rope);
  std::int32_t const tokens[] = {2};
  auto const all = pages::view(pages::dense(table, 1, 2, latent), {tokens}, whole),
             view = pages::view(pages::dense(table, 1, 2, latent), {tokens}, parts.latent).with(parts.rotary);
  CHECK_NOTHROW(validate(view));
  CHECK(view.key_width() == all.key_width());
  for (int t = 0; t < 2; ++t) {
    CHECK(view.row(parts.latent.k, 0, 0, t) == all.row(whole.k, 0, 0, t));
    CHECK(view.row(parts.latent.v, 0, 0, t) == all.row(whole.v, 0, 0, t));
    CHECK(view.row(parts.rotary, 0, 0, t) == all.row(whole.k, 0, 0, t) + 16 * 2);
  }
  CHECK(parts.latent.k.rows.row_bytes() + parts.rotary.rows.row_bytes() == whole.k.rows.row_bytes());
  CHECK_NOTHROW(contract::expect_turned("my_score", parts.rotary, rope{10000}));
  CHECK_THROWS_AS(engines::sglang::mla_parts(memory, {.pages = 2, .head_dim = 24, .v_head_dim = 24}),
                  contract_violation);
}

}  // namespace engines_rotation_test
