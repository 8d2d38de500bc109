// SPDX-License-Identifier: Apache-2.0
// Softmax and ranks of scores within groups of tokens.
#include <kvevict/score/within_groups.hpp>

#include <kvevict/kernels/host.hpp>

#include "support/row_case.hpp"

namespace policy_within_groups_test {

using namespace kvevict;

TEST_CASE("softmax and ranks within groups of tokens") {
  host ctx;
  reference::selection_input in;
  in.sequences = 1, in.heads = 1;
  in.rows = {{0, 0, 8, 0, 8, 8, 8, true}}, in.begin = {0, 8};
  in.values = {9, 1, 5, 1, 1000, 999, 1000, -3};
  score_rows const of = support::host_rows(in);
  std::vector<float> ranks(8, 77.0f);
  score_rows to = of;
  to.values = ranks.data();
  token_groups const groups{1, 3};  // {1,5,1} {1000,999,1000} {-3}
  score::rank_within(ctx, groups, of, to);
  CHECK(ranks == std::vector<float>{77, 0, 2.0f / 3, 1.0f / 3, 1.0f / 3, 0, 2.0f / 3, 0});
  score::softmax_within(ctx, groups, of);
  double const e = std::exp(1.0), big = std::exp(4.0);
  std::vector<double> const want{
      9, 1 / (2 + big), big / (2 + big), 1 / (2 + big), e / (2 * e + 1), 1 / (2 * e + 1), e / (2 * e + 1), 1};
  for (std::size_t j = 0; j < 8; ++j) CHECK(in.values[j] == Approx(want[j]).epsilon(1e-6));
  in.values[5] = std::numeric_limits<float>::quiet_NaN();
  score::rank_within(ctx, groups, of, to);
  CHECK(std::isnan(ranks[5]));
}

}  // namespace policy_within_groups_test
