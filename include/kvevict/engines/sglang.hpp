// SPDX-License-Identifier: Apache-2.0
// SGLang 0.5.23, mem_cache/memory_pool.py: MHATokenToKVPool (NHD, HND, vectorized_5d) and MLATokenToKVPool.
//
//   pages::sizes const s{.pages = size + 1, .heads = head_num, .head_dim = head_dim, .type = dtype::bf16};
//   auto const pool = engines::sglang::token_pool(k_buffer.data_ptr(), v_buffer.data_ptr(), s);
//   auto const cache = pages::view(pages::csr(kv_indices, kv_indptr, batch, s), {seq_lens}, pool);
//   auto const one_set = policy.with(heads::together{});
//   auto const keep = plan(ctx, one_set, prompt(cache, queries), {.tokens_per_head = tokens});
//   engines::sglang::write_logical_indices(keep, logical_indices, valid_lengths, capacity);
#pragma once

#include <algorithm>
#include <cstdint>

#include <kvevict/cache/keep_set.hpp>
#include <kvevict/cache/move_plan.hpp>
#include <kvevict/engines/pages.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace engines::sglang {

// SGLang's models turn keys by their rope before they are stored; `keys` says otherwise, of layers without positions.

/// k_buffer[layer] and v_buffer[layer], (size + page_size, head_num, head_dim): a token a page, whatever the page size.
inline pages::kv token_pool(void* k, void* v, pages::sizes const& s, rotation keys = rotation::rope) {
  return pages::k_and_v(k, v, s, "BHD").turned(keys);
}

/// Both as (pages, head_num, page_size, head_dim); its table holds pages, kv_indices / page_size.
inline pages::kv hnd(void* k, void* v, pages::sizes const& s, rotation keys = rotation::rope) {
  return pages::k_and_v(k, v, s, "BHND").turned(keys);
}

/// kv_buffer[layer], (size + page_size, 1, kv_lora_rank + qk_rope_head_dim): V is the front of K. Only the last
/// qk_rope_head_dim elements are turned, which no rope of a whole row says: what turned it stays unsaid. Scores that
/// read keys before rotation, and rerotate, take the two parts of mla_parts.
inline pages::kv mla(void* kv, pages::sizes const& s) { return pages::latent(kv, s, "BD"); }

/// The same rows as two components that say what turned them: kv_lora_rank elements, which nothing has, and V with
/// them; qk_rope_head_dim elements as role::rope, which the model's rope has.
///
///   auto const parts = engines::sglang::mla_parts(kv, s);
///   auto const cache = pages::view(table, {seq_lens}, parts.latent).with(parts.rotary);
struct latent_parts {
  pages::kv latent;
  component rotary;
};
inline latent_parts mla_parts(void* kv, pages::sizes const& s) {
  latent_parts out{mla(kv, s), {}};
  component& k = out.latent.k;
  KVEVICT_EXPECTS(s.v_head_dim < s.head_dim, "sglang: rows of ", s.head_dim, " elements, of which V has ", s.v_head_dim,
                  ", have no rotary part; set sizes::head_dim to kv_lora_rank + qk_rope_head_dim");
  std::int32_t const front = s.v_head_dim * size_of(s.type);
  out.rotary = k.turned(rotation::rope);
  out.rotary.what = role::rope, out.rotary.rows.offset += front, out.rotary.rows.run_bytes -= front;
  k.rows.run_bytes = front, k.turned_by = rotation::none;
  return out;
}

/// SGLANG_AITER_KV_CACHE_LAYOUT=vectorized_5d: K (blocks, H, D/x, page_size, x), V (blocks, H, page_size/x, D, x).
/// Slots of V lie in packs of x, so that only a page of one pack has one distance between slots.
inline pages::kv vectorized_5d(void* k, void* v, pages::sizes const& s, rotation keys = rotation::rope) {
  std::int32_t const x = s.pack > 0 ? s.pack : 16 / size_of(s.type);
  KVEVICT_EXPECTS(s.page_size == x, "sglang: V of vectorized_5d has packs of ", x, " slots in pages of ", s.page_size,
                  ", whose rows are not one stride apart; use the layout nhd or hnd, or pages of ", x);
  return {pages::x_packed(role::k, k, s).turned(keys), pages::transposed(role::v, v, s)};
}

/// A keep set in the shape of SGLang's selection contract: logical_indices (batch, capacity), ascending and padded with
/// −1, so that graphs can be captured, and how many are valid (batch); one list for all heads.
/// Errors   contract_violation: heads keep different tokens; more than `capacity`. Nothing is written then.
template <class Index>
void write_logical_indices(keep_set const& keep, Index* logical_indices, std::int32_t* valid_lengths,
                           std::int64_t capacity) {
  contract::expect_rows("write_logical_indices", keep);
  for (std::int32_t b = 0; b < keep.sequences; ++b) {
    auto const first = keep(b, 0);
    KVEVICT_EXPECTS(first.size <= capacity, "write_logical_indices: sequence ", b, " keeps ", first.size,
                    " tokens and there is room for ", capacity, "; plan a budget of at most the capacity");
    for (std::int32_t h = 1; h < keep.heads; ++h)
      KVEVICT_EXPECTS(std::equal(first.begin(), first.end(), keep(b, h).begin(), keep(b, h).end()),
                      "write_logical_indices: heads 0 and ", h, " of sequence ", b,
                      " keep different tokens, and SGLang has one list for all; add .with(heads::together{})");
  }
  for (std::int32_t b = 0; b < keep.sequences; ++b) {
    auto const kept = keep(b, 0);
    Index* const row = logical_indices + b * capacity;
    for (std::int64_t i = 0; i < capacity; ++i) row[i] = i < kept.size ? static_cast<Index>(kept[i]) : Index{-1};
    valid_lengths[b] = static_cast<std::int32_t>(kept.size);
  }
}

/// The arguments of move_kv_cache(tgt_loc, src_loc), which copies all at once, in no order: slots of the pool. Returns
/// how many; at most the moves of head 0.
/// Errors   contract_violation: heads move different tokens; a slot is read and written (plan with fill_holes).
template <class Index>
std::int64_t write_locations(layer_view<> const& cache, move_plan const& plan, Index* tgt_loc, Index* src_loc) {
  contract::expect_rows("write_locations", plan);
  KVEVICT_EXPECTS(plan.sequences == cache.sequences() && plan.heads == cache.heads() && cache.pages.page_size == 1,
                  "write_locations: the plan is of another view, or its pages are not tokens; give the token pool's");
  auto const at = [](std::int64_t i) { return static_cast<std::size_t>(i); };
  for (std::int32_t b = 0; b < plan.sequences; ++b)
    for (std::int32_t h = 0; h < plan.heads; ++h) {
      std::int64_t const first = plan.row_begin[at(std::int64_t{b} * plan.heads)],
                         row = std::int64_t{b} * plan.heads + h, from = plan.row_begin[at(row)],
                         n = plan.row_begin[at(row + 1)] - from;
      bool alike = n == plan.row_begin[at(std::int64_t{b} * plan.heads + 1)] - first;
      for (std::int64_t i = 0; alike && i < n; ++i)
        alike = plan.sources[at(from + i)] == plan.sources[at(first + i)] &&
                plan.destinations[at(from + i)] == plan.destinations[at(first + i)];
      KVEVICT_EXPECTS(alike, "write_locations: heads 0 and ", h, " of sequence ", b,
                      " move different tokens, and SGLang moves all heads; add .with(heads::together{})");
      KVEVICT_EXPECTS(n == 0 || plan.sources[at(from)] > plan.destinations[at(from + n - 1)],
                      "write_locations: sequence ", b, " reads slot ", plan.sources[at(from)],
                      " and writes behind it; move_kv_cache copies in no order, plan with compaction::fill_holes");
    }
  std::int64_t count = 0;
  for (std::int32_t b = 0; b < plan.sequences; ++b)
    for (std::int64_t row = std::int64_t{b} * plan.heads, i = plan.row_begin[at(row)]; i < plan.row_begin[at(row + 1)];
         ++i, ++count) {
      tgt_loc[count] = static_cast<Index>(cache.pages.entry(b, 0, plan.destinations[at(i)]));
      src_loc[count] = static_cast<Index>(cache.pages.entry(b, 0, plan.sources[at(i)]));
    }
  return count;
}

}  // namespace engines::sglang
}  // namespace KVEVICT_ABI
}  // namespace kvevict
