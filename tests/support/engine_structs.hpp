// SPDX-License-Identifier: Apache-2.0
// Engines' structs as far as adapters look at them.
#pragma once

#include <cstdint>

namespace engine_structs {

/// FlashInfer's uint_fastdiv and paged_kv_t.
struct fastdiv {
  std::uint32_t d;
  operator unsigned int() const { return d; }
};
template <class T> struct paged_kv {
  fastdiv page_size;
  std::uint32_t num_heads, head_dim, batch_size, stride_page, stride_n, stride_h, v_stride_page, v_stride_n, v_stride_h;
  T *k_data, *v_data;
  std::int32_t *indices, *indptr, *last_page_len;
};

/// TensorRT-LLM's KVCacheIndex and KVBlockArray.
struct cache_index {
  std::int32_t value;
};
struct block_array {
  std::int32_t mMaxBlocksPerSeq, mTokensPerBlock, mBytesPerBlock, mSinkTokens, mBubbleLen;
  void* mPrimaryPoolPtr;
  cache_index const* data;
};

struct mixed_block_array {
  std::int32_t mMaxBlocksPerSeq, mTokensPerBlock, mBytesPerKBlock, mBytesPerVBlock;
  void *mKPoolPtr, *mVPoolPtr;
  cache_index const* data;
};

}  // namespace engine_structs
