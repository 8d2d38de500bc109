// SPDX-License-Identifier: Apache-2.0
// FlashInfer 0.7.4, include/flashinfer/page.cuh: paged_kv_t, in NHD or HND or with strides of its own.
//
//   auto const cache = engines::flashinfer::view(paged_kv, dtype::f16, max_num_pages);
//   auto const keep = plan(ctx, policy, prompt(cache, queries), {.tokens_per_head = tokens});
//   auto const done = compact(ctx, cache, keep);
//   engines::flashinfer::update(paged_kv, cache, done);
#pragma once

#include <cstdint>
#include <type_traits>

#include <kvevict/apply/compaction_result.hpp>
#include <kvevict/engines/pages.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace engines::flashinfer {

/// k_scale and v_scale of an fp8 cache.
struct tensor_scales {
  float k = 1, v = 1;
};

/// `PagedKV` is paged_kv_t<DType, int32_t>: its strides, indices, indptr and last_page_len, read where they are,
/// lengths included. What it does not say: the pages of the pool and, for a device context, the most pages of a
/// request; nor what turned its keys: the model's rope before append, as engines do with PosEncodingMode::kNone. With
/// kRoPELlama the kernels turn them as they read: say none.
template <class PagedKV>
layer_view<> view(PagedKV const& kv, dtype type, std::int64_t max_num_pages, std::int32_t most_pages_of_a_request = 0,
                  tensor_scales scales = {}, rotation keys = rotation::rope) {
  static_assert(std::is_same_v<std::decay_t<decltype(*kv.indices)>, std::int32_t>,
                "flashinfer::view: indices and indptr are int32_t; use paged_kv_t<DType, int32_t>");
  KVEVICT_EXPECTS(sizeof(*kv.k_data) == static_cast<std::size_t>(size_of(type)), "flashinfer::view: an element is ",
                  sizeof(*kv.k_data), " bytes, and ", name_of(type), " has ", size_of(type),
                  "; give the dtype of paged_kv_t's DType");
  auto const P = static_cast<std::int32_t>(static_cast<std::uint32_t>(kv.page_size));  // a uint_fastdiv
  pages::sizes const s{max_num_pages, P, static_cast<std::int32_t>(kv.num_heads),
                       static_cast<std::int32_t>(kv.head_dim), type};
  pages::strides const of_k{kv.stride_page, kv.stride_h, kv.stride_n},  // by name: nvcc 13.0 loses them in place
      of_v{kv.v_stride_page, kv.v_stride_h, kv.v_stride_n};
  pages::kv both{pages::strided(role::k, kv.k_data, s, of_k), pages::strided(role::v, kv.v_data, s, of_v)};
  if (is_code(type)) {
    both.k = quantised::by_tensor(both.k, type, scales.k);
    both.v = quantised::by_tensor(both.v, type, scales.v);
  }
  return pages::view(
      pages::csr(kv.indices, kv.indptr, static_cast<std::int32_t>(kv.batch_size), s, most_pages_of_a_request),
      length_map::of_pages(kv.indptr, kv.last_page_len, P), both.turned(keys));
}

/// indptr, last_page_len and indices after a compaction of `before`, in place; on the host. Free the pages of
/// done.freed_pages() then.
template <class PagedKV>
void update(PagedKV& kv, layer_view<> const& before, compaction_result<std::int32_t> const& done) {
  done.write_csr(before.pages, kv.indptr, kv.last_page_len, kv.indices);
}

}  // namespace engines::flashinfer
}  // namespace KVEVICT_ABI
}  // namespace kvevict
