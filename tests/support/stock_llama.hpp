// SPDX-License-Identifier: Apache-2.0
// What engines/llama.hpp sees of llama.cpp: tensors, graphs by callback and a memory of cells, in a namespace of their
// own. Every element of K, V and queries is a tag of what it is.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <deque>
#include <string>
#include <vector>

namespace stock {

enum ggml_op {
  GGML_OP_NONE,
  GGML_OP_VIEW,
  GGML_OP_CPY,
  GGML_OP_SET_ROWS,
  GGML_OP_MUL_MAT,
  GGML_OP_SOFT_MAX,
  GGML_OP_FLASH_ATTN_EXT,
  GGML_OP_TANH
};
enum ggml_type { GGML_TYPE_F32, GGML_TYPE_I64 };
struct ggml_type_traits {
  void (*to_float)(void const*, float*, std::int64_t) = nullptr;
};
struct ggml_backend_buffer {
  bool host = true;
};

struct ggml_tensor {
  ggml_type type = GGML_TYPE_F32;
  ggml_backend_buffer* buffer = nullptr;
  std::int64_t ne[4] = {1, 1, 1, 1};
  std::size_t nb[4] = {4, 4, 4, 4};
  ggml_op op = GGML_OP_NONE;
  std::int32_t op_params[16] = {};
  ggml_tensor* src[10] = {};
  ggml_tensor* view_src = nullptr;
  void* data = nullptr;
  char name[64] = {};
};

inline char const* ggml_op_name(ggml_op op) {
  constexpr char const* names[] = {"NONE", "VIEW", "CPY", "SET_ROWS", "MUL_MAT", "SOFT_MAX", "FLASH_ATTN_EXT", "UNARY"};
  return names[op];
}
inline char const* ggml_type_name(ggml_type type) { return type == GGML_TYPE_F32 ? "f32" : "i64"; }
inline std::size_t ggml_row_size(ggml_type type, std::int64_t n) {
  return static_cast<std::size_t>(n) * (type == GGML_TYPE_F32 ? 4 : 8);
}
inline ggml_type_traits const* ggml_get_type_traits(ggml_type) {
  static ggml_type_traits const none;
  return &none;
}
inline std::int64_t ggml_blck_size(ggml_type) { return 1; }
inline std::size_t ggml_type_size(ggml_type type) { return ggml_row_size(type, 1); }
inline std::size_t ggml_nbytes(ggml_tensor const* t) {
  std::size_t bytes = ggml_row_size(t->type, 1);
  for (int i = 0; i < 4; ++i) bytes += static_cast<std::size_t>(t->ne[i] - 1) * t->nb[i];
  return bytes;
}
inline bool ggml_backend_buffer_is_host(ggml_backend_buffer const* b) { return b->host; }
inline void ggml_backend_tensor_get(ggml_tensor const* t, void* to, std::size_t offset, std::size_t bytes) {
  std::memcpy(to, static_cast<char const*>(t->data) + offset, bytes);
}

/// Of the element: K 0, V 1, queries 2.
inline float tag(int what, int layer, int sequence, int position, int head, int d) {
  return static_cast<float>(((((what * 4 + layer) * 4 + sequence) * 512 + position) * 8 + head) * 8 + d) / 1024.0f;
}

struct llama_model {
  std::int32_t swa = 0;
};
struct llama_batch {
  std::int32_t n_tokens;
  std::int32_t *pos, *n_seq_id, **seq_id;
};
struct llama_context;
using llama_memory_t = llama_context*;

struct llama_context {
  // the model and its parameters
  std::int32_t L = 3, H = 2, G = 2, D = 4, cells = 32, ubatch = 8, sequences = 1, streams = 1;
  bool flash = false, cast = false, tanh = false, own_v = true, cells_per_layer = false;
  ggml_type of_indices = GGML_TYPE_I64;
  bool experts = false;  // whose router has a softmax of its own
  float alibi = 0;
  std::int64_t uneven = 0;  // floats that the last layer's K lies farther
  int fail_at = -1;         // the graph that fails
  llama_model model;
  ggml_backend_buffer buffer;
  bool (*cb_eval)(ggml_tensor*, bool, void*) = nullptr;
  void* user_data = nullptr;

  struct cell {
    std::int32_t sequence = -1, position = -1;
  };
  std::vector<cell> memory;
  std::vector<float> k, v;
  std::vector<ggml_tensor> cache_k, cache_v;

  std::int64_t row() const { return std::int64_t{H} * D; }
  void begin() {
    if (!memory.empty()) return;
    memory.resize(static_cast<std::size_t>(cells));
    k.assign(static_cast<std::size_t>(L * cells * row() + uneven), 0), v.assign(k.size(), 0);
    for (int l = 0; l < L; ++l)
      for (auto* of : {&cache_k, &cache_v}) {
        ggml_tensor t;
        t.ne[0] = row(), t.ne[1] = cells, t.ne[2] = streams;
        t.data = (of == &cache_k ? k : v).data() + l * cells * row() + (l == L - 1 && of == &cache_k ? uneven : 0);
        t.buffer = &buffer;
        std::string const name = std::string(of == &cache_k ? "cache_k_l" : "cache_v_l") + std::to_string(l);
        std::memcpy(t.name, name.c_str(), name.size() + 1);
        of->push_back(t);
      }
  }

  /// As llama_kv_cache::get_k and get_v, permuted (0, 2, 1, 3).
  ggml_tensor rows(ggml_tensor& root) const {
    ggml_tensor t;
    t.op = GGML_OP_VIEW, t.view_src = &root, t.data = root.data;
    t.ne[0] = D, t.ne[1] = cells, t.ne[2] = H, t.ne[3] = streams;
    t.nb[0] = 4, t.nb[1] = static_cast<std::size_t>(row()) * 4, t.nb[2] = static_cast<std::size_t>(D) * 4;
    return t;
  }
  ggml_tensor transposed(ggml_tensor& root) const {
    ggml_tensor t = rows(root);
    t.ne[0] = cells, t.ne[1] = D;
    t.nb[1] = static_cast<std::size_t>(cells) * 4, t.nb[2] = static_cast<std::size_t>(cells * D) * 4;
    return t;
  }
  void node(ggml_tensor& t) const {
    if (cb_eval != nullptr && cb_eval(&t, true, user_data)) cb_eval(&t, false, user_data);
  }

  void compute(std::vector<cell> const& tokens, std::vector<std::int64_t>& at) {
    auto const T = static_cast<std::int64_t>(tokens.size());
    ggml_tensor indices, other;
    indices.type = of_indices, indices.data = at.data(), indices.ne[0] = T, indices.nb[0] = 8;
    other = indices;
    std::vector<float> queries(static_cast<std::size_t>(T * H * G * D));
    for (int l = 0; l < L; ++l) {
      for (std::int64_t i = 0; i < T; ++i) {
        auto const [s, p] = tokens[static_cast<std::size_t>(i)];
        std::int64_t const c = at[static_cast<std::size_t>(i)];
        for (int h = 0; h < H; ++h)
          for (int d = 0; d < D; ++d) {
            static_cast<float*>(cache_k[static_cast<std::size_t>(l)].data)[c * row() + h * D + d] =
                tag(0, l, s, p, h, d);
            static_cast<float*>(
                cache_v[static_cast<std::size_t>(l)].data)[flash ? c * row() + h * D + d : (h * D + d) * cells + c] =
                tag(1, l, s, p, h, d);
          }
        for (int h = 0; h < H * G; ++h)
          for (int d = 0; d < D; ++d)
            queries[static_cast<std::size_t>((i * H * G + h) * D + d)] = tag(2, l, s, p, h, d);
      }
      ggml_tensor &root_k = cache_k[static_cast<std::size_t>(l)], &root_v = cache_v[static_cast<std::size_t>(l)];
      ggml_tensor store = root_k, store_v = root_v, q, K = rows(root_k), V = flash ? rows(root_v) : transposed(root_v);
      store.op = store_v.op = GGML_OP_SET_ROWS, store.view_src = &root_k, store_v.view_src = &root_v;
      store.src[0] = store_v.src[0] = &q, store.src[1] = store_v.src[1] = cells_per_layer && l == 1 ? &other : &indices;
      q.data = queries.data(), q.ne[0] = D, q.ne[1] = T, q.ne[2] = H * G;
      q.nb[1] = static_cast<std::size_t>(H * G * D) * 4, q.nb[2] = static_cast<std::size_t>(D) * 4;
      node(store), node(store_v);
      ggml_tensor copy, attention, soft_max, kqv, cap;
      copy.op = GGML_OP_CPY, copy.src[0] = &K;
      float const parameters[3] = {0.5f, alibi, 0};
      if (flash) {
        attention.op = GGML_OP_FLASH_ATTN_EXT, std::memcpy(attention.op_params, parameters, sizeof parameters);
        attention.src[0] = &q, attention.src[1] = cast ? &copy : &K, attention.src[2] = own_v ? &V : &K;
        node(attention);
        route();
        continue;
      }
      attention.op = GGML_OP_MUL_MAT, attention.src[0] = &K, attention.src[1] = &q;
      cap.op = GGML_OP_TANH, cap.src[0] = &attention;
      soft_max.op = GGML_OP_SOFT_MAX, soft_max.src[0] = tanh ? &cap : &attention;
      std::memcpy(soft_max.op_params, parameters, sizeof parameters);
      kqv.op = GGML_OP_MUL_MAT, kqv.src[0] = own_v ? &V : &q, kqv.src[1] = &soft_max;
      node(attention), node(soft_max), node(kqv);
      route();
    }
  }
  /// ggml_soft_max of build_moe_ffn.
  void route() const {
    ggml_tensor weights, states, logits, soft_max;
    if (!experts) return;
    std::memcpy(weights.name, "ffn_gate_inp", 13);
    logits.op = GGML_OP_MUL_MAT, logits.src[0] = &weights, logits.src[1] = &states;
    soft_max.op = GGML_OP_SOFT_MAX, soft_max.src[0] = &logits, soft_max.op_params[0] = 0x3f800000;  // a scale of 1
    node(logits), node(soft_max);
  }
};

struct llama_context_params {
  bool (*cb_eval)(ggml_tensor*, bool, void*) = nullptr;
  void* cb_eval_user_data = nullptr;
};
/// The model is the context that it will be.
inline llama_context* llama_init_from_model(llama_context* model, llama_context_params const& params) {
  model->cb_eval = params.cb_eval, model->user_data = params.cb_eval_user_data;
  return model;
}
inline std::uint32_t llama_n_ctx(llama_context const* c) { return static_cast<std::uint32_t>(c->cells * c->streams); }
inline std::uint32_t llama_n_ctx_seq(llama_context const* c) { return static_cast<std::uint32_t>(c->cells); }
inline llama_model const* llama_get_model(llama_context const* c) { return &c->model; }
inline std::int32_t llama_model_n_swa(llama_model const* m) { return m->swa; }
inline llama_memory_t llama_get_memory(llama_context* c) { return c; }
inline bool llama_memory_seq_rm(llama_memory_t c, std::int32_t s, std::int32_t p0, std::int32_t p1) {
  for (auto& x : c->memory)
    if (x.sequence == s && x.position >= p0 && (p1 < 0 || x.position < p1)) x = {};
  return true;
}
inline std::int32_t llama_memory_seq_pos_max(llama_memory_t c, std::int32_t s) {
  std::int32_t last = -1;
  for (auto const& x : c->memory)
    if (x.sequence == s) last = std::max(last, x.position);
  return last;
}
inline std::int32_t llama_memory_seq_pos_min(llama_memory_t c, std::int32_t s) {
  std::int32_t first = llama_memory_seq_pos_max(c, s);
  for (auto const& x : c->memory)
    if (x.sequence == s) first = std::min(first, x.position);
  return first;
}
inline std::int32_t llama_decode(llama_context* c, llama_batch const& batch) {
  c->begin();
  if (std::count_if(c->memory.begin(), c->memory.end(), [](auto const& x) { return x.sequence < 0; }) < batch.n_tokens)
    return 1;
  for (std::int32_t from = 0, graph = 0; from < batch.n_tokens; from += c->ubatch, ++graph) {
    std::vector<llama_context::cell> tokens;
    std::vector<std::int64_t> at;
    for (std::int32_t i = from; i < std::min(batch.n_tokens, from + c->ubatch); ++i) {
      std::int32_t const s = batch.seq_id == nullptr ? 0 : batch.seq_id[i][0];
      tokens.push_back({s, batch.pos == nullptr ? llama_memory_seq_pos_max(c, s) + 1 : batch.pos[i]});
      auto const free = std::find_if(c->memory.begin(), c->memory.end(), [](auto const& x) { return x.sequence < 0; });
      *free = tokens.back(), at.push_back(free - c->memory.begin());
    }
    c->compute(tokens, at);
    if (graph != c->fail_at) continue;
    for (auto const& t : tokens) llama_memory_seq_rm(c, t.sequence, t.position, -1);
    return 2;
  }
  return 0;
}

}  // namespace stock
