// SPDX-License-Identifier: Apache-2.0
// Norms, counts and functions over tokens on a device, against the host.
#include <cmath>
#include <limits>

#include <kvevict/cuda/scores/each.hpp>
#include <kvevict/cuda/scores/multiply_by_share.hpp>
#include <kvevict/cuda/scores/squared_norms.hpp>
#include <kvevict/cuda/select/count_above.hpp>
#include <kvevict/kernels/host.hpp>

#include "simt/device_rows.hpp"
#include "support/catch.hpp"

namespace score_kernels_test {

using namespace simt_test;
namespace cuda = kvevict::cuda;
namespace kernels = kvevict::kernels;

namespace {

/// A row of scores for every token of a cache; the last row is not active.
template <class Entry> reference::selection_input rows_of(layouts::cache<Entry> const& cache) {
  reference::selection_input in;
  in.sequences = cache.view.sequences(), in.heads = cache.view.heads();
  for (std::int32_t b = 0; b < in.sequences; ++b)
    for (std::int32_t h = 0; h < in.heads; ++h) {
      std::int32_t const n = cache.view.length(b, h);
      in.rows.push_back({b, h, n, 0, n, n, n, true});
      in.begin.push_back(in.begin.back() + n);
    }
  in.rows.back().active = false;
  in.values.resize(static_cast<std::size_t>(in.begin.back()));
  return in;
}

struct add_token {
  constexpr void operator()(kvevict::row const& r, std::int64_t j, float& x) const {
    x = static_cast<float>(1000 * r.sequence + 100 * r.head) + static_cast<float>(j);
  }
};
struct sum_tokens {
  std::int32_t* sums;
  constexpr void operator()(kvevict::slice<kvevict::row> of, std::int64_t b) const {
    for (kvevict::row const& it : of) sums[b] += it.tokens;
  }
};

/// Device and host for `c`, a component of both views.
template <class Entry>
std::vector<float> norms(layouts::cache<Entry>& cache, kvevict::component const& on_host, std::int32_t cut_bytes,
                         std::int64_t spare) {
  auto in = rows_of(cache);
  device_rows const rows(in.view(), spare);
  device_cache<Entry> there(cache);
  kvevict::component host_c = on_host, c = *there.view.find(on_host.what);
  host_c.rows.run_bytes -= cut_bytes, c.rows.run_bytes -= cut_bytes;
  cuda::device ctx(default_stream());
  kvevict::host host;
  kernels::squared_norms(ctx, there.view, c, rows.view);
  auto s = in.view();
  kernels::squared_norms(host, cache.view, host_c, s);
  std::vector<float> want;
  kernels::read_scores(host, s, want);
  auto const got = rows.values(ctx);
  REQUIRE(got.size() == want.size());
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < got.size(); ++i) wrong += !(std::abs(got[i] - want[i]) <= 2e-6f * want[i]);
  CHECK(wrong == 0);
  return got;
}

}  // namespace

TEST_CASE("norms on a device are the host's, and the same bits in every layout") {
  struct shape {
    kvevict::dtype type;
    std::int32_t width;
  };
  for (shape const s : {shape{kvevict::dtype::f32, 8},
                        {kvevict::dtype::f16, 8},
                        {kvevict::dtype::bf16, 64},
                        {kvevict::dtype::f16, 80},
                        {kvevict::dtype::f32, 24},
                        {kvevict::dtype::f32, 136},
                        {kvevict::dtype::f32, 576}}) {
    std::vector<float> first;
    for (std::int32_t const page : {2, 16}) {
      layouts::cache_shape shape;
      shape.lengths = {s.width == 8 ? 517 : 37, 0, 5}, shape.heads = 2, shape.head_dim = s.width, shape.type = s.type,
      shape.page_size = page;
      layouts::for_each_layout(shape, [&](auto& cache) {
        CAPTURE(cache.name(), s.width, page);
        scheduled const schedule(static_cast<std::uint64_t>(page));
        cache.fill([&](int b, int h, int t, int d) { return std::sin(b + 3 * h + 7 * t + 11 * d); },
                   [&](int b, int h, int t, int d) { return std::cos(b + 3 * h + 7 * t + 11 * d); });
        auto const& v = *cache.view.find(kvevict::role::v);
        auto const got = norms(cache, v, 0, page == 2 ? 0 : 40);
        if (first.empty()) first = got;
        CHECK(got == first);
        auto const element = static_cast<std::int32_t>(kvevict::size_of(s.type));
        if (v.rows.n_runs == 1) norms(cache, v, element, 0);  // a row that is not whole units
      });
    }
  }
}

TEST_CASE("functions over tokens and sequences, and counts above a threshold, on a device are the host's") {
  reference::generator random(12);
  for (std::size_t trial = 0; trial < 8; ++trial) {
    reference::selection_shape shape;
    shape.sequences = trial == 7 ? 40 : 3, shape.most_tokens = 300, shape.scattered = trial % 2 == 1, shape.levels = 5;
    auto in = reference::random_selection(random, shape);
    device_rows const there(in.view(), 300);
    scheduled const schedule(trial);
    cuda::device ctx(default_stream());
    kvevict::host host;
    auto s = in.view();
    s.total_floats = s.begin[s.count()];
    for (float const threshold : {-1.0f, 0.0f, -0.0f, 1.0f}) {
      on_device<std::int32_t> counts(std::vector<std::int32_t>(in.rows.size(), 99));
      std::vector<std::int32_t> want(in.rows.size());
      kernels::count_above(ctx, there.view, threshold, counts.data());
      kernels::count_above(host, s, threshold, want.data());
      ctx.wait();
      CHECK(counts.read() == want);
    }
    auto const sequences = static_cast<std::size_t>(in.sequences);
    on_device<std::int32_t> sums(std::vector<std::int32_t>(sequences, 7));
    std::vector<std::int32_t> want_sums(sequences, 7);
    kernels::each_sequence(ctx, there.view, sum_tokens{sums.data()});
    kernels::each_sequence(host, s, sum_tokens{want_sums.data()});
    kernels::each_token(ctx, there.view, add_token{});
    kernels::each_token(host, s, add_token{});
    std::vector<float> want;
    kernels::read_scores(host, s, want);
    CHECK(there.values(ctx) == want);
    CHECK(sums.read() == want_sums);
  }
}

TEST_CASE("a share whose maximum is zero leaves the scores, and one token alone has all of it") {
  for (float const share : {0.0f, 3.0f}) {
    reference::selection_input in;
    in.sequences = 2, in.heads = 1;
    in.rows = {{0, 0, 1, 0, 1, 1, 1, true}, {1, 0, 3, 0, 3, 3, 3, true}};
    in.begin = {0, 1, 4}, in.values = {5, 6, 7, 8};
    auto shares = in;
    shares.values = {share, 0, share / 2, share};
    device_rows const there(in.view()), by(shares.view());
    cuda::device ctx(default_stream());
    kernels::multiply_by_share(ctx, by.view, there.view);
    CHECK(there.values(ctx) == (share == 0 ? in.values : std::vector<float>{5, 0, 3.5f, 8}));
  }
}

}  // namespace score_kernels_test
