// SPDX-License-Identifier: Apache-2.0
// Keys in two tensors (MLA): a latent part that is also the value, a rotary part, one row for all query heads. Scores,
// plans and compaction, in both contexts, equal those of a cache whose keys are whole.
#include "simt/same_words.hpp"

namespace mla_test {

using namespace simt_test;
using kvevict::dtype;

namespace {

/// One KV head with keys of D elements, the last `rotary` of which lie in a tensor of their own.
struct mla {
  std::size_t D, rotary;
  batch in;
  layouts::cache<std::int32_t> whole, latent, rope;  // same table, same positions
  kvevict::layer_view<std::int32_t> view;            // of latent and rope

  static layouts::cache_shape shape(batch const& in, std::size_t width) {
    layouts::cache_shape s = cache_shape_of(in);
    s.head_dim = static_cast<std::int32_t>(width), s.state_floats = 1;
    return s;
  }
  mla(std::uint64_t seed, std::size_t d, std::size_t second)
      : D(d),
        rotary(second),
        in(random_batch(seed, {.Hq = 16, .H = 1, .D = d, .N = {50, 33}}, 0.7)),
        whole(layout::token_pool, shape(in, d)),
        latent(layout::token_pool, shape(in, d - second)),
        rope(layout::token_pool, shape(in, second)),
        view(latent.view) {
    fill(whole, in);
    whole.fill(role::state, [](int, int, int, int) { return 0; });
    latent.fill(role::state, [](int, int, int, int) { return 0; });
    auto const key = [&](int b, int t, std::size_t i) {
      return static_cast<float>(in.layers[static_cast<std::size_t>(b)].keys.at(0, static_cast<std::size_t>(t), i));
    };
    latent.fill(role::k, [&](int b, int, int t, int i) { return key(b, t, static_cast<std::size_t>(i)); });
    rope.fill(role::k, [&](int b, int, int t, int i) { return key(b, t, D - rotary + static_cast<std::size_t>(i)); });
    view.component_count = 0;
    kvevict::component k = *latent.view.find(role::k), v = k, r = *rope.view.find(role::k);
    v.what = role::v, v.alias_of = 0, r.what = role::rope;
    view = view.with(k).with(v).with(r).with(*latent.view.find(role::position)).with(*latent.view.find(role::state));
  }
};

}  // namespace

TEST_CASE("keys in two tensors give the scores of whole keys") {
  for (auto const& [D, rotary] : {std::pair<std::size_t, std::size_t>{48, 16}, {576, 64}, {24, 8}}) {
    mla c(3 + D, D, rotary);
    attention const rows = all_rows(c.in);
    kvevict::host ctx;
    CAPTURE(D, rotary);
    auto const both = [&](auto const& policy, auto const& evidence) {
      std::vector<float> of_whole, of_parts;
      scores(ctx, policy, evidence(c.whole.view), twenty, of_whole);
      scores(ctx, policy, evidence(c.view), twenty, of_parts);
      CHECK(of_whole == of_parts);
      CHECK(plan(ctx, policy, evidence(c.whole.view), twenty).tokens ==
            plan(ctx, policy, evidence(c.view), twenty).tokens);
    };
    both(snapkv, [&](auto const& v) { return prompt(v, rows.queries()); });
    both(snapkv,
         [&](auto const& v) { return prompt(v, rows.queries()).with_lse(rows.lse.data(), rows.lse_stride(), 1); });
    both(kvevict::presets::tova(),  // few rows
         [&](auto const& v) { return prompt(v, rows.queries()).with_lse(rows.lse.data(), rows.lse_stride(), 1); });
    both(h2o, [&](auto const& v) { return prompt(v, rows.queries()); });
  }
}

TEST_CASE("a device scores, plans and compacts keys in two tensors as the host does") {
  for (std::size_t const D : {std::size_t{48}, std::size_t{576}}) {
    mla c(5, D, D == 48 ? 16 : 64);
    attention const rows = all_rows(c.in);
    CAPTURE(D);
    // one pool for all parts, which a device_cache copies
    layouts::cache_shape s = mla::shape(c.in, D);
    layouts::cache<std::int32_t> there(layout::token_pool, s);
    fill(there, c.in);
    there.fill(role::state, [](int, int, int, int) { return 0; });
    kvevict::component k = *there.view.find(role::k), v = k, r = k;
    std::int32_t const first = static_cast<std::int32_t>((D - c.rotary) * 4);
    k.rows.run_bytes = v.rows.run_bytes = first, v.what = role::v, v.alias_of = 0;
    r.what = role::rope, r.rows.offset += first, r.rows.run_bytes = static_cast<std::int32_t>(c.rotary * 4);
    auto const old = there.view;
    there.view.component_count = 0;
    there.view = there.view.with(k).with(v).with(r).with(*old.find(role::position)).with(*old.find(role::state));
    kvevict::host ctx;
    for (bool const lse : {false, true}) {
      auto const evidence = [&](auto const& view, auto const& q) { return prompt(view, q); };
      auto const keep = plan(ctx, snapkv, evidence(there.view, rows.queries()), twenty);
      device_cache<std::int32_t> moved(there);
      cuda::device on(default_stream());
      device_memory memory;
      kvevict::query_rows q = rows.queries();
      if (lse) q.lse = rows.lse.data(), q.lse_token_stride = rows.lse_stride(), q.lse_head_stride = 1;
      q = on_device_rows(memory, q, 2);
      cuda::keep_set out;
      if (lse)
        kvevict::plan(on, snapkv, prompt(moved.view, q).with_lse(q.lse, q.lse_token_stride, 1), twenty, out);
      else
        kvevict::plan(on, snapkv, prompt(moved.view, q), twenty, out);
      CHECK(out.read(on).tokens == keep.tokens);
      if (lse)
        alike(there, "", [&](auto& both, auto const& view) { both.compact(view, keep, kvevict::compaction::stable); });
    }
  }
}

TEST_CASE("queries for half a key are refused") {
  mla c(9, 48, 16);
  attention rows = all_rows(c.in);
  kvevict::host ctx;
  auto q = rows.queries();
  q.head_dim = 32;
  CHECK_THROWS_WITH(plan(ctx, snapkv, prompt(c.view, q), twenty),
                    Catch::Contains("queries have 32 elements a head and keys 32 in k and 16 in rope"));
}

}  // namespace mla_test
