// SPDX-License-Identifier: Apache-2.0
// Attention that every token receives from all rows of a sequence, without the N×N matrix.
#pragma once

#include <kvevict/core/evidence_messages.hpp>
#include <kvevict/kernels/column_shape.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {

void has_kernel(column_sums_tag, host&);

template <class Entry> class column_pass {
 public:
  column_pass(host& ctx, layer_view<Entry> const& view, query_rows const& q, group_reduce how, score_rows const& out)
      : ctx_(ctx),
        view_(view),
        keys_(*view.find(role::k)),
        q_(q),
        how_(how),
        out_(out),
        shape_{out.count() == 0 ? 1 : q.heads / out.heads, q.head_dim, 0, q.has_lse()} {
    for (std::int64_t r = 0; r < out.count(); ++r)
      if (out.rows[r].active) shape_.tokens = std::max<std::int64_t>(shape_.tokens, out.rows[r].tokens);
  }

  void run() {
    frame f(ctx_.scratch());
    memory_ = f.allocate<float>(shape_.share_floats() * ctx_.concurrency());
    if (shape_.normalised)
      checked_ = weight_sums(f, out_.begin[out_.count()] * shape_.group);
    else
      lse_ = f.allocate<float>(out_.begin[out_.count()] * shape_.group);
    in_ = f.allocate<window_rows>(out_.count());
    for (std::int64_t r = 0; r < out_.count(); ++r) {
      row const& of = out_.rows[r];
      if (!of.active) continue;
      in_[r] = newest_rows(view_, q_, of.sequence, of.tokens, of.tokens, row_place::in_cache);
      read_sights(f, view_, q_, of.sequence, of.head, of.tokens, row_place::in_cache, in_[r]);
    }
    if (!shape_.normalised) each(shape_.block_tokens(), &column_pass::normalise);
    each(strip_tokens, &column_pass::sum_strip);
    for (std::int64_t r = 0; shape_.normalised && r < out_.count(); ++r)
      if (out_.rows[r].active) check(r);
  }

 private:
  using step = void (column_pass::*)(std::int64_t, std::int64_t, float*);

  /// One task for every `size` tokens of every active row.
  void each(std::int64_t size, step f) {
    std::int64_t const items = (shape_.tokens + size - 1) / size;
    ctx_.for_each(out_.count() * items, [&](std::int64_t i, std::int32_t slot) {
      std::int64_t const r = i / items, first = i % items * size;
      if (out_.rows[r].active && first < out_.rows[r].tokens)
        (this->*f)(r, first, memory_ + slot * shape_.share_floats());
    });
  }

  /// How many query rows a block has that begins at `first`.
  std::int32_t rows_from(std::int64_t r, std::int64_t first) const {
    return static_cast<std::int32_t>(std::min<std::int64_t>(shape_.block_tokens(), out_.rows[r].tokens - first));
  }
  /// Query rows [first, first + block_tokens) of all heads of row r.
  query_block pack(std::int64_t r, std::int64_t first, float* memory) const {
    row const& in = out_.rows[r];
    std::int32_t const window = rows_from(r, first);
    query_block q = make_query_block(memory, window * shape_.group, q_.head_dim);
    q.tokens = in.tokens;
    query_rows const own = q_.of(in.sequence);
    pack_queries(q, own, in_[r], static_cast<std::int32_t>(first), window, in.head, shape_.group, nullptr);
    if (shape_.normalised)
      fill_lse(q, own, in_[r], static_cast<std::int32_t>(first), in.head, shape_.group);
    else
      q.lse = lse_ + (out_.begin[r] + first) * shape_.group;
    return q;
  }
  /// A row of the block that begins at i may see one of the tokens [first, last).
  bool sees_any(std::int64_t r, std::int64_t i, std::int64_t first, std::int64_t last) const {
    window_rows const& in = in_[r];
    auto const oldest = static_cast<std::int32_t>(i), newest = oldest + rows_from(r, i) - 1;
    return in.end(newest) > first && (in.of(oldest).from < last || (in.always.from < last && in.always.to > first));
  }

  void check(std::int64_t r) const {
    row const& in = out_.rows[r];
    double norm = -1;
    query_rows const own = q_.of(in.sequence);
    for (std::int32_t g = 0; g < shape_.group; ++g)
      for (std::int64_t i = 0; i < in.tokens; i += shape_.block_tokens())
        expect_sums(view_, keys_, own, in_[r], static_cast<std::int32_t>(i), rows_from(r, i),
                    std::int64_t{in.head} * shape_.group + g, in, q_.sum,
                    checked_.from((out_.begin[r] + i) * shape_.group + g * rows_from(r, i)), memory_, norm);
  }

  void pack_tile(std::int64_t r, std::int64_t first, float* to) const {
    row const& in = out_.rows[r];
    pack_keys(view_, in.sequence, in.head, first, in.tokens, to);
  }

  /// The LSE of a block of query rows.
  void normalise(std::int64_t r, std::int64_t first, float* memory) {
    query_block const q = pack(r, first, memory);
    float* const tokens = memory + shape_.query_floats();
    float* const peaks = tokens + shape_.strip_floats();
    float* const sums = peaks + padded(q.rows, row_block);
    kvevict::fill(peaks, sums, below_all_logits), kvevict::fill(sums, sums + padded(q.rows, row_block), 0.0f);
    for (std::int64_t t = 0; t < q.some.to; t += tile_tokens) {
      if (q.sees_none(t)) continue;
      pack_tile(r, t, tokens);
      for (int i = 0; i < q.rows; i += row_block) {
        vec z[row_block][tile_vectors], peak = load_first<row_block>(peaks + i), sum = load_first<row_block>(sums + i);
        float tile_peak[row_block], tile_sum[row_block];
        logits(q, i, tokens, t, z);
        exponentiate(z, nullptr, tile_peak, tile_sum);
        merge(load_first<row_block>(tile_peak), load_first<row_block>(tile_sum), peak, sum);
        store_some(peaks + i, peak, row_block), store_some(sums + i, sum, row_block);
      }
    }
    for (int i = 0; i < q.rows; ++i) {
      q.lse[i] = lse_of(peaks[i], sums[i], [&] { return q.row_sees_any(i); });
      if (q_.sink_logits != nullptr)
        q.lse[i] =
            lse_with(q.lse[i], q_.sink_logits[out_.rows[r].head * shape_.group + i / q.window] * 1.44269504088896341f);
    }
  }

  void sum_strip(std::int64_t r, std::int64_t first, float* memory) {
    row const& in = out_.rows[r];
    float* const tokens = memory + shape_.query_floats();
    // (strip_tiles, G, tile_tokens)
    float* const block_sums = tokens + shape_.strip_floats();
    double* const sums = reinterpret_cast<double*>(block_sums + shape_.column_floats());  // the same
    std::int64_t const last = std::min<std::int64_t>(first + strip_tokens, in.tokens), size = shape_.column_floats();
    float* const checked = shape_.normalised ? block_sums + 3 * size : nullptr;
    for (std::int64_t t = first; t < last; t += tile_tokens)
      pack_tile(r, t, tokens + (t - first) / tile_tokens * tile_floats(q_.head_dim));
    kvevict::fill(sums, sums + size, 0.0);
    for (std::int64_t i = 0; i < in.tokens; i += shape_.block_tokens()) {
      if (!sees_any(r, i, first, last)) continue;
      query_block const q = pack(r, i, memory);
      kvevict::fill(block_sums, block_sums + size, 0.0f);
      if (checked != nullptr) kvevict::fill_n(checked, std::int64_t{q.rows} * lanes, 0.0f);
      for (std::int64_t t = first; t < last; t += tile_tokens) {
        if (q.sees_none(t)) continue;
        std::int64_t const tile = (t - first) / tile_tokens;
        sum_tile(q, tokens + tile * tile_floats(q_.head_dim), t, block_sums + tile * shape_.group * tile_tokens,
                 checked);
      }
      if (checked != nullptr) take_parts(checked, q.rows, checked_.from((out_.begin[r] + i) * shape_.group));
      for (std::int64_t j = 0; j < size; ++j) sums[j] += static_cast<double>(block_sums[j]);
    }
    for (std::int64_t j = 0; j < size; ++j) block_sums[j] = static_cast<float>(sums[j]);
    put(r, first, last, block_sums);
  }

  static void sum_tile(query_block const& q, float const* tokens, std::int64_t first, float* columns, float* checked) {
    for (int i = 0; i < q.rows; i += row_block) {
      vec z[row_block][tile_vectors];
      logits(q, i, tokens, first, z);
      add_weights(z, q, i, q.window, columns, checked);
    }
  }

  void put(std::int64_t r, std::int64_t first, std::int64_t last, float* sums) const {
    for (std::int64_t t = first; t < last; t += tile_tokens, sums += shape_.group * tile_tokens) {
      reduce_heads(how_, shape_.group, tile_tokens, tile_tokens, sums);
      kvevict::copy_n(sums, std::min<std::int64_t>(tile_tokens, last - t), out_.scores(r).data + t);
    }
  }

  host& ctx_;
  layer_view<Entry> const& view_;
  component const& keys_;
  query_rows const& q_;
  group_reduce how_;
  score_rows const& out_;
  column_shape shape_;
  float *memory_ = nullptr, *lse_ = nullptr;
  window_rows* in_ = nullptr;  // (B·H)
  weight_sums checked_;        // of every query row, with the engine's LSE
};

/// Attention that each token has received from all N rows of its sequence, row i being token i, as far as they see it.
///
///   o(h,j) = 1/G · Σ_g Σ_{i≥j} exp( z(h·G+g, i, j) − lse(h·G+g, i) )      or the sum or the maximum over g
///
/// Shapes   queries (ΣN,Hq,D) ragged, keys (H,N,D), floats or quantised, any layout → scores (B·H rows, N) float.
/// Cost     Hq·N²·D flop with LSE, twice that without, which also takes one float a query row. Sums of a block of rows
///          in float, of blocks in double, always in order of i. Scratch: column_sums_bytes.
/// Errors   contract_violation if an active sequence does not provide a row of every token, a row's weights by the
///          engine's LSE do not add up to what they should (expect_sums), what a row sees cannot be told, or rows are
///          scattered.
template <class Entry>
void kernel(column_sums_tag, host& ctx, layer_view<Entry> const& view, query_rows const& q, group_reduce how,
            score_rows const& out) {
  expect_visibility(q.sees);
  KVEVICT_EXPECTS(out.positions == nullptr,
                  "column_sums: the rows are scattered, so slots are not in the order of the queries; keep a "
                  "running sum in the cache's state instead, or compact stably");
  for (std::int64_t r = 0; r < out.count(); ++r) {
    row const& in = out.rows[r];
    if (in.active && q.rows(in.sequence) != in.tokens)
      messages::not_all_rows("column_sums", in.sequence, q.rows(in.sequence), "query", in.tokens);
    if (in.active) expect_sights(view, q, in, in.tokens, row_place::in_cache);
  }
  column_pass<Entry>(ctx, view, q, how, out).run();
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
