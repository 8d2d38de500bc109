// SPDX-License-Identifier: Apache-2.0
// The queries that a llama.cpp batch shows: all of it for policies that observe, and the last of each sequence.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include <kvevict/core/query_ring.hpp>
#include <kvevict/engines/llama_cells.hpp>
#include <kvevict/engines/llama_tap.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace engines::llama {

/// Tokens of the last batch with their sequences and positions, its rows of queries, and a ring of the last `window`
/// rows of each sequence and layer.
template <class Tensor> class query_memory {
 public:
  struct token {
    std::int32_t sequence, position;
  };
  std::vector<token> tokens;

  query_memory(std::int32_t sequences, std::int32_t window) : sequences_(sequences), window_(window) {}

  /// Tells the tap which tokens' queries are wanted: the newest `most` of each sequence, packed by sequence.
  template <class Batch>
  void begin(tap<Tensor>& graph, cell_lists const& cells, Batch const& batch, std::int32_t most) {
    auto const S = static_cast<std::size_t>(sequences_);
    std::vector<std::int32_t> count(S, 0), nth;
    tokens.clear(), graph.cells.clear(), graph.row_of.clear();
    for (std::int32_t i = 0; i < batch.n_tokens; ++i) {
      KVEVICT_EXPECTS(batch.seq_id == nullptr || batch.n_seq_id == nullptr || batch.n_seq_id[i] == 1, "llama: token ",
                      i, " of the batch is in several sequences; give each sequence its own");
      std::int32_t const s = batch.seq_id == nullptr ? 0 : batch.seq_id[i][0], next = cells.newest(s) + 1;
      nth.push_back(count[static_cast<std::size_t>(s)]++);
      tokens.push_back({s, batch.pos == nullptr ? next + nth.back() : batch.pos[i]});
    }
    row_begin_.assign(1, 0);
    for (std::int32_t const n : count) row_begin_.push_back(row_begin_.back() + std::min(n, most));
    graph.rows = row_begin_.back();
    row_positions_.resize(static_cast<std::size_t>(graph.rows));
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      auto const s = static_cast<std::size_t>(tokens[i].sequence);
      std::int32_t const in_row = nth[i] - std::max(0, count[s] - most), row = in_row < 0 ? -1 : row_begin_[s] + in_row;
      graph.row_of.push_back(row);
      if (row >= 0) row_positions_[static_cast<std::size_t>(row)] = tokens[i].position;
    }
  }

  query_rows of_batch(tap<Tensor> const& graph) const {
    query_rows q;
    q.data = graph.queries.data(), q.heads = graph.query_heads, q.head_dim = graph.head_dim;
    q.token_stride = std::int64_t{q.heads} * q.head_dim, q.head_stride = q.head_dim;
    q.row_begin = row_begin_.data(), q.positions = row_positions_.data();
    q.sequences = sequences_, q.layer_stride = graph.rows * q.token_stride;
    return q;
  }

  /// Its memory is taken when the model's shape is known.
  query_ring ring(tap<Tensor> const& graph) {
    std::size_t const rows = graph.layers.size() * static_cast<std::size_t>(sequences_);
    auto const width = static_cast<std::size_t>(2 * window_);
    ring_.resize(rows * width * static_cast<std::size_t>(graph.query_heads * graph.head_dim));
    places_.resize(rows * (width + 2));
    query_ring r;
    r.data = ring_.data(), r.window = window_, r.heads = graph.query_heads, r.head_dim = graph.head_dim;
    r.positions = places_.data(), r.begin = r.positions + rows * width, r.count = r.begin + rows;
    return r;
  }
  /// Rows of tokens that are gone from the end of a sequence go, too.
  void forget(tap<Tensor> const& graph, std::int32_t s, std::int32_t newest) {
    query_ring const r = ring(graph);
    for (std::int32_t b = s; b < static_cast<std::int32_t>(graph.layers.size()) * sequences_; b += sequences_)
      while (r.count[b] > 0 && r.positions[std::int64_t{b} * 2 * window_ + r.begin[b] + r.count[b] - 1] > newest)
        --r.count[b];
  }

 private:
  std::int32_t sequences_, window_;
  std::vector<std::int32_t> row_begin_{0}, row_positions_;  // (S + 1), (rows)
  std::vector<float> ring_;
  std::vector<std::int32_t> places_;  // of the ring: positions, begin, count
};

}  // namespace engines::llama
}  // namespace KVEVICT_ABI
}  // namespace kvevict
