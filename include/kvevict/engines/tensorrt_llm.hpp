// SPDX-License-Identifier: Apache-2.0
// TensorRT-LLM @0ccf903, kernels/kvCacheUtils.h: KVBlockArray, MixedKVBlockArray, and the arguments of
// updateSparseKvCacheAfterFmha.
//
//   pages::sizes const s{.pages = blocks, .heads = num_kv_heads, .head_dim = head_size, .type = dtype::f16};
//   auto const cache = engines::tensorrt_llm::view(block_array, s, sequences, lengths);
//   auto const keep = plan(ctx, policy, prompt(cache, queries), {.tokens_per_head = tokens});
//   engines::tensorrt_llm::write_sparse_kv(plan_moves(ctx, cache, keep), sparse_kv_indices, sparse_kv_offsets);
#pragma once

#include <cstdint>
#include <limits>

#include <kvevict/cache/move_plan.hpp>
#include <kvevict/engines/pages.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace engines::tensorrt_llm {

/// K's rows of the table [B, W, 2, M] of KVCacheIndex; those of V lie M entries behind them.
template <class BlockArray>
page_table<> keys_table(BlockArray const& kv, pages::sizes const& s, std::int32_t sequences) {
  static_assert(sizeof(*kv.data) == sizeof(std::int32_t), "tensorrt_llm::view: a KVCacheIndex is an int32_t");
  page_table<> t = pages::dense(reinterpret_cast<std::int32_t const*>(kv.data), sequences, kv.mMaxBlocksPerSeq, s);
  t.seq_stride = std::int64_t{2} * kv.mMaxBlocksPerSeq;
  return t;
}
/// Bytes of a block [H, T, D], which the array must have, too.
inline std::int64_t block_of(pages::sizes const& s, char const* field, std::int64_t said) {
  KVEVICT_EXPECTS(s.v_head_dim == 0 || s.v_head_dim == s.head_dim, "tensorrt_llm::view: rows of ", s.head_dim,
                  " elements and V of ", s.v_head_dim,
                  " in blocks of one size; leave sizes::v_head_dim 0, or give mixed_view V's own sizes");
  std::int64_t const block = std::int64_t{s.heads} * s.page_size * s.head_dim * size_of(s.type);
  KVEVICT_EXPECTS(block == said, "tensorrt_llm::view: a block of ", s.heads, " heads, ", s.page_size, " tokens and ",
                  s.head_dim, " elements has ", block, " bytes, and ", field, " says ", said,
                  "; give the KV heads of this rank and the type of the cache");
  return block;
}

/// `BlockArray` is KVBlockArray: table [B, W, 2, M] of KVCacheIndex, blocks [H, T, D] in one pool. `s.pages` counts
/// blocks, of K and of V; `sequences` are B·W. V's block is the one behind K's, which expect_values_behind_keys checks
/// where the host can read the table; else see view_by_rows. An index with the tag bit is of the secondary pool:
/// nothing can be read or moved there, so that every verb refuses it as an id out of range; onboard the block first.
/// Its attention op turns keys by the model's rope before it stores them; `keys`: none of a model without one, and of
/// an engine that stores keys unturned (pos_shift, StreamingLLM).
template <class BlockArray>
layer_view<> view(BlockArray const& kv, pages::sizes s, std::int32_t sequences, std::int32_t const* lengths,
                  rotation keys = rotation::rope) {
  s.page_size = kv.mTokensPerBlock;
  std::int64_t const block = block_of(s, "mBytesPerBlock", kv.mBytesPerBlock);
  KVEVICT_EXPECTS(kv.mSinkTokens == 0 && kv.mBubbleLen == 0, "tensorrt_llm::view: ", kv.mSinkTokens,
                  " sink tokens with a bubble of ", kv.mBubbleLen,
                  " slots behind them; slots must be tokens, build the engine without sink tokens");
  pages::kv both = pages::k_and_v(kv.mPrimaryPoolPtr, kv.mPrimaryPoolPtr, s, "BHND");
  both.v.rows.offset = block;
  --both.k.rows.page_count, --both.v.rows.page_count;  // a block of K has one of V behind it
  return pages::view(keys_table(kv, s, sequences), {lengths}, both.turned(keys));
}

/// The same by K's and V's own rows of the table: V's block is anywhere in the pool. On the host, which compares the
/// blocks of both.
template <class BlockArray>
layer_view<> view_by_rows(BlockArray const& kv, pages::sizes const& s, std::int32_t sequences,
                          std::int32_t const* lengths, rotation keys = rotation::rope) {
  layer_view<> out = view(kv, s, sequences, lengths, keys);
  component &k = out.components[0], &v = out.components[1];
  v.rows.offset = 0, v.table_offset = out.pages.columns;
  k.rows.page_count = v.rows.page_count = s.pages;
  return out;
}

/// MixedKVBlockArray: K and V in pools with indices and strides of their own, each with its sizes; `pages` counts the
/// blocks of its pool. Codes of K have one scale; V in NVFP4 is bytes that are moved, `type` opaque and `head_dim` the
/// bytes of a row, and its scales are a component more, which goes by V's blocks:
/// view.with(scales.with_table(view.pages.columns)).
template <class BlockArray>
layer_view<> mixed_view(BlockArray const& kv, pages::sizes k, pages::sizes v, std::int32_t sequences,
                        std::int32_t const* lengths, float k_scale = 1, rotation keys = rotation::rope) {
  k.page_size = v.page_size = kv.mTokensPerBlock;
  block_of(k, "mBytesPerKBlock", kv.mBytesPerKBlock), block_of(v, "mBytesPerVBlock", kv.mBytesPerVBlock);
  KVEVICT_EXPECTS(k.heads == v.heads, "tensorrt_llm::view: ", k.heads, " heads of K and ", v.heads,
                  " of V; give both the KV heads of this rank");
  component of_k = pages::hnd(role::k, kv.mKPoolPtr, k);
  if (is_code(k.type)) of_k = quantised::by_tensor(of_k, k.type, k_scale);
  component const of_v = pages::hnd(role::v, kv.mVPoolPtr, v).with_table(kv.mMaxBlocksPerSeq);
  return pages::view(keys_table(kv, k, sequences), {lengths}, {of_k.turned(keys), of_v});
}

/// That V's row of the table is K's plus one, for all blocks in use; on the host.
inline void expect_values_behind_keys(layer_view<> const& cache) {
  page_table<> const& t = cache.pages;
  for (std::int32_t b = 0; b < t.sequences; ++b) {
    KVEVICT_EXPECTS(cache.length(b, 0) <= t.capacity(b, 0), "tensorrt_llm::view: sequence ", b, " has ",
                    cache.length(b, 0), " tokens and its row of the table has room for ", t.capacity(b, 0),
                    "; give the lengths of this step, and mMaxBlocksPerSeq as it is");
    for (std::int64_t i = 0; i * t.page_size < cache.length(b, 0); ++i) {
      std::int32_t const k = t.entries_of(b, 0)[i], v = t.entries_of(b, 0)[t.columns + i];
      KVEVICT_EXPECTS(
          v == k + 1, "tensorrt_llm::view: block ", i, " of sequence ", b, " has K at ", k, " and V at ", v,
          "; V must be the block behind K, as in a pool [blocks, 2, H, T, D], or give the host view_by_rows");
    }
  }
}

/// What updateSparseKvCacheAfterFmha gathers, from a stable plan: of each head the kept tokens, ascending, token i goes
/// to slot i; offsets are those of a head's row.
/// Shapes   sparse_kv_indices (H, sum of the sequences' lengths), sparse_kv_offsets (B + 1).
/// Errors   contract_violation: heads of other lengths; a plan that fills holes, or whose lengths or moves are not
///          those of a row. Nothing is written then.
inline void write_sparse_kv(move_plan const& plan, std::int32_t* sparse_kv_indices, std::int32_t* sparse_kv_offsets) {
  contract::expect_rows("write_sparse_kv", plan);
  auto const at = [](std::int64_t i) { return static_cast<std::size_t>(i); };
  std::int64_t total = 0;
  for (std::int64_t r = 0; r < plan.rows(); ++r) {
    std::int64_t const n = plan.row_begin[at(r + 1)] - plan.row_begin[at(r)], first = r / plan.heads * plan.heads;
    KVEVICT_EXPECTS(plan.lengths[at(r)] == plan.lengths[at(first)], "write_sparse_kv: heads 0 and ", r - first,
                    " of sequence ", r / plan.heads, " keep ", plan.lengths[at(first)], " and ", plan.lengths[at(r)],
                    " tokens, and the op has one count for both; add .with(heads::uniform{})");
    KVEVICT_EXPECTS(n <= plan.lengths[at(r)] && plan.lengths[at(r)] <= plan.lengths_before[at(r)],
                    "write_sparse_kv: sequence ", r / plan.heads, ", head ", r - first, " keeps ", plan.lengths[at(r)],
                    " of ", plan.lengths_before[at(r)], " tokens and moves ", n, "; plan again");
    KVEVICT_EXPECTS(n == 0 || plan.destinations[at(plan.row_begin[at(r)])] == plan.lengths[at(r)] - n,
                    "write_sparse_kv: the moves of sequence ", r / plan.heads, ", head ", r - first,
                    " fill holes, and the op keeps tokens in order; plan with compaction::stable");
    std::int32_t above = plan.lengths[at(r)] - static_cast<std::int32_t>(n);
    for (std::int64_t i = plan.row_begin[at(r)], to = above; i < plan.row_begin[at(r + 1)]; ++i, ++to) {
      std::int32_t const from = plan.sources[at(i)];
      KVEVICT_EXPECTS(plan.destinations[at(i)] == to && from > above && from < plan.lengths_before[at(r)],
                      "write_sparse_kv: sequence ", r / plan.heads, ", head ", r - first, " moves slot ", from, " to ",
                      plan.destinations[at(i)], ", which no stable compaction of ", plan.lengths_before[at(r)],
                      " tokens does; plan again");
      above = from;
    }
    if (r == first) total += plan.lengths[at(r)];
  }
  KVEVICT_EXPECTS(total <= std::numeric_limits<std::int32_t>::max(), "write_sparse_kv: ", total,
                  " tokens are kept, and offsets are 32 bits; plan fewer sequences at once");
  total = 0;
  for (std::int32_t b = 0; b < plan.sequences; ++b) {
    sparse_kv_offsets[b] = static_cast<std::int32_t>(total);
    total += plan.heads == 0 ? 0 : plan.lengths[at(std::int64_t{b} * plan.heads)];
  }
  sparse_kv_offsets[plan.sequences] = static_cast<std::int32_t>(total);
  for (std::int64_t r = 0; r < plan.rows(); ++r) {
    std::int32_t* const out = sparse_kv_indices + r % plan.heads * total + sparse_kv_offsets[r / plan.heads];
    std::int64_t const first = plan.row_begin[at(r)], stay = plan.lengths[at(r)] - (plan.row_begin[at(r + 1)] - first);
    for (std::int64_t i = 0; i < plan.lengths[at(r)]; ++i)
      out[i] = i < stay ? static_cast<std::int32_t>(i) : plan.sources[at(first + i - stay)];
  }
}

}  // namespace engines::tensorrt_llm
}  // namespace KVEVICT_ABI
}  // namespace kvevict
