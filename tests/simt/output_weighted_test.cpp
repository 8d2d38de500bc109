// SPDX-License-Identifier: Apache-2.0
// Norms through W_O on a device, of floats, codes and a component, and CriticalKV's halves.
#include "simt/scores_alike.hpp"
#include "support/law_evidence.hpp"

namespace output_weighted_test {

using namespace simt_test;
namespace score = kvevict::score;

namespace {

auto const weighted = kvevict::policy{score::output_weighted{score::window_attention{8, {5}}}, kvevict::protect{0, 8}};

}  // namespace

TEST_CASE("a device weighs by norms through W_O as the host does, in every layout") {
  batch const in = random_batch(611, {.Hq = 6, .H = 2, .D = 20, .N = {70, 33}, .future = 0});
  attention const rows = all_rows(in);
  reference::generator random(3);
  std::vector<float> const wo = random.normals<float>(120 * 13);  // (13, Hq·D)
  std::vector<std::uint16_t> bf16;
  for (float const x : wo) bf16.push_back(static_cast<std::uint16_t>(kvevict::bits::as_uint(x) >> 16));
  for (layouts::layout const l : layouts::all) {
    layouts::cache_shape shape = cache_shape_of(in);
    shape.type = l == layouts::layout::nhd ? kvevict::dtype::f16 : kvevict::dtype::f32;
    with_cache(l, shape, in, [&](auto& cache) {
      CAPTURE(cache.name());
      for (bool const narrow : {false, true}) {
        if (narrow && l != layouts::layout::hnd) continue;
        scores_alike(cache, weighted, [&](auto& on, auto const& view) {
          kvevict::projection out{narrow ? static_cast<void const*>(on.put(bf16)) : on.put(wo), 13, 1, 120};
          out.type = narrow ? kvevict::dtype::bf16 : kvevict::dtype::f32;
          return prompt(view, on.rows(rows.queries())).with_output(out);
        });
      }
    });
  }
}

TEST_CASE("a device reads norms that the cache holds") {
  batch const in = random_batch(612, {.Hq = 4, .H = 2, .D = 8, .N = {40, 33}, .future = 0});
  attention const rows = all_rows(in);
  layouts::cache_shape shape = cache_shape_of(in);
  shape.state_floats = 2;
  with_cache(layouts::layout::head_pages, shape, in, [&](auto& cache) {
    cache.fill(role::state, [](int b, int h, int t, int g) { return 1 + b + h + t % 7 + g; });
    for (auto& c : cache.view.components)
      if (c.what == role::state) c.what = role::output_norm;
    auto by_share = weighted;
    by_share.score.by = score::output_norms::share_of_heads;
    for (auto const& policy : {weighted, by_share})
      scores_alike(cache, policy, [&](auto& on, auto const& view) { return prompt(view, on.rows(rows.queries())); });
  });
}

TEST_CASE("a device keeps CriticalKV's halves, and says the same words without norms") {
  room r;
  attention const rows = all_rows(r.in);
  auto const wo = law_output(8);
  for (auto const& policy : {presets::criticalkv({.window = 8}), presets::criticalkv({.window = 8, .pool = 1})}) {
    plans_alike(r, policy, rows.queries(), "output_weighted: nothing says how large values are");
    std::vector<std::int32_t> kept[2];
    kvevict::host host;
    kept[0] = plan(host, policy, prompt(r.cache.view, rows.queries()).with_output(wo.on_host()), twenty).tokens;
    on_gpu gpu;
    device_cache<std::int32_t> there(r.cache);
    auto const e = prompt(there.view, gpu.rows(rows.queries())).with_output(wo.at(gpu.put(wo.weights)));
    kept[1] = plan(gpu.ctx, policy, e, twenty).read(gpu.ctx).tokens;
    CHECK(kept[0] == kept[1]);
  }
}

}  // namespace output_weighted_test
