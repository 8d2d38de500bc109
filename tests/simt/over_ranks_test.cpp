// SPDX-License-Identifier: Apache-2.0
// One threshold over heads of several ranks on devices: what one process keeps, for the bytes that are promised. Ranks
// are threads; the emulation is one device's, so a rank holds it but for its sums.
#include <mutex>

#include <kvevict/cuda.cuh>

#include "simt/device_cache.hpp"
#include "support/rank_parts.hpp"
#include "support/ranks.hpp"

namespace over_ranks_test {

using namespace simt_test;
using namespace support;
namespace cuda = kvevict::cuda;

namespace {

struct outcome_of {
  std::vector<std::vector<std::int32_t>> rows;  // of all heads
  std::vector<std::vector<std::int64_t>> bytes;
  std::vector<std::string> said;  // by each rank
};

/// Every rank plans its heads; ranks begin at heads `first`. Sums are of the host's memory, or, as NCCL's, of a
/// device's. `broken`: a rank with a NaN, or −1.
outcome_of plan_over(stack_scores::question const& q, std::vector<std::int32_t> const& first, bool in_place,
                     int broken = -1) {
  outcome_of out;
  out.rows.resize(q.m.rows()), out.said.resize(first.size());
  thread_ranks ranks(static_cast<int>(first.size()));
  std::mutex emulation;
  ranks.run([&](int rank) {
    auto const i = static_cast<std::size_t>(rank);
    std::int32_t const begin = first[i], end = i + 1 < first.size() ? first[i + 1] : q.m.H;
    auto mine = part(q, begin, end - begin);
    kvevict::host host;
    std::deque<std::vector<std::byte>> memory;
    auto const sum = ranks.sum(rank);
    std::vector<std::int32_t> lengths;
    auto ask = budget_of_ranks(host, mine.m.view([&](auto const& x) { return stack_scores::keep_bytes(memory, x); }),
                               {.layer_count = q.m.L, .head = begin, .head_count = q.m.H}, sum, lengths);
    if (rank == broken) mine.scores.assign(mine.scores.size(), std::numeric_limits<float>::quiet_NaN());
    std::unique_lock held(emulation);
    cuda::device ctx(default_stream());
    device_memory there;
    auto const put = [&](auto const& x) { return there.put(x); };
    ask.lengths.data = put(lengths), ask.per_sequence = put(q.budgets);
    auto view = mine.m.view(put);
    if (q.scattered) view = view.with_order(kvevict::row_order::scattered);
    auto const alone = [&](std::uint64_t* counts, std::int64_t n) {
      held.unlock();
      sum(counts, n);
      held.lock();
    };
    auto const through = cuda::through_host{alone};
    auto const direct = [&](cuda::device& on, std::uint64_t* counts, std::int64_t n) {
      CHECK(&on == &ctx);
      through(on, counts, n);
    };
    kvevict::policy const policy{stack_scores::given{put(mine.scores), mine.m.room}, q.protects()};
    cuda::keep_set keep;
    auto const go = [&](auto const& reduce) {
      auto const stage = policy.with(kvevict::heads::over_ranks{reduce, q.m.H, q.floor_permille});
      auto const tried = cuda::device::try_out(
          default_stream(), [&](cuda::device& dry) { plan(dry, stage, kvevict::contents(view), ask, keep); });
      plan(ctx, stage, kvevict::contents(view), ask, keep);
      CHECK(ctx.scratch().high_water() == tried.scratch_bytes);
    };
    if (in_place)
      go(direct);
    else
      go(through);
    try {
      auto const got = keep.read(ctx);
      for (std::int64_t r = 0; r < got.rows(); ++r) {
        auto const row = got.row(r);
        std::int64_t const b = r / mine.m.H, h = begin + r % mine.m.H;
        out.rows[static_cast<std::size_t>(b * q.m.H + h)].assign(row.begin(), row.end());
      }
    } catch (kvevict::contract_violation const& e) {
      out.said[i] = e.what();
    }
  });
  out.bytes = ranks.bytes;
  return out;
}

}  // namespace

TEST_CASE("ranks on devices keep what one process keeps, bit for bit, and hand over what is promised") {
  for (std::uint64_t seed = 1; seed <= 18; ++seed) {
    auto const q = stack_scores::random_question(seed, 3, 5);
    auto const want = stack_scores::expected(q);
    std::int32_t const H = q.m.H;
    for (std::vector<std::int32_t> const& first :
         {std::vector{0}, std::vector{0, H / 2}, std::vector{0, H / 4, H / 2, H - H / 3}}) {
      CAPTURE(seed, q.m.L, q.m.S, H, first, q.floor_permille, q.scattered);
      auto const got = plan_over(q, first, seed % 2 == 0);
      CHECK(got.rows == want);
      std::int64_t const rows = std::int64_t{q.m.L} * q.m.S * H, S = q.m.S;
      for (auto const& bytes : got.bytes)
        CHECK(bytes == std::vector<std::int64_t>{8 * rows, 16 * rows, S * 16384, S * 16384, S * 8192, S * 16384,
                                                 S * 16384, S * 8192, 16 * rows});
    }
  }
}

TEST_CASE("a rank whose scores are no numbers says so, and the others divide the budget without its tokens") {
  auto q = stack_scores::random_question(4, 2, 4);
  q.m.H = 4, q.m.L = 2, q.m.S = 1, q.m.lengths.assign(8, 60), q.budgets = {20, 20}, q.scattered = false;
  q.scores.clear(), q.m.positions.clear();
  for (int i = 0; i < 8 * 64; ++i)
    q.scores.push_back(static_cast<float>(i * 7919 % 512)), q.m.positions.push_back(i % 64);
  auto const got = plan_over(q, {0, 2}, false, 1);
  CAPTURE(got.said);
  CHECK(got.said[0].empty());
  CHECK(got.said[1].find("the score of token") != std::string::npos);
  std::size_t kept = 0;
  for (auto const& row : got.rows) kept += row.size();
  CHECK(kept == 2 * 2 * 20);
}

}  // namespace over_ranks_test
