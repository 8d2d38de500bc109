// SPDX-License-Identifier: Apache-2.0
// Reductions over rows on a device, against double and against themselves in other layouts.
#include <kvevict/cuda/evidence/rows.hpp>
#include <kvevict/cuda/scores/each.hpp>
#include <kvevict/cuda/scores/row_reductions.hpp>
#include <kvevict/layers/layers.hpp>

#include "simt/device_rows.hpp"
#include "support/row_case.hpp"

namespace row_reductions_test {

using namespace simt_test;
using namespace kvevict;
using support::reduction;

namespace {

layouts::cache_shape shape_of(std::int32_t head_dim, std::int32_t page_size) {
  layouts::cache_shape s;
  s.lengths = {600, 3, 0, 256}, s.heads = 2, s.head_dim = head_dim, s.page_size = page_size;
  return s;
}
template <class Cache> void fill(Cache& cache) {
  cache.fill([](int b, int h, int t, int d) { return std::sin(b + 3 * h + 7 * t + 11 * d); },
             [](int b, int h, int t, int d) { return std::cos(b + 3 * h + 7 * t + 11 * d); });
}

/// (B·H, G, width) on a device whose rows have room for `spare` tokens more, without the groups that only those have.
template <class MakeF>
std::vector<float> on_a_device(reduction how, reference::selection_input& in, token_groups const& groups,
                               std::int32_t width, std::int64_t spare, MakeF make) {
  score_rows const host = support::host_rows(in);
  device_rows const there(host, spare);
  auto const wide = static_cast<std::size_t>(groups.count(there.view.most_tokens)),
             narrow = static_cast<std::size_t>(groups.count(host.most_tokens)), C = static_cast<std::size_t>(width);
  on_device<float> out(std::vector<float>(in.rows.size() * wide * C, 77.0f));
  cuda::device ctx(default_stream());
  support::reduce(how, ctx, there.view, groups, width, make(there.view), out.data());
  ctx.wait();
  auto const all = out.read();
  std::vector<float> got;
  for (std::size_t r = 0; r < in.rows.size(); ++r)
    got.insert(got.end(), all.begin() + static_cast<std::ptrdiff_t>(r * wide * C),
               all.begin() + static_cast<std::ptrdiff_t>((r * wide + narrow) * C));
  return got;
}

/// For a device, functions have names: nvcc takes no lambda of a host function.
struct products {
  KVEVICT_HOST_DEVICE void operator()(row const&, std::int64_t j, std::int32_t first, float (&x)[row_chunk]) const {
    for (std::int32_t i = 0; i < row_chunk; ++i) x[i] = static_cast<float>(j % 3 * (first + i));
  }
};
struct count_calls {
  std::int64_t* calls;
  KVEVICT_HOST_DEVICE void operator()(row const& it, std::int64_t r) const { calls[r] += 1 + it.tokens; }
};

}  // namespace

TEST_CASE("reductions over rows on a device are what they are in double, the same bits in every layout") {
  for (reduction const how : {reduction::sum, reduction::max, reduction::min})
    for (token_groups const& groups :
         {token_groups{}, token_groups{3, 100}, token_groups{2, 300, token_range::evictable}}) {
      std::vector<float> first;
      for (std::int32_t const page : {4, 16})
        for (layouts::layout const l : {layouts::layout::nhd, layouts::layout::x_packed, layouts::layout::transposed_v,
                                        layouts::layout::pointers}) {
          if (page == 4 && l == layouts::layout::transposed_v) continue;
          layouts::with_layout(l, shape_of(24, page), [&](auto& cache) {
            using entry = typename std::decay_t<decltype(cache.view)>::table_entry;
            CAPTURE(cache.name(), page, groups.first, groups.size, static_cast<int>(how));
            scheduled const schedule(static_cast<std::uint64_t>(page));
            fill(cache);
            auto in = support::rows_of(cache);
            component const& v = *cache.view.find(role::v);
            device_cache<entry> there(cache);
            auto const got = on_a_device(how, in, groups, 24, page == 4 ? 0 : 300, [&](score_rows const& rows) {
              return support::times_score<entry>{{there.view, *there.view.find(role::v)}, rows};
            });
            score_rows const rows = support::host_rows(in);
            support::check_close(
                got, support::reduced(how, rows, groups, rows.most_tokens, 24, [&](row const& it, auto j, auto c) {
                  return static_cast<double>(cache.get(v, it.sequence, it.head, static_cast<int>(j), c)) *
                         static_cast<double>(rows.score(it, j));
                }));
            if (first.empty()) first = got;
            CHECK(got == first);
          });
        }
    }
}

TEST_CASE("reductions of one number a token, and of more channels than a block has threads, on a device") {
  layouts::with_layout(layouts::layout::nhd, shape_of(8, 4), [&](auto& cache) {
    auto in = support::rows_of(cache);
    score_rows const rows = support::host_rows(in);
    for (reduction const how : {reduction::sum, reduction::max, reduction::min})
      for (token_groups const& groups : {token_groups{}, token_groups{3, 7}, token_groups{0, 256}})
        support::check_close(
            on_a_device(how, in, groups, 1, 5, [](score_rows const& there) { return support::score_alone{there}; }),
            support::reduced(how, rows, groups, rows.most_tokens, 1,
                             [&](row const& it, auto j, int) { return static_cast<double>(rows.score(it, j)); }));
    constexpr std::int32_t width = 8 * 256 + 8 * 3 + 1;
    support::check_close(on_a_device(reduction::sum, in, {}, width, 0, [&](score_rows const&) { return products{}; }),
                         support::reduced(reduction::sum, rows, {}, 600, width,
                                          [](row const&, auto j, auto c) { return static_cast<double>(j % 3 * c); }));
  });
}

TEST_CASE("the rows of a plan on a device end where begin says, and each_row calls once for every active row") {
  layouts::cache<std::int32_t> cache(layouts::layout::nhd, shape_of(8, 4));
  device_cache<std::int32_t> there(cache);
  cuda::device ctx(default_stream());
  frame scratch(ctx.scratch());
  score_rows const rows = kernels::plan_rows(ctx, scratch, there.view, protect{}, layers::uniform{},
                                             budget{.tokens_per_head = 20}, sharing::none);
  std::vector<std::int64_t> begin(static_cast<std::size_t>(rows.count() + 1));
  cuda::copy_to_host(ctx.queue(), begin.data(), rows.begin, begin.size() * sizeof begin[0]);
  on_device<std::int64_t> calls(std::vector<std::int64_t>(static_cast<std::size_t>(rows.count()), 0));
  kernels::each_row(ctx, rows, count_calls{calls.data()});
  ctx.wait();
  for (std::size_t r = 0; r < begin.size(); ++r) CHECK(begin[r] == static_cast<std::int64_t>(r) * 600);
  CHECK(calls.read() == std::vector<std::int64_t>{601, 601, 0, 0, 0, 0, 257, 257});
}

}  // namespace row_reductions_test
