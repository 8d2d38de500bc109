// SPDX-License-Identifier: Apache-2.0
// A stack of layers on a device: the same bytes as layer by layer, in the launches of one layer.
#include <kvevict/cuda.cuh>

#include "simt/device_stack.hpp"
#include "support/catch.hpp"
#include "support/keep_sets.hpp"

namespace stack_test {

using namespace simt_test;
using namespace support;
namespace cuda = kvevict::cuda;

namespace {

constexpr std::int32_t L = 3;

auto const ada = kvevict::presets::ada_pyramidkv({.window = 8, .pool = 5});
auto const h2o = kvevict::presets::h2o({.recent = 5});

/// observe → plan → compact of one view; what h2o has observed is planned, moved with the tokens, and not read again.
template <class View>
std::int64_t run(cuda::device& ctx, View const& view, attention const& rows, kvevict::budget const& ask) {
  device_memory memory;
  auto const queries = on_device_rows(memory, rows.queries(), view.sequences());
  cuda::keep_set keep;
  cuda::compacted<std::int32_t> done;
  kvevict::observe(ctx, h2o, kvevict::prompt(view, queries), ask);
  if (view.pages.per_head())
    kvevict::plan(ctx, ada, kvevict::prompt(view, queries), ask, keep);
  else
    kvevict::plan(ctx, h2o, kvevict::remembered(view), ask, keep);
  compact(ctx, view, keep, kvevict::compaction::stable, done);
  if (ctx.is_dry()) return 0;
  done.wait(ctx);
  return done.bytes_moved();
}

}  // namespace

TEST_CASE("a stack of layers on a device moves what its layers move, in the launches of one layer") {
  batch const in = random_batch(52, {.Hq = 4, .H = 2, .D = 16, .N = {36, 36, 36, 36, 36, 36}, .future = 0});
  kvevict::budget const ask{.tokens_per_head = 17, .layer_count = L};
  for (placed const where : {placed::layers_apart, placed::layer_in_page, placed::own_tables})
    for (bool const heads_apart : {true, false}) {
      CAPTURE(int(where), heads_apart);
      stack host(in, L, where, heads_apart);
      device_stack together(host), apart(host);
      cuda::device ctx(default_stream());
      attention const rows = all_rows(in), one = all_rows(layer_of(in, 0, L));
      std::int64_t const bytes = run(ctx, together.whole(), rows, ask);
      std::int64_t sum = 0;
      for (std::int32_t l = 0; l < L; ++l) {
        kvevict::budget of = ask;
        of.layer = l;
        sum += run(ctx, apart.layer(l), all_rows(layer_of(in, static_cast<std::size_t>(l), L)), of);
      }
      CHECK(bytes == sum);
      CHECK((together.pool() == apart.pool()));
      CHECK((together.pool() != host.pool));
      auto const launches = [&](auto const& view, attention const& shown) {
        return cuda::device::try_out(default_stream(), [&](cuda::device& dry) { run(dry, view, shown, ask); })
            .steps.size();
      };
      CHECK(launches(together.whole(), rows) == launches(apart.layer(0), one));
    }
}

TEST_CASE("a page that two layers of a stack would write is refused on a device") {
  batch const in = random_batch(53, {.Hq = 4, .H = 2, .D = 16, .N = {36, 36, 36}, .future = 0});
  attention const rows = all_rows(in);
  auto const refused = [&](stack& host, auto change) {
    device_stack there(host);
    auto view = there.whole();
    change(view);
    cuda::device ctx(default_stream());
    std::string const message = refusal([&] { run(ctx, view, rows, {.tokens_per_head = 17, .layer_count = L}); });
    INFO(message);
    CHECK((there.pool() == host.pool));
    return message;
  };
  stack own(in, L, placed::own_tables, true), apart(in, L, placed::layers_apart, true);
  own.table[static_cast<std::size_t>(own.columns * 5)] = own.table[0];
  CHECK(refused(own, [](auto&) {}).find("would be written by both") != std::string::npos);
  CHECK(refused(apart, [](auto& v) { v.components[1].rows.layer_stride = 0; }).find("would be written by both") !=
        std::string::npos);
}

}  // namespace stack_test
