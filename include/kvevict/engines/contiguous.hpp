// SPDX-License-Identifier: Apache-2.0
// Contiguous caches [B,H,S,D]: transformers (cache_utils.py, 5.24: DynamicLayer, StaticLayer) and ONNX Runtime's
// GroupQueryAttention (1.32: past and present in one buffer).
//
//   pages::sizes const s{.pages = batch, .page_size = room, .heads = heads, .head_dim = head_dim, .type = dtype::f16};
//   auto const cache = engines::contiguous::view(key.data_ptr(), value.data_ptr(), s, lengths);
//   auto const done = compact(ctx, cache, plan(ctx, policy, prompt(cache, queries), {.tokens_per_head = tokens}));
//   for (int b = 0; b < batch; ++b) lengths[b] = done.length(b, 0);
#pragma once

#include <cstdint>

#include <kvevict/engines/pages.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace engines::contiguous {

/// B.
inline std::int32_t sequences_of(pages::sizes const& s) {
  KVEVICT_EXPECTS(s.pages >= 0 && s.pages <= farthest_row, "contiguous::view: ", s.pages,
                  " sequences; sizes::pages is B, the first axis of [B,H,S,D]");
  return static_cast<std::int32_t>(s.pages);
}

/// K and V [B,H,S,D], `pages` sequences of room for `page_size` tokens; `lengths` (B) are in use. ONNX Runtime's
/// seqlens_k is one less than these. All heads keep equally many tokens. Both turn keys by the model's rope before they
/// are stored (GroupQueryAttention itself with do_rotary); `keys` says otherwise, of models without one.
inline layer_view<> view(void* k, void* v, pages::sizes const& s, std::int32_t const* lengths,
                         rotation keys = rotation::rope) {
  return pages::view(pages::contiguous(sequences_of(s), s), {lengths}, pages::k_and_v(k, v, s, "BHND").turned(keys));
}

/// The same tensors with one length per head, `lengths` (B,H), where attention masks what lies behind them: heads may
/// keep different numbers of tokens.
inline layer_view<> view_by_head(void* k, void* v, pages::sizes const& s, std::int32_t const* lengths,
                                 rotation keys = rotation::rope) {
  layer_view<> out = view(k, v, s, lengths, keys);
  out.pages.head_stride = 1;
  out.lengths = {lengths, s.heads, 1};
  return out;
}

/// A slice or a transposed tensor, [B,H,S,D] by torch's stride(), in elements; D is dense.
struct strides {
  std::int64_t batch, head, token;
};
inline layer_view<> view(void* k, void* v, pages::sizes const& s, std::int32_t const* lengths, strides const& by,
                         rotation keys = rotation::rope) {
  pages::strides const p{by.batch, by.head, by.token};
  return pages::view(pages::contiguous(sequences_of(s), s), {lengths},
                     {pages::strided(role::k, k, s, p).turned(keys), pages::strided(role::v, v, s, p)});
}

}  // namespace engines::contiguous
}  // namespace KVEVICT_ABI
}  // namespace kvevict
