// SPDX-License-Identifier: Apache-2.0
// How the codes of a quantised component become numbers: what a scale covers, and where it lies.
#pragma once

#include <cstdint>
#include <limits>

#include <kvevict/core/dtype.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// What a quantisation scale covers. `page_channel` forbids moving tokens: drop whole pages only.
enum class quant_scope : std::uint8_t { none, tensor, head, token, token_head, token_head_group, page_channel };

/// Where scales and zero points lie. In memory they are entries of `stride` bytes, each with a scale at `scale_at` and
/// a zero point at `zero_at`.
///
///   value       one of each for all: `scale` and `zero` themselves
///   array       an entry for the tensor, or one a head, at `entries`
///   in_row      in the row, which is blocks of `stride` bytes and `group` elements, their codes at `data_at`
///   component   the row of the same token in component k_scale (of V: v_scale), an entry for every `group` elements
///   page        in the page, an entry a channel, from the head's slot 0 on (before it: negative `scale_at`)
enum class scale_place : std::uint8_t { value, array, in_row, component, page };

/// Which of the two codes of a byte comes first; `halves`: the low ones are the first half of a block.
enum class nibble_order : std::uint8_t { low_first, high_first, halves };

/// A row's bytes to k floats: the signature of ggml's to_float.
using decode_function = void (*)(void const* x, float* y, std::int64_t k);

/// The most elements of a block that a decode_function is given.
inline constexpr std::int32_t most_block = 256;

/// x = (code − zero) · scale, in float. The makers below fill it in; fields that a place does not name are not read.
struct quantisation {
  static constexpr std::int32_t nowhere = std::numeric_limits<std::int32_t>::min();

  scale_place place = scale_place::value;
  nibble_order nibbles = nibble_order::low_first;
  dtype type = dtype::f32;    // of scales and zero points in memory: f32, f16, bf16
  float scale = 1, zero = 0;  // place::value; `zero` wherever zero_at is nowhere
  std::int32_t stride = 0, data_at = 0, scale_at = 0, zero_at = nowhere;  // bytes
  std::int64_t layer_stride = 0;                                          // place::array: from layer to layer, in bytes
  void const* entries = nullptr;                                          // where the context can read them
  // in place of all that: `group` elements, at most most_block, of `stride` bytes; host only
  decode_function decode = nullptr;
};

}  // namespace KVEVICT_ABI
}  // namespace kvevict
