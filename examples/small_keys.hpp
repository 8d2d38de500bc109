// SPDX-License-Identifier: Apache-2.0
// A score of one's own: keep the tokens with the smallest keys. The same text runs on the host and on a GPU.
#pragma once

#include <kvevict/cache/row_reader.hpp>
#include <kvevict/kernels/kernel.hpp>

/// A score for every token of every row, one row per sequence and KV head; the highest stay. It never touches memory
/// itself: kernels of the context do, with functions such as `negate` that they call for each token.
struct small_keys {
  template <class Context, class Evidence>
  void operator()(Context& ctx, Evidence const& e, kvevict::score_rows& out) const {
    kvevict::component const& keys = kvevict::readable("small_keys", e.cache, kvevict::role::k);
    kvevict::kernels::squared_norms(ctx, e.cache, keys, out);
    kvevict::kernels::each_token(ctx, out, negate{});
  }
  struct negate {
    KVEVICT_HOST_DEVICE void operator()(kvevict::row const&, std::int64_t, float& score) const { score = -score; }
  };
};
