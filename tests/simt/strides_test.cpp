// SPDX-License-Identifier: Apache-2.0
// Strides of evidence on a device, which cannot see where the only row of a sequence lies: each must step over a row
// and stay within 64 bits. And a cache without heads, which every verb leaves alone.
#include <limits>

#include <kvevict/cuda.cuh>
#include <kvevict/kvevict.hpp>

#include "simt/device_cache.hpp"
#include "support/batch_cache.hpp"
#include "support/catch.hpp"
#include "support/gate_case.hpp"
#include "support/keep_sets.hpp"

namespace strides_test {

using namespace simt_test;
using namespace support;
using Catch::Contains;
namespace cuda = kvevict::cuda;
namespace presets = kvevict::presets;

namespace {

constexpr kvevict::budget twenty{.tokens_per_head = 20};
constexpr std::int64_t wrong[] = {0, 1, -32, std::numeric_limits<std::int64_t>::min(),
                                  std::numeric_limits<std::int64_t>::max()};

template <class Call> void refuses(cuda::device& ctx, Call call, std::string const& what) {
  CHECK_THAT(refusal([&] { call(), ctx.wait(); }), Contains(what) && Contains("; ") && Contains("stride"));
}

}  // namespace

TEST_CASE("strides on a device: of one row that lies behind others, all kinds of evidence") {
  batch const in = random_batch(83, {.Hq = 4, .H = 2, .D = 8, .N = {40}});
  layouts::cache<std::int32_t> cache(layouts::layout::nhd, cache_shape_of(in));
  fill(cache, in);
  cache.view = cache.view.with_capability({.masked = true});  // a gate keeps ragged sets
  device_cache<std::int32_t> copy(cache);
  auto const& view = copy.view;
  device_memory memory;
  cuda::device ctx{default_stream()};
  auto const one_row = presets::snapkv({.window = 1, .pool = 1});
  attention const rows = last_rows(in, 3);
  std::int32_t const begin[] = {2, 3};
  auto const last = [&](auto r) {
    r.row_begin = begin;
    return on_device_rows(memory, r, 1);
  };
  auto const queries = last(rows.queries());
  auto const weights = last(rows.rows());
  float const* const lse = memory.put(rows.lse);
  gate_case const gate({.N = {40}, .H = 2});
  auto const by_gate = presets::attention_gate(on_device_gate(memory, gate.weights()));
  auto const states = on_device_rows(memory, gate.states({0}, {40}).rows(), 1);
  cuda::keep_set keep;
  for (std::int64_t const stride : wrong) {
    CAPTURE(stride);
    bool const ahead = stride >= 40;
    auto q = queries;
    q.token_stride = stride;
    refuses(
        ctx, [&] { kvevict::plan(ctx, one_row, kvevict::prompt(view, q), twenty, keep); },
        ahead ? "queries are " : "queries of 8 elements are ");
    auto w = weights;
    w.token_stride = stride;
    refuses(
        ctx, [&] { kvevict::plan(ctx, one_row, kvevict::prompt(view, w), twenty, keep); },
        ahead ? "softmax rows are " : "softmax rows of 40 elements are ");
    auto x = states;
    x.token_stride = stride;
    refuses(
        ctx, [&] { kvevict::plan(ctx, by_gate, kvevict::prompt(view, x), twenty, keep); }, "a token_stride of ");
    if (stride == 1) continue;
    refuses(
        ctx,
        [&] { kvevict::plan(ctx, one_row, kvevict::prompt(view, queries).with_lse(lse, stride, 1), twenty, keep); },
        ahead ? "LSEs are " : "LSEs of 1 elements are ");
  }
}

TEST_CASE("no heads on a device: nothing is planned, moved or freed") {
  batch const in = random_batch(85, {.Hq = 4, .H = 2, .D = 8, .N = {40, 30}});
  layouts::cache<std::int32_t> cache(layouts::layout::nhd, cache_shape_of(in));
  fill(cache, in);
  device_cache<std::int32_t> copy(cache);
  auto const bytes = copy.snapshot();
  auto view = copy.view;
  view.pages.heads = 0;
  device_memory memory;
  cuda::device ctx{default_stream()};
  attention const rows = all_rows(in);
  cuda::keep_set keep;
  auto const check = [&](auto const& policy, auto const& e) {
    kvevict::plan(ctx, policy, e, twenty, keep);
    cuda::compacted<std::int32_t> done;
    kvevict::compact(ctx, view, keep, kvevict::compaction::stable, done);
    done.wait(ctx);
    CHECK((done.lengths().empty() && done.freed_pages().empty() && done.freed_pages(1).empty()));
    kvevict::replace(ctx, view, keep, nullptr);
    ctx.wait();
  };
  auto const q = on_device_rows(memory, rows.queries(), 2);
  auto const w = on_device_rows(memory, rows.rows(), 2);
  check(presets::snapkv({.window = 8, .pool = 3}), kvevict::prompt(view, q));
  check(presets::snapkv({.window = 8, .pool = 3}), kvevict::prompt(view, w));
  check(presets::h2o(), kvevict::prompt(view, q));
  check(presets::h2o(), kvevict::prompt(view, w));
  check(presets::ada_snapkv({.window = 8, .pool = 3}), kvevict::prompt(view, q));
  check(presets::keydiff(), kvevict::contents(view));
  CHECK((copy.snapshot() == bytes));
}

}  // namespace strides_test
