// SPDX-License-Identifier: Apache-2.0
// Window scores and column sums on a device against the host, in every variant; what is refused.
#include <cmath>

#include <kvevict/cuda/attention/attention.hpp>
#include <kvevict/cuda/attention/softmax_rows.hpp>
#include <kvevict/cuda/evidence/validate.hpp>
#include <kvevict/cuda/scores/each.hpp>
#include <kvevict/kernels/host.hpp>
#include <kvevict/layers/layers.hpp>

#include "simt/device_cache.hpp"
#include "support/batch_cache.hpp"
#include "support/catch.hpp"
#include "support/gate_case.hpp"
#include "support/keep_sets.hpp"

namespace attention_test {

using namespace simt_test;
using namespace support;
namespace cuda = kvevict::cuda;
namespace kernels = kvevict::kernels;
using kvevict::dtype;

namespace {

struct variant {
  shape sizes{.Hq = 4, .H = 2, .D = 32, .N = {70, 0, 33}, .future = 0};
  dtype keys = dtype::f32, queries = dtype::f32;
  bool lse = false, base_two = false, all_rows = false;  // all_rows: column sums
  bool honest = false;                                   // the true LSE: weights must add up to one
  float softcap = 0;
  kvevict::window_options o{8};
  kvevict::pool_options pool_after{};  // in a call of its own
  std::uint64_t schedule = 0;
  layouts::layout layout = layouts::layout::hnd;
};

/// The scores of both contexts, zeros where a row is inactive.
struct both {
  std::vector<float> host, device;
};

template <class Cache> both run(variant const& v, Cache& cache, batch const& in, bool weights = false) {
  using entry = typename std::decay_t<decltype(cache.view)>::table_entry;
  attention const rows = all_rows(in);
  std::vector<std::byte> typed;
  for (float const x : rows.q) {
    double stored = x;
    append(typed, v.queries, stored);
  }
  std::vector<float> lse = rows.lse;
  // else larger than the true one: no weight is above 1
  for (float& x : lse) x += v.honest ? 0.0f : 0.5f, x *= v.base_two ? 1.44269504f : 1.0f;
  kvevict::query_rows q = rows.queries();
  q.data = typed.data(), q.type = v.queries, q.softcap = v.softcap;
  if (v.lse)
    q.lse = lse.data(), q.lse_token_stride = rows.lse_stride(), q.lse_head_stride = 1,
    q.sum = v.honest ? kvevict::row_sum::one : kvevict::row_sum::at_most_one,
    q.base = v.base_two ? kvevict::log_base::two : kvevict::log_base::e;
  auto const sum = [&](auto& ctx, auto const& view, auto const& given, kvevict::score_rows& out) {
    if (v.all_rows)
      kernels::column_sums(ctx, view, given, v.o.group, out);
    else
      kernels::window_scores(ctx, view, given, v.o, out);
    kernels::pool(ctx, v.pool_after, out);
  };
  both out;
  auto const with = [&](auto& ctx, auto const& view, auto const& given, std::vector<float>& values) {
    kvevict::frame scratch(ctx.scratch());
    kvevict::protect const keep{0, 3};
    auto s = kernels::plan_rows(ctx, scratch, view, keep, kvevict::layers::uniform{},
                                kvevict::budget{.tokens_per_head = 20}, kvevict::sharing::none);
    sum(ctx, view, given, s);
    kernels::read_scores(ctx, s, values);
  };
  kvevict::host host;
  device_cache<entry> there(cache);
  device_memory memory;
  scheduled const schedule(v.schedule);
  cuda::device ctx(default_stream());
  if (weights) {
    with(host, cache.view, rows.rows(), out.host);
    with(ctx, there.view, on_device_rows(memory, rows.rows(), cache.view.sequences()), out.device);
  } else {
    with(host, cache.view, q, out.host);
    with(ctx, there.view, on_device_rows(memory, q, cache.view.sequences()), out.device);
  }
  return out;
}

both run(variant const& v, std::uint64_t seed, bool weights = false) {
  batch const in = random_batch(seed, v.sizes, 1.0);
  layouts::cache_shape shape = cache_shape_of(in);
  shape.type = v.keys, shape.page_size = 16;
  shape.positions = seed / 4 % 2 == 0 ? 0 : 1;  // rows see by index, or by position
  both out;
  with_cache(v.layout, shape, in, [&](auto& cache) {
    if (v.layout == layouts::layout::pointers && v.keys != dtype::f32) cache.view.pages.alignment = 16;
    out = run(v, cache, in, weights);
  });
  return out;
}

void close(both const& x, double relative = 1e-5) {
  REQUIRE(x.host.size() == x.device.size());
  std::size_t wrong = 0, zeros = 0;
  for (std::size_t i = 0; i < x.host.size(); ++i) {
    wrong += !(std::abs(double{x.device[i]} - x.host[i]) <= relative * std::abs(x.host[i]) + 1e-7);
    zeros += x.host[i] == 0;
  }
  CHECK(wrong == 0);
  CHECK(zeros < x.host.size());
}

}  // namespace

TEST_CASE("window scores on a device: every option, without and with LSE") {
  std::uint64_t seed = 40;
  for (bool const lse : {false, true})
    for (int option = 0; option < 12; ++option) {
      variant v;
      v.lse = lse, v.schedule = static_cast<std::uint64_t>(option % 5);
      switch (option) {
        case 0: break;
        case 1: v.softcap = 2.0f; break;
        case 2: v.base_two = true; break;
        case 3: v.o.reduce = kvevict::row_reduce::sum, v.o.group = kvevict::group_reduce::max; break;
        case 4: v.o.group = kvevict::group_reduce::sum; break;
        case 5: v.o.weights = kvevict::weighting::step_gain; break;
        case 6: v.o.weights = kvevict::weighting::step_gain, v.o.min_gain = 0.7f, v.softcap = 3.0f; break;
        case 7: v.o.pool_before_group = {5, kvevict::pooling::max}; break;
        case 8: v.o.pool_before_group = {3, kvevict::pooling::average}, v.o.group = kvevict::group_reduce::max; break;
        case 9: v.o.rows = 33; break;
        case 10: v.o.rows = 1, v.sizes.Hq = 6; break;
        default: v.o.rows = 20, v.sizes.H = 1; break;
      }
      if (option == 9) v.sizes.N = {70, 0, 40};
      CAPTURE(lse, option);
      close(run(v, ++seed));
    }
}

TEST_CASE("a window's scores pooled at once have the bits of those that are pooled afterwards") {
  std::uint64_t seed = 90;
  for (std::int32_t const width : {3, 7, 33, 35})
    for (kvevict::pooling const kind : {kvevict::pooling::max, kvevict::pooling::average})
      for (int form = 0; form < 3; ++form) {  // query rows, query heads pooled too, softmax rows
        variant v;
        v.sizes.N = {300, 0, 33, 129, 128, 122, 1}, v.lse = v.honest = width == 7, v.schedule = ++seed % 5;
        if (form == 1) v.o.pool_before_group = {3, kvevict::pooling::average};
        variant after = v;
        v.o.pool = after.pool_after = {width, kind};
        CAPTURE(width, static_cast<int>(kind), form);
        both const at_once = run(v, seed, form == 2), afterwards = run(after, seed, form == 2);
        close(at_once);
        CHECK(at_once.device == afterwards.device);
        CHECK(at_once.host == afterwards.host);
      }
}

TEST_CASE("attention on a device: types, head dimensions, layouts") {
  std::uint64_t seed = 80;
  for (auto const keys : {dtype::f32, dtype::bf16, dtype::f16})
    for (auto const queries : {dtype::f32, keys})
      for (std::size_t const D : {8, 40, 64, 96, 128, 160})
        for (bool const columns : {false, true}) {
          variant v;
          v.keys = keys, v.queries = queries, v.all_rows = columns, v.lse = seed / 2 % 2 == 0, v.sizes.D = D,
          v.schedule = seed % 4;
          v.layout = layouts::all[seed % std::size(layouts::all)];
          v.sizes.N = {45, 21};
          CAPTURE(static_cast<int>(keys), static_cast<int>(queries), D, columns, layouts::name_of(v.layout));
          close(run(v, ++seed), 2e-5);
        }
}

TEST_CASE("long rows: several splits of columns, several blocks of query rows") {
  variant v;
  v.sizes = {.Hq = 2, .H = 1, .D = 16, .N = {2300}, .future = 0};
  v.keys = v.queries = dtype::bf16;
  v.o.rows = 4;
  batch in = random_batch(7, v.sizes, 1.0);
  // too long for the naive softmax of every row: the last rows alone
  layouts::cache_shape shape = cache_shape_of(in);
  shape.type = v.keys;
  with_cache(layouts::layout::nhd, shape, in, [&](auto& cache) {
    using entry = typename std::decay_t<decltype(cache.view)>::table_entry;
    for (std::size_t const rows : {std::size_t{4}, std::size_t{1100}}) {
      attention const last = last_queries(in, rows);
      std::vector<std::byte> typed;
      for (float const x : last.q) {
        double stored = x;
        append(typed, v.queries, stored);
      }
      kvevict::query_rows q = last.queries();
      q.data = typed.data(), q.type = v.queries;
      both out;
      auto const with = [&](auto& ctx, auto const& view, auto const& given, std::vector<float>& values) {
        kvevict::frame scratch(ctx.scratch());
        auto s = kernels::plan_rows(ctx, scratch, view, kvevict::protect{}, kvevict::layers::uniform{},
                                    kvevict::budget{.tokens_per_head = 20}, kvevict::sharing::none);
        kernels::window_scores(ctx, view, given, kvevict::window_options{static_cast<std::int32_t>(rows)}, s);
        kernels::read_scores(ctx, s, values);
      };
      kvevict::host host;
      device_cache<entry> there(cache);
      device_memory memory;
      cuda::device ctx(default_stream());
      with(host, cache.view, q, out.host);
      with(ctx, there.view, on_device_rows(memory, q, 1), out.device);
      CAPTURE(rows);
      close(out, 2e-5);
    }
  });
}

TEST_CASE("scores on a device do not depend on schedule, page size and layout") {
  variant v;
  v.keys = v.queries = dtype::bf16, v.sizes.D = 64;
  std::vector<float> first;
  for (auto const layout : {layouts::layout::hnd, layouts::layout::nhd, layouts::layout::bnsh,
                            layouts::layout::token_pool, layouts::layout::pointers})
    for (std::uint64_t schedule = 0; schedule < 4; ++schedule) {
      v.layout = layout, v.schedule = schedule;
      auto const got = run(v, 99).device;
      if (first.empty()) first = got;
      CAPTURE(layouts::name_of(layout), schedule);
      CHECK(got == first);
    }
}

TEST_CASE("softmax rows on a device") {
  std::uint64_t seed = 300;
  for (int option = 0; option < 6; ++option) {
    variant v;
    v.schedule = static_cast<std::uint64_t>(option);
    if (option == 1) v.o.group = kvevict::group_reduce::max, v.o.reduce = kvevict::row_reduce::sum;
    if (option == 2) v.o.rows = 1;
    if (option == 3) v.o.weights = kvevict::weighting::step_gain;
    if (option == 4) v.all_rows = true;
    if (option == 5) v.o.weights = kvevict::weighting::step_gain, v.o.min_gain = 0.8f;
    CAPTURE(option);
    close(run(v, ++seed, true), 3e-5);
  }
}

TEST_CASE("attention on a device refuses what the host refuses") {
  batch const in = random_batch(5, {.Hq = 4, .H = 2, .D = 16, .N = {40}, .future = 0}, 1.0);
  with_cache(in, [&](auto& cache) {
    using entry = typename std::decay_t<decltype(cache.view)>::table_entry;
    device_cache<entry> there(cache);
    attention const rows = all_rows(in);
    auto const says = [&](kvevict::query_rows q, kvevict::window_options const& o, bool columns, char const* part) {
      device_memory memory;
      cuda::device ctx(default_stream());
      std::string const text = refusal([&] {
        kvevict::frame scratch(ctx.scratch());
        auto s = kernels::plan_rows(ctx, scratch, there.view, kvevict::protect{}, kvevict::layers::uniform{},
                                    kvevict::budget{.tokens_per_head = 20}, kvevict::sharing::none);
        auto const given = on_device_rows(memory, q, 1);
        if (columns)
          kernels::column_sums(ctx, there.view, given, kvevict::group_reduce::mean, s);
        else
          kernels::window_scores(ctx, there.view, given, o, s);
        ctx.wait();
      });
      INFO(text);
      CHECK(text.find(part) != std::string::npos);
    };
    std::vector<float> wrong(rows.lse.size(), -3.0f);
    auto q = rows.queries();
    std::int32_t const few[] = {0, 5};
    auto short_rows = q;
    short_rows.row_begin = few;
    says(short_rows, {8}, false, "sequence 0 provides 5 query rows and the window needs 8");
    says(short_rows, {8}, true, "sequence 0 provides 5 query rows for 40 tokens");
    says(q, {0}, false, "give at least one row");
    says(q,
         {8, kvevict::row_reduce::mean, kvevict::group_reduce::mean, kvevict::weighting::softmax, 0,
          kvevict::row_place::behind_cache},
         false, "provide their LSE");
    says(q,
         {8,
          kvevict::row_reduce::mean,
          kvevict::group_reduce::mean,
          kvevict::weighting::softmax,
          0,
          kvevict::row_place::in_cache,
          {2}},
         false, "odd width");
    q.lse = wrong.data(), q.lse_token_stride = rows.lse_stride(), q.lse_head_stride = 1;
    says(q, {8}, false, "add up to");
    says(q, {8}, true, "add up to");
  });
}

}  // namespace attention_test
