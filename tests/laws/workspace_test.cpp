// SPDX-License-Identifier: Apache-2.0
// workspace_bytes is an upper bound of the scratch that a plan takes, whatever the lengths: far below the policy's
// windows and rows, and far above them.
#include <kvevict/kernels/host.hpp>
#include <kvevict/presets/ahakv.hpp>
#include <kvevict/presets/oracle.hpp>
#include <kvevict/presets/snapkv.hpp>
#include <kvevict/threads.hpp>

#include "support/any_preset.hpp"
#include "support/catch.hpp"

namespace workspace_test {

using namespace support;

namespace {

struct size {
  std::vector<std::size_t> N;
  std::size_t future, D;
  std::int32_t budget;
};
// the laws' windows are 8 rows, their oracle takes 6
std::vector<size> const sizes{{{9}, 6, 8, 8},        {{1, 9, 2}, 6, 16, 8}, {{12, 9}, 6, 8, 11},
                              {{40, 17}, 6, 64, 12}, {{700, 3}, 6, 8, 20},  {{1500}, 6, 16, 300}};

template <class View> kvevict::cache_shape shape_of(View const& v, batch const& in) {
  std::int64_t const pages = std::max<std::int64_t>(v.components[0].rows.page_count, 64);
  return {int32(in.N.size()),
          int32(in.Hq),
          int32(in.H),
          int32(in.D),
          int32(*std::max_element(in.N.begin(), in.N.end())),
          v.pages.rows() * pages,
          pages};
}

}  // namespace

TEST_CASE("laws: workspace_bytes bounds the scratch of every preset, for few tokens and for many") {
  kvevict::threads pool(3);
  for (size const& s : sizes) {
    batch const in = random_batch(57, {.Hq = 4, .H = 2, .D = s.D, .N = s.N, .future = s.future});
    hand_in rows(in);
    for (bool const threaded : {false, true})
      for (bool const scattered : {false, true})
        for (form const as : {form::queries, form::lse, form::weights})
          for (any_preset const& p : presets())
            with_cache(in, [&](auto& cache) {
              rows.as = as;
              CAPTURE(p.name, threaded, scattered, static_cast<int>(as), s.N[0], s.D);
              kvevict::host ctx = threaded ? kvevict::host(pool.as_executor(0)) : kvevict::host();
              auto view = cache.view;
              if (scattered) view.order = kvevict::row_order::scattered;
              std::int64_t const promised = p.workspace(ctx, shape_of(view, in));
              kvevict::keep_set keep;
              kvevict::budget const ask{.tokens_per_head = s.budget, .layer = 0, .layer_count = 2};
              try {
                p.plan_into(ctx, view, rows, ask, keep);
              } catch (kvevict::contract_violation const&) {
                CHECK(scattered);  // windows have no tail there
              }
              CHECK(static_cast<std::int64_t>(ctx.scratch().high_water()) <= promised);
            });
  }
}

TEST_CASE("laws: workspace_bytes of windows and of the oracle that ask for far more rows than there are tokens") {
  for (std::size_t const N : {std::size_t{2}, std::size_t{5}, std::size_t{33}})
    for (std::int32_t const wanted : {1, 32, 300}) {
      batch const in = random_batch(58, {.Hq = 8, .H = 2, .D = 32, .N = {N, N}, .future = 300});
      attention const all = all_rows(in), later = future_rows(in);
      with_cache(in, [&](auto& cache) {
        auto const check = [&](auto const& policy, auto const& e) {
          kvevict::host ctx;
          std::int64_t const promised = kvevict::workspace_bytes(ctx, policy, shape_of(cache.view, in));
          kvevict::plan(ctx, policy, e, {.tokens_per_head = int32(N) - 1});
          CAPTURE(N, wanted, promised);
          CHECK(static_cast<std::int64_t>(ctx.scratch().high_water()) <= promised);
        };
        namespace p = kvevict::presets;
        auto const future =
            kvevict::future(cache.view, later.queries()).with_lse(later.lse.data(), later.lse_stride(), 1);
        check(p::oracle({.rows = wanted}), future);
        if (wanted >= int32(N)) return;  // a window is protected, and the budget below it refused
        check(p::snapkv({.window = wanted, .pool = 1}), kvevict::prompt(cache.view, all.queries()));
        check(p::ahakv({.recent = wanted}), kvevict::prompt(cache.view, all.queries()));
      });
    }
}

}  // namespace workspace_test
