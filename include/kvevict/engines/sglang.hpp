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
#include <functional>
#include <vector>

#include <kvevict/apply/compact.hpp>
#include <kvevict/cache/keep_set.hpp>
#include <kvevict/cache/move_plan.hpp>
#include <kvevict/core/slice.hpp>
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
/// Errors   contract_violation: heads keep different tokens; more than `capacity`; tokens that do not ascend within
///          their row. Nothing is written then.
template <class Index>
void write_logical_indices(keep_set const& keep, Index* logical_indices, std::int32_t* valid_lengths,
                           std::int64_t capacity) {
  contract::expect_rows("write_logical_indices", keep);
  auto const of_first = [&](std::int32_t b) { return keep.heads == 0 ? slice<std::int32_t const>{} : keep(b, 0); };
  for (std::int32_t b = 0; b < keep.sequences; ++b) {
    auto const first = of_first(b);
    for (std::int32_t h = 0; h < keep.heads; ++h) {
      std::int32_t const n = keep.lengths[static_cast<std::size_t>(std::int64_t{b} * keep.heads + h)];
      auto const kept = keep(b, h);
      if (std::adjacent_find(kept.begin(), kept.end(), std::greater_equal<>()) != kept.end() ||
          (!kept.empty() && (kept[0] < 0 || kept[kept.size - 1] >= n)))
        messages::keep_set_out_of_order("write_logical_indices", b, h, n);
    }
    KVEVICT_EXPECTS(first.size <= capacity, "write_logical_indices: sequence ", b, " keeps ", first.size,
                    " tokens and there is room for ", capacity, "; plan a budget of at most the capacity");
    for (std::int32_t h = 1; h < keep.heads; ++h)
      KVEVICT_EXPECTS(std::equal(first.begin(), first.end(), keep(b, h).begin(), keep(b, h).end()),
                      "write_logical_indices: heads 0 and ", h, " of sequence ", b,
                      " keep different tokens, and SGLang has one list for all; add .with(heads::together{})");
  }
  for (std::int32_t b = 0; b < keep.sequences; ++b) {
    auto const kept = of_first(b);
    Index* const row = logical_indices + b * capacity;
    for (std::int64_t i = 0; i < capacity; ++i) row[i] = i < kept.size ? static_cast<Index>(kept[i]) : Index{-1};
    valid_lengths[b] = static_cast<std::int32_t>(kept.size);
  }
}

/// The arguments of move_kv_cache(tgt_loc, src_loc), which copies all at once, in no order: slots of the pool, and the
/// same ones in all heads and layers. Returns how many; at most the moves of head 0, of layer 0.
/// Errors   contract_violation: unsound view; plan of another view or epoch, or with other moves than apply() takes;
///          heads or layers move different tokens, or have tables of their own; a slot is read and written (plan with
///          fill_holes). Nothing is written then.
template <class Index>
std::int64_t write_locations(layer_view<> const& cache, move_plan const& plan, Index* tgt_loc, Index* src_loc) {
  page_table<> const& t = cache.pages;
  KVEVICT_EXPECTS(t.page_size == 1 && !t.per_head() && (t.layers == 1 || t.layer_stride == 0),
                  "write_locations: pages are not tokens of all heads and layers; give the token pool's view, with one "
                  "table for all");
  validate(cache);
  moves::expect_plan("write_locations", cache, plan);
  if (plan.rows() == 0) return 0;
  auto const moves_of = [&](std::vector<std::int32_t> const& slots, std::int64_t r) {
    std::int64_t const first = plan.row_begin[static_cast<std::size_t>(r)];
    return slice<std::int32_t const>{slots.data() + first, plan.row_begin[static_cast<std::size_t>(r) + 1] - first};
  };
  auto const equal = [](slice<std::int32_t const> a, slice<std::int32_t const> b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end());
  };
  for (std::int64_t r = 0; r < plan.rows(); ++r) {
    auto const b = static_cast<std::int32_t>(r / plan.heads), h = static_cast<std::int32_t>(r % plan.heads);
    std::int64_t const first = cache.row_in_first_layer(b, 0);
    auto const from = moves_of(plan.sources, r), to = moves_of(plan.destinations, r);
    KVEVICT_EXPECTS(equal(from, moves_of(plan.sources, first)) && equal(to, moves_of(plan.destinations, first)),
                    "write_locations: head ", h, " of sequence ", t.sequence_of(b), " in layer ", t.layer_of(b),
                    " moves other tokens than head 0 in layer 0, and SGLang moves all alike; add "
                    ".with(heads::together{}), and of several layers .with(layers::together{})");
    KVEVICT_EXPECTS(from.empty() || from[0] > to[to.size - 1], "write_locations: sequence ", t.sequence_of(b),
                    " reads slot ", from[0],
                    " and writes behind it; move_kv_cache copies in no order, plan with compaction::fill_holes");
  }
  std::int64_t count = 0;
  for (std::int32_t b = 0; b < plan.sequences / t.layers; ++b) {
    auto const from = moves_of(plan.sources, std::int64_t{b} * plan.heads),
               to = moves_of(plan.destinations, std::int64_t{b} * plan.heads);
    for (std::int64_t i = 0; i < from.size; ++i, ++count) {
      tgt_loc[count] = static_cast<Index>(t.entry(b, 0, to[i]));
      src_loc[count] = static_cast<Index>(t.entry(b, 0, from[i]));
    }
  }
  return count;
}

}  // namespace engines::sglang
}  // namespace KVEVICT_ABI
}  // namespace kvevict
