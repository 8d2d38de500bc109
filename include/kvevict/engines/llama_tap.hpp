// SPDX-License-Identifier: Apache-2.0
// What llama.cpp's graphs show of its cache and its queries, through llama_context_params::cb_eval.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include <kvevict/cache/component.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace engines::llama {

/// Reads each layer's K and V, the cells of a batch's tokens, and queries. Nodes are told by operation and by the
/// tensor that their sources are views of, cache_k_l<layer> and cache_v_l<layer>; names of nodes change between
/// versions. What a node reads (shapes, strides, inputs) is there when it is asked for; only queries need the graph
/// cut, one node a layer.
///
/// It never throws into llama.cpp: what it finds wrong is `fault`.
template <class Tensor> struct tap {
  struct layer {
    std::int32_t index;  // of the model
    component k, v;
  };
  std::vector<layer> layers;  // those with attention, as the graph has them
  std::int32_t heads = 0, query_heads = 0, head_dim = 0;
  float scale = 0, softcap = 0;
  char const* fault = nullptr;

  // of a batch; the first two are given
  std::vector<std::int32_t> row_of;  // (T) the row of `queries` that a token's go to, or −1
  std::int32_t rows = 0;
  std::vector<std::int64_t> cells;  // (T), less where llama_decode has failed
  std::vector<float> queries;       // (L, rows, Hq, D), as the softmax reads them

  static bool callback(Tensor* t, bool ask, void* self) {
    tap& it = *static_cast<tap*>(self);
    if (it.fault != nullptr) return !ask;  // false to data would cut the graph
    if (ask) return it.look(t);
    it.read_queries(t);
    return true;
  }

  /// Of a batch of so many tokens whose graphs have run: all of it was seen, and all layers are one stack.
  void expect_all(std::size_t tokens) {
    if (cells.size() != tokens || layers.empty())
      refuse("the graph was not seen; set cb_eval to cells.callback and cb_eval_user_data to cells.user_data()");
    for (std::size_t i = 0; i < layers.size(); ++i) {
      auto const n = static_cast<std::int64_t>(i);
      layer const &first = layers[0], &second = layers[layers.size() > 1], &it = layers[i];
      std::int64_t const apart = second.k.rows.base - first.k.rows.base,
                         apart_v = second.v.rows.base - first.v.rows.base;
      if (it.v.rows.base == nullptr)
        refuse("a layer has no V of its own (MLA); not supported");
      else if (apart < 0 || apart_v < 0 || it.k.rows.base - first.k.rows.base != n * apart ||
               it.v.rows.base - first.v.rows.base != n * apart_v)
        refuse("the layers do not lie at one distance (several devices or buffers); not supported");
    }
  }
  component stacked(component layer::*which) const {
    component c = layers.front().*which;
    c.rows.layer_stride = (layers.back().*which).rows.base - c.rows.base;
    if (layers.size() > 1) c.rows.layer_stride /= static_cast<std::int64_t>(layers.size() - 1);
    return c;
  }

 private:
  static bool is(Tensor const* t, char const* operation) { return std::strcmp(ggml_op_name(t->op), operation) == 0; }
  static Tensor* root_of(Tensor* t) {
    while (t->view_src != nullptr) t = t->view_src;
    return t;
  }
  /// The view of a layer's cache that is read, perhaps through a cast to another type; else null.
  static Tensor* cached(Tensor* t, char const* name, std::int32_t& l) {
    while (is(t, "CPY")) t = t->src[0];
    char const* const root = root_of(t)->name;
    std::size_t const n = std::strlen(name);
    if (std::strncmp(root, name, n) != 0) return nullptr;
    l = static_cast<std::int32_t>(std::atoi(root + n));
    return t;
  }

  /// Whether the node's result is wanted.
  bool look(Tensor* t) {
    std::int32_t l = 0;
    if (is(t, "SET_ROWS") && cached(t, "cache_k_l", l) != nullptr) {
      take_cells(t->src[1], l);
    } else if (is(t, "FLASH_ATTN_EXT") || is(t, "MUL_MAT")) {
      bool const flash = is(t, "FLASH_ATTN_EXT");
      if (Tensor* const v = cached(t->src[flash ? 2 : 0], "cache_v_l", l)) at(l).v = rows_of(v, role::v, !flash);
      if (Tensor* const k = cached(t->src[flash ? 1 : 0], "cache_k_l", l)) {
        at(l).k = rows_of(k, role::k, false);
        expect_shape(k, t->src[flash ? 0 : 1]);
        logits_ = flash ? nullptr : t;  // flash attention has its softmax in it, the next one is a router's
        if (flash) read_softmax(t, t->src[4], true);
        return rows > 0;
      }
    } else if (is(t, "SOFT_MAX") && logits_ != nullptr && cached_logits(t)) {
      read_softmax(t, t->src[2], false);
    }
    return false;
  }
  bool cached_logits(Tensor* t) {
    bool const direct = t->src[0] == logits_;
    if (!direct) refuse("the model changes its logits before the softmax (soft-capping, a bias); use flash attention");
    logits_ = nullptr;
    return direct;
  }

  layer& at(std::int32_t index) {
    for (layer& l : layers)
      if (l.index == index) return l;
    layers.push_back({index, {}, {}});
    return layers.back();
  }

  /// As llama_kv_cache::get_k and get_v make it: [D, cells, H]; V without flash attention [cells, D, H].
  component rows_of(Tensor* t, role what, bool transposed) {
    Tensor* const root = root_of(t);
    if (!ggml_backend_buffer_is_host(root->buffer))
      refuse("the cache is not in host memory; set llama_context_params::offload_kqv to false");
    if (root->ne[2] != 1) refuse("the context has several streams; set llama_context_params::kv_unified");
    component c;
    c.what = what;
    c.rows.base = static_cast<std::byte*>(root->data), c.rows.page_count = root->ne[1];
    c.rows.page_stride = stride(t, transposed ? 0 : 1), c.rows.head_stride = stride(t, 2);
    c.rows.run_bytes = static_cast<std::int32_t>(transposed ? t->nb[0] : ggml_row_size(t->type, t->ne[0]));
    if (transposed) c.rows.n_runs = static_cast<std::int32_t>(t->ne[1]), c.rows.run_stride = stride(t, 1);
    return typed(c, t);
  }
  /// Quantised keys are turned by a Hadamard transform, and queries with them.
  static component typed(component c, Tensor const* t) {
    char const* const type = ggml_type_name(t->type);
    auto const is_type = [&](char const* name) { return std::strcmp(type, name) == 0; };
    if (is_type("f32") || is_type("f16") || is_type("bf16")) {
      c.type = is_type("f32") ? dtype::f32 : is_type("f16") ? dtype::f16 : dtype::bf16;
      return c;
    }
    c = c.turned(rotation::opaque);
    if (is_type("q8_0")) return quantised::q8_0(c);
    if (is_type("q4_0")) return quantised::q4_0(c);
    return quantised::decoded_by(c, ggml_get_type_traits(t->type)->to_float,
                                 static_cast<std::int32_t>(ggml_blck_size(t->type)),
                                 static_cast<std::int32_t>(ggml_type_size(t->type)));
  }
  static std::int64_t stride(Tensor const* t, int i) { return static_cast<std::int64_t>(t->nb[i]); }

  void expect_shape(Tensor const* k, Tensor const* q) {
    auto const H = static_cast<std::int32_t>(k->ne[2]), Hq = static_cast<std::int32_t>(q->ne[2]),
               D = static_cast<std::int32_t>(q->ne[0]);
    if (heads == 0) heads = H, query_heads = Hq, head_dim = D;
    if (H != heads || Hq != query_heads || D != head_dim) refuse("layers differ in their heads; not supported");
    if (std::strcmp(ggml_type_name(q->type), "f32") != 0 || q->nb[0] != sizeof(float))
      refuse("queries are not rows of f32; not supported");
  }
  /// op_params: scale, ALiBi's largest bias and, of flash attention alone, the cap of the logits.
  void read_softmax(Tensor const* t, Tensor const* sinks, bool flash) {
    float values[3];
    std::memcpy(values, t->op_params, sizeof values);
    if (values[1] != 0) refuse("the model has ALiBi, which scores do not follow; not supported");
    if (sinks != nullptr) refuse("the model's softmax has learned sinks; not supported");
    scale = values[0], softcap = flash ? values[2] : 0;
  }

  void take_cells(Tensor* indices, std::int32_t l) {
    if (first_layer_ < 0) first_layer_ = l;
    if (std::strcmp(ggml_type_name(indices->type), "i64") != 0)
      return refuse("cells of a batch are not numbers of type i64; not supported");
    if (l != first_layer_) {
      if (indices != indices_) refuse("layers have cells of their own (sliding windows); not supported");
      return;
    }
    auto const n = static_cast<std::size_t>(indices->ne[0]);
    indices_ = indices, first_ = cells.size();
    cells.resize(first_ + n);
    ggml_backend_tensor_get(indices, cells.data() + first_, 0, n * sizeof(std::int64_t));
  }

  void read_queries(Tensor* t) {
    bool const flash = is(t, "FLASH_ATTN_EXT");
    Tensor* const q = t->src[flash ? 0 : 1];  // [D, T, Hq]
    std::int32_t index = 0;
    if (cached(t->src[flash ? 1 : 0], "cache_k_l", index) == nullptr) return;
    auto const l = static_cast<std::int64_t>(&at(index) - layers.data()), row = std::int64_t{query_heads} * head_dim;
    auto const all = static_cast<std::size_t>((l + 1) * rows * row);
    if (queries.size() < all) queries.resize(all);
    copy_.resize(ggml_nbytes(q));
    ggml_backend_tensor_get(q, copy_.data(), 0, copy_.size());
    for (std::int64_t i = 0; i < q->ne[1] && first_ + static_cast<std::size_t>(i) < row_of.size(); ++i)
      if (std::int32_t const r = row_of[first_ + static_cast<std::size_t>(i)]; r >= 0)
        for (std::int64_t h = 0; h < query_heads; ++h)
          std::memcpy(queries.data() + (l * rows + r) * row + h * head_dim,
                      copy_.data() + i * stride(q, 1) + h * stride(q, 2),
                      static_cast<std::size_t>(head_dim) * sizeof(float));
  }

  void refuse(char const* why) {
    if (fault == nullptr) fault = why;
  }

  Tensor *indices_ = nullptr, *logits_ = nullptr;
  std::int32_t first_layer_ = -1;
  std::size_t first_ = 0;  // token of the batch that this graph begins with
  std::vector<std::byte> copy_;
};

}  // namespace engines::llama
}  // namespace KVEVICT_ABI
}  // namespace kvevict
