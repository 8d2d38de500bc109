// SPDX-License-Identifier: Apache-2.0
// Where the best of every row end, on a device.
#pragma once

#include <kvevict/cuda/context/device.hpp>
#include <kvevict/cuda/context/row_grid.hpp>
#include <kvevict/cuda/select/row_keys.hpp>
#include <kvevict/kernels/kernel.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

void has_kernel(kernels::cut_scores_tag, device&);

/// One block per row.
///
/// Shapes   scores (B·H, N) → cuts (B·H).
template <class Keys> struct cut_scores_kernel {
  static constexpr int max_threads = 1024;
  watched watch;
  score_rows s;
  float* cuts;

  KVEVICT_DEVICE void operator()(thread& t) const {
    if (watch.stopped(t)) return;
    KVEVICT_SHARED(t, std::uint32_t, histogram, radix::buckets);
    KVEVICT_SHARED(t, std::uint32_t, words, 36);
    std::int64_t const r = t.block().x;
    row const it = s.rows[r];
    if (!it.active || it.quota() == 0) {
      if (t.linear_index() == 0) cuts[r] = 0;
      return;
    }
    Keys const v(s, r);
    radix::cut const c = radix::best(
        t, [&](int turn, auto f) { v.for_each(t, 0, ~0u, turn, [&](std::uint32_t key, std::int32_t) { f(key); }); },
        static_cast<std::uint32_t>(it.quota()), histogram, words);
    if (t.linear_index() == 0) cuts[r] = float_of_key(c.key);
  }
};

/// The host's (kernels/cut_scores.hpp). Cost: one launch, three reads of the scores.
inline void kernel(kernels::cut_scores_tag, device& ctx, score_rows const& s, float* cuts) {
  auto const launch = [&](auto kernel) {
    ctx.launch({static_cast<std::uint32_t>(s.count())}, {threads_for(s.most_tokens, 4)}, 0, kernel);
  };
  if (s.positions != nullptr) return launch(cut_scores_kernel<scattered_keys>{ctx.watch(), s, cuts});
  expect_vectors(s);
  launch(cut_scores_kernel<ordered_keys<false>>{ctx.watch(), s, cuts});
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda
