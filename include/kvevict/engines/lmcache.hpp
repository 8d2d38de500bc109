// SPDX-License-Identifier: Apache-2.0
// LMCache's TokenDropper, its way into vLLM: compact_kv(q, k, v, preserved_num_tokens) on tensors
// [layers, tokens, heads, head_dim]; each layer keeps as many tokens, not the same ones.
//
//   pages::sizes const s{.page_size = num_tokens, .heads = heads, .head_dim = head_dim, .type = dtype::bf16,
//                        .layers = num_layers};
//   auto const cache = engines::lmcache::view(k.data_ptr(), v.data_ptr(), s, lengths);
//   budget const of_layers{.tokens_per_head = preserved_num_tokens, .layer_count = num_layers};
//   auto const keep = plan(ctx, policy, prompt(cache, queries), of_layers);
//   auto const kept = engines::lmcache::expect_preserved(keep, preserved_num_tokens);
//   compact(ctx, cache, keep);  // k[:, :kept] and v[:, :kept] are what compact_kv returns
#pragma once

#include <cstdint>

#include <kvevict/cache/keep_set.hpp>
#include <kvevict/engines/pages.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace engines::lmcache {

/// One request, all layers as a stack; `lengths` (layers) are its tokens in each, none of a page_size of 0. Keys are
/// vLLM's, whose models turn them before they are stored; `keys`: none of a model without a rope.
inline layer_view<> view(void* k, void* v, pages::sizes s, std::int32_t const* lengths,
                         rotation keys = rotation::rope) {
  s.pages = s.page_size > 0 ? 1 : 0;  // of a request without tokens: no page is there, and no row has one
  if (s.page_size == 0) s.page_size = 1;
  page_table<> table = pages::contiguous(s.layers, s);
  table.layers = s.layers;
  return pages::view(table, {lengths}, pages::k_and_v(k, v, s, "LBNHD").turned(keys));
}

/// Tokens that every layer keeps.
/// Errors   contract_violation: layers or heads keep different numbers, or more than `preserved_num_tokens`.
inline std::int64_t expect_preserved(keep_set const& keep, std::int64_t preserved_num_tokens) {
  contract::expect_rows("lmcache", keep);
  std::int64_t const kept = keep.rows() == 0 ? 0 : keep.row(0).size;
  for (std::int64_t r = 0; r < keep.rows(); ++r)
    KVEVICT_EXPECTS(keep.row(r).size == kept, "lmcache: head 0 of layer 0 and head ", r % keep.heads, " of layer ",
                    r / keep.heads, " keep ", kept, " and ", keep.row(r).size,
                    " tokens, and TokenDropper returns as many of each; use a policy with equal counts in all");
  KVEVICT_EXPECTS(kept <= preserved_num_tokens, "lmcache: every layer keeps ", kept, " tokens, more than the ",
                  preserved_num_tokens, " of preserved_num_tokens; plan that budget");
  return kept;
}

}  // namespace engines::lmcache
}  // namespace KVEVICT_ABI
}  // namespace kvevict
