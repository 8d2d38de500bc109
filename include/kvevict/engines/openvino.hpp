// SPDX-License-Identifier: Apache-2.0
// OpenVINO 2026.4: the CPU plugin's PagedAttention (nodes/kernels/scaled_attn/executor_pa.cpp, nodes/paged_attn.cpp),
// as ov::pass::SDPAToPagedAttention(true, true) puts it into a model. Pages and tables are inputs, so they are yours.
//
//   engines::openvino::cache kv(keys, values);  // vectors of tensors: key_cache.N and value_cache.N of all layers
//   request.infer();
//   kv.step(past_lens, subsequence_begins, block_indices_begins, block_indices);  // the tensors of this step
//   auto const cache = kv.view();
//   budget const want{.tokens_per_head = 384, .layer_count = L};
//   auto const keep = plan(ctx, policy, prompt(cache, kv.queries(outputs)), want);
//   auto const done = compact(ctx, cache, keep);
//   auto const next = kv.past_lens(done);  // of the next step, whose position_ids go on as if nothing had happened
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>
#include <vector>

#include <kvevict/core/queries.hpp>
#include <kvevict/engines/openvino_tensors.hpp>
#include <kvevict/heads/together.hpp>
#include <kvevict/presets/snapkv.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace engines::openvino {

/// What a view of the layers reads: pages where they are, tables and lengths of the last step in arrays of its own.
/// `Tensor` is ov::Tensor, or whatever has its get_element_type, get_shape, get_strides and data.
///
/// Its keep sets have equal counts, over heads as well as layers: past_lens is one number for all. The plugin's default
/// cache, u8 with keys by channel, gives up whole pages only: plan with heads::together and select::pages, and what
/// drop_pages returns as entries(l·S + s) are the next block_indices of layer l. KV_CACHE_PRECISION f32, f16 and bf16
/// let tokens move.
/// Errors   contract_violation: other shapes, element types or strides; layers that do not lie at one distance.
class cache {
 public:
  /// `turned_by`: the model turns keys by its rope before PagedAttention stores them; none, of a model without one.
  template <class Tensors> cache(Tensors const& keys, Tensors const& values, rotation turned_by = rotation::rope) {
    KVEVICT_EXPECTS(keys.size() == values.size() && keys.size() > 0, "openvino: key_cache of ", keys.size(),
                    " layers and value_cache of ", values.size(), "; give both of each layer");
    k_ = tensors::stack_of(role::k, keys).turned(turned_by), v_ = tensors::stack_of(role::v, values);
    layers_ = static_cast<std::int32_t>(keys.size());
    heads_ = static_cast<std::int32_t>(tensors::extent(keys[0], 1));
    KVEVICT_EXPECTS(tensors::extent(values[0], 1) == heads_, "openvino: ", heads_, " heads of keys and ",
                    tensors::extent(values[0], 1), " of values; give tensors of the same layers");
  }

  /// A step that has run, by its inputs; `block_indices` is one tensor for all layers, or a vector of each layer's. Of
  /// one that is refused nothing is taken: the last one stays.
  template <class Tensor, class Tables>
  void step(Tensor const& past_lens, Tensor const& subsequence_begins, Tensor const& block_indices_begins,
            Tables const& block_indices) {
    auto const* const past = tensors::integers("past_lens", past_lens, 1);
    std::int64_t const S = tensors::extent(past_lens, 0);
    auto const* const rows = tensors::begins_of("subsequence_begins", subsequence_begins, S);
    auto const* const begins = tensors::begins_of("block_indices_begins", block_indices_begins, S);
    next_.table.clear(), next_.table_begin.assign(begins, begins + S + 1);
    if constexpr (std::is_same_v<Tables, Tensor>) {
      add_table(block_indices, begins[S]);
    } else {
      KVEVICT_EXPECTS(static_cast<std::int64_t>(block_indices.size()) == layers_, "openvino: block_indices of ",
                      block_indices.size(), " layers for a cache of ", layers_, "; give each layer's, or one for all");
      for (auto const& layer : block_indices) add_table(layer, begins[S]);
      for (std::int64_t i = S + 1; i <= layers_ * S; ++i)
        next_.table_begin.push_back(next_.table_begin[static_cast<std::size_t>(i - S)] + begins[S]);
    }
    next_.row_begin.assign(rows, rows + S + 1), next_.lengths.clear();
    for (std::int64_t i = 0; i < layers_ * S; ++i) {
      std::int64_t const before = past[i % S], n = before + rows[i % S + 1] - rows[i % S];
      KVEVICT_EXPECTS(before >= 0 && n <= std::numeric_limits<std::int32_t>::max(), "openvino: past_lens of sequence ",
                      i % S, " is ", before, "; give the tensor of a step that has run");
      next_.lengths.push_back(static_cast<std::int32_t>(n));
    }
    next_.sequences = static_cast<std::int32_t>(S);
    std::swap(now_, next_);
    ++epoch_;
  }

  /// Of the last step, until the next one; L·S sequences.
  layer_view<> view() const {
    layer_view<> v;
    v.pages.entries = now_.table.data(), v.pages.row_begin = now_.table_begin.data();
    v.pages.sequences = layers_ * now_.sequences, v.pages.heads = heads_, v.pages.page_size = block_size;
    v.pages.layers = layers_, v.pages.layer_stride = has_table_per_layer() ? now_.sequences : 0;
    v.lengths = {now_.lengths.data(), 1, 0};
    v.epoch = epoch_;
    v.can.equal_layers = true;
    return v.with(k_).with(v_);
  }

  /// Rotated queries of the last step: the f32 tensors [T, Hq·D] that come into each PagedAttention (input 0), handed
  /// out by model->add_output.
  template <class Tensors> query_rows queries(Tensors const& outputs) {
    KVEVICT_EXPECTS(now_.sequences > 0, "openvino: queries before the first step; call step, then queries");
    KVEVICT_EXPECTS(static_cast<std::int64_t>(outputs.size()) == layers_, "openvino: queries of ", outputs.size(),
                    " layers for a cache of ", layers_, "; give input 0 of each PagedAttention");
    query_rows q;
    q.head_dim = static_cast<std::int32_t>(view().key_width());
    std::vector<void const*> layers;
    for (auto const& t : outputs) {
      KVEVICT_EXPECTS(t.get_shape().size() == 2, "openvino: queries have ", t.get_shape().size(),
                      " axes; give f32 (T,Hq·D) of the last step");
      std::int64_t const width = tensors::extent(t, 1);
      KVEVICT_EXPECTS(t.get_element_type().get_type_name() == "f32" && tensors::extent(t, 0) == now_.row_begin.back() &&
                          width > 0 && width % (std::int64_t{q.head_dim} * heads_) == 0,
                      "openvino: queries are ", tensors::extent(t, 0), " rows of ", width, " ",
                      t.get_element_type().get_type_name(), " for a step of ", now_.row_begin.back(), " tokens and ",
                      heads_, " heads of ", q.head_dim, "; give f32 (T,Hq·D) of the last step");
      KVEVICT_EXPECTS(layers.empty() || width == q.token_stride, "openvino: queries of layers 0 and ", layers.size(),
                      " are ", q.token_stride, " and ", width, " wide; make a cache of the layers of each width");
      q.token_stride = width;
      layers.push_back(t.data());
    }
    queries_ = std::move(layers);
    q.layers = queries_.data(), q.sequences = now_.sequences;
    q.heads = static_cast<std::int32_t>(q.token_stride / q.head_dim), q.head_stride = q.head_dim;
    q.row_begin = now_.row_begin.data();
    return q;
  }

  /// What the next step is given as past_lens, (S), after compact or drop_pages of the view.
  template <class Result> std::vector<std::int32_t> past_lens(Result const& done) const {
    std::vector<std::int32_t> out;
    std::int32_t const S = now_.sequences;
    for (std::int32_t s = 0; s < S; ++s) out.push_back(done.length(s, 0));
    for (std::int32_t b = 0; b < layers_ * S; ++b)
      KVEVICT_EXPECTS(done.length(b, 0) == out[static_cast<std::size_t>(b % S)], "openvino: layer ", b / S, " has ",
                      done.length(b, 0), " tokens of sequence ", b % S, " and layer 0 has ", done.length(b % S, 0),
                      ", but past_lens is one number for all; keep equally many in each layer");
    return out;
  }

 private:
  /// What a step said.
  struct inputs {
    std::int32_t sequences = 0;
    std::vector<std::int32_t> table, table_begin;  // (pages), (S + 1); or of L layers, (L·S + 1)
    std::vector<std::int32_t> row_begin, lengths;  // (S + 1), (L·S)
  };

  template <class Tensor> void add_table(Tensor const& t, std::int64_t pages) {
    auto const* const ids = tensors::integers("block_indices", t, pages);
    next_.table.insert(next_.table.end(), ids, ids + pages);
  }
  bool has_table_per_layer() const { return now_.table_begin.size() > static_cast<std::size_t>(now_.sequences) + 1; }

  component k_, v_;
  std::int32_t layers_ = 0, heads_ = 0;
  std::uint64_t epoch_ = 0;
  inputs now_, next_;                 // of the last step; where the next one is put together
  std::vector<void const*> queries_;  // (L)
};

/// A size of GenAI's; what no int32 holds is more tokens than there are, as its largest is.
template <class N> constexpr std::int32_t tokens_of(N n) {
  constexpr auto most = std::numeric_limits<std::int32_t>::max();
  return std::cmp_greater(n, most) ? most : static_cast<std::int32_t>(n);
}

/// OpenVINO GenAI's CacheEvictionConfig, or what has its members, as a policy: start_size sinks and recent_size newest
/// tokens, between them what the last snapkv_window_size queries of all heads attend to; and its max_cache_size as a
/// budget.
///   Differs: chooses tokens; GenAI drops blocks, which .with(select::pages{}) does, too. It also goes on adding up
///   scores while it generates, and has up to 31 tokens more.
template <class Config> auto policy_of(Config const& c) {
  return presets::snapkv({.window = tokens_of(c.snapkv_window_size)})
      .with(protect{tokens_of(c.get_start_size()), tokens_of(c.get_recent_size())})
      .with(heads::together{});
}
template <class Config> budget budget_of(Config const& c, std::int32_t layers) {
  return {.tokens_per_head = tokens_of(c.get_max_cache_size()), .layer_count = layers};
}

}  // namespace engines::openvino
}  // namespace KVEVICT_ABI
}  // namespace kvevict
