// SPDX-License-Identifier: Apache-2.0
// Quantised rows on a device: the host's scores, keep sets and compaction, of every kind of scale; what a function of
// the host's decodes is refused.
#include "simt/same_words.hpp"
#include "support/quantised_case.hpp"

namespace quantised_test {

using namespace simt_test;
namespace q = quantised_case;

namespace {

constexpr auto keydiff = presets::keydiff({.sinks = 2, .recent = 5});
constexpr auto lagkv = presets::lagkv({.lag = 5, .sinks = 2});
constexpr auto tova = presets::tova();

bool is_decoded_by_host(q::format const& f) { return f.describe({}).quant.decode != nullptr; }

/// f(cache, batch) with every format a device reads, each in another layout.
template <class F> void for_each_case(F f) {
  std::size_t turn = 0;
  for (q::format const& is : q::formats()) {
    if (is_decoded_by_host(is)) continue;
    layout l = layouts::all[turn++ % std::size(layouts::all)];
    while (is.one_run && !q::has_one_run(l)) l = layouts::all[turn++ % std::size(layouts::all)];
    batch in = random_batch(13, {.Hq = 4, .H = 2, .D = q::D, .N = {40, 30}}, 0.4);
    layouts::with_layout(l, q::shape_of(cache_shape_of(in), is), [&](auto& cache) {
      q::quantise(cache, is, 19);
      q::take_numbers(cache, is, in);
      CAPTURE(is.name, cache.name());
      f(cache, in);
    });
  }
}

/// Scores within 1e-5, relative or absolute, and the same keep set, by both contexts.
template <class Cache, class Policy, class Evidence>
void plans_alike(Cache& cache, Policy const& policy, Evidence const& evidence) {
  on_host host;
  std::vector<float> want, got;
  scores(host.ctx, policy, evidence(host, cache.view), twenty, want);
  auto const keep = plan(host.ctx, policy, evidence(host, cache.view), twenty);
  device_cache<typename std::decay_t<decltype(cache.view)>::table_entry> there(cache);
  on_gpu gpu;
  scores(gpu.ctx, policy, evidence(gpu, there.view), twenty, got);
  REQUIRE(got.size() == want.size());
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < got.size(); ++i)
    wrong += !(std::abs(got[i] - want[i]) <= 1e-5f * std::max(std::abs(want[i]), 1.0f));
  CHECK(wrong == 0);
  cuda::keep_set out;
  plan(gpu.ctx, policy, evidence(gpu, there.view), twenty, out);
  CHECK(out.read(gpu.ctx).tokens == keep.tokens);
}

}  // namespace

TEST_CASE("a device scores quantised keys by queries as the host does") {
  for_each_case([](auto& cache, batch const& in) {
    attention const rows = all_rows(in);
    auto const by_queries = [&](auto& on, auto const& view) { return prompt(view, on.rows(rows.queries())); };
    auto const with_lse = [&](auto& on, auto const& view) {
      kvevict::query_rows given = rows.queries();
      given.lse = rows.lse.data(), given.lse_token_stride = rows.lse_stride(), given.lse_head_stride = 1;
      given = on.rows(given);
      return prompt(view, given).with_lse(given.lse, given.lse_token_stride, 1);
    };
    plans_alike(cache, snapkv, by_queries), plans_alike(cache, snapkv, with_lse);
    plans_alike(cache, h2o, with_lse), plans_alike(cache, ahakv, by_queries), plans_alike(cache, tova, by_queries);
  });
}

TEST_CASE("a device reads quantised rows without queries as the host does, and moves their bytes") {
  for_each_case([](auto& cache, batch const&) {
    auto const nothing = [](auto&, auto const& view) { return contents(view); };
    plans_alike(cache, keydiff, nothing), plans_alike(cache, lagkv, nothing);
    kvevict::host ctx;
    auto const keep = plan(ctx, keydiff, contents(cache.view), twenty);
    alike(cache, "", [&](auto& on, auto const& view) { on.compact(view, keep, kvevict::compaction::stable); });
  });
}

TEST_CASE("a device refuses what a function decodes, and moves it") {
  batch const in = random_batch(13, {.Hq = 4, .H = 2, .D = q::D, .N = {40, 30}}, 0.4);
  for (q::format const& is : q::formats()) {
    if (!is_decoded_by_host(is)) continue;
    layouts::with_layout(layout::hnd, q::shape_of(cache_shape_of(in), is), [&](auto& cache) {
      q::quantise(cache, is, 19);
      kvevict::host host;
      auto const keep = plan(host, keydiff, contents(cache.view), twenty);
      device_cache<typename std::decay_t<decltype(cache.view)>::table_entry> there(cache);
      on_gpu gpu;
      auto const before = there.snapshot();
      cuda::keep_set out;
      CHECK(refusal([&] {
              plan(gpu.ctx, keydiff, contents(there.view), twenty, out);
            }).find("leave quant.decode out") != std::string::npos);
      CHECK(there.snapshot() == before);
      alike(cache, "", [&](auto& on, auto const& view) { on.compact(view, keep, kvevict::compaction::stable); });
      for (auto& c : there.view.components) c.quant.decode = nullptr;
      plan(gpu.ctx, streaming, contents(there.view), twenty, out);
      CHECK(!out.read(gpu.ctx).refused);
    });
  }
}

TEST_CASE("a latent part of codes and a rotary part of floats are one key") {
  // DeepSeek's row: 64 e4m3, four f32 scales of 16 elements each, 16 bf16
  constexpr int L = 64, R = 16, row = L + 16 + 2 * R;
  batch in = random_batch(29, {.Hq = 8, .H = 1, .D = L + R, .N = {40, 30}}, 0.4);
  layouts::cache_shape shape = cache_shape_of(in);
  shape.head_dim = row, shape.type = kvevict::dtype::opaque;
  layouts::cache<std::int32_t> cache(layout::token_pool, shape), whole(layout::token_pool, cache_shape_of(in));
  auto const old = cache.view;
  kvevict::component k = *old.find(role::k), scales = k, v, rope = k;
  k.rows.run_bytes = L;
  k = kvevict::quantised::by_component(k, kvevict::dtype::fp8_e4m3, kvevict::quant_scope::token_head_group,
                                       kvevict::dtype::f32, 16);
  v = k, v.what = role::v, v.alias_of = 0;
  scales.what = role::k_scale, scales.type = kvevict::dtype::f32;
  scales.rows.offset += L, scales.rows.run_bytes = 16;
  rope.what = role::rope, rope.type = kvevict::dtype::bf16, rope.rows.offset += L + 16, rope.rows.run_bytes = 2 * R;
  cache.view.component_count = 0;
  cache.view = cache.view.with(k).with(v).with(scales).with(rope).with(*old.find(role::position));
  reference::generator random(3);
  cache.for_each_slot([&](int b, int h, int t) {
    std::vector<q::byte> bytes(row);
    q::random_floats(bytes.data(), 0x30, 0x18, random);
    for (int i = 0; i < 4; ++i) q::put_f32(bytes.data() + L + 4 * i, random.uniform(0.2, 0.5));
    for (int i = 0; i < R; ++i) q::put_bf16(bytes.data() + L + 16 + 2 * i, random.normal());
    q::put_bytes(cache.view, *old.find(role::k), b, h, t, bytes);
    auto& keys = in.layers[static_cast<std::size_t>(b)].keys;
    for (int d = 0; d < L + R; ++d)
      keys.at(0, static_cast<std::size_t>(t), static_cast<std::size_t>(d)) =
          d < L ? static_cast<double>(static_cast<float>(q::e4m3(bytes[static_cast<std::size_t>(d)]) *
                                                         q::f32_at(bytes.data() + L + d / 16 * 4)))
                : q::bf16_at(bytes.data() + L + 16 + 2 * (d - L));
  });
  fill(whole, in);
  attention const rows = all_rows(in);
  auto const by_queries = [&](auto& on, auto const& view) { return prompt(view, on.rows(rows.queries())); };
  plans_alike(cache, snapkv, by_queries), plans_alike(cache, h2o, by_queries);
  kvevict::host ctx;
  std::vector<float> of_parts, of_whole;
  scores(ctx, snapkv, prompt(cache.view, rows.queries()), twenty, of_parts);
  scores(ctx, snapkv, prompt(whole.view, rows.queries()), twenty, of_whole);
  CHECK(of_parts == of_whole);
}

}  // namespace quantised_test
