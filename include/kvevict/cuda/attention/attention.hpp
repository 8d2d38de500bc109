// SPDX-License-Identifier: Apache-2.0
// Attention that query rows pay to every token, on a device: the window's, and that of all rows.
#pragma once

#include <cstdlib>

#include <kvevict/cuda/attention/coded_product.hpp>
#include <kvevict/cuda/attention/columns.hpp>
#include <kvevict/cuda/attention/lse.hpp>
#include <kvevict/cuda/attention/product.hpp>
#include <kvevict/cuda/attention/weight_sums.hpp>
#include <kvevict/cuda/context/decodable.hpp>
#include <kvevict/cuda/context/unit_bytes.hpp>
#include <kvevict/kernels/expect_window.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

void has_kernel(kernels::window_scores_tag, device&);
void has_kernel(kernels::window_weights_tag, device&);
void has_kernel(kernels::column_sums_tag, device&);
void has_kernel(kernels::newest_sums_tag, device&);

template <class Entry>
attention_call<Entry> make_call(device& ctx, frame& scratch, layer_view<Entry> const& view, query_rows const& q,
                                window_options const& o, score_rows const& out) {
  constexpr float log2_e = 1.44269504088896341f;
  constexpr std::int64_t farthest = std::int64_t{1} << 29;  // of 4 bytes
  KVEVICT_EXPECTS(std::max(std::abs(q.token_stride), std::abs(q.lse_token_stride)) < farthest,
                  "evidence: queries or LSE of neighbouring tokens are 2 GiB "
                  "apart or more; a device steps from row to row with 32 bits, provide copies that lie closer");
  for (component const* const c : {view.find(role::k), view.second_keys()})
    if (c != nullptr) expect_decodable(*c);
  float const scale = q.logit_scale();
  std::int32_t const group = out.count() == 0 ? 1 : q.heads / out.heads;
  std::int32_t const most_rows = std::max(1, std::min(o.rows, q.most_rows));
  return {ctx.watch(out.verb()),
          view,
          *view.find(role::k),
          q,
          o,
          out,
          group,
          most_rows,
          q.softcap == 0 ? scale * log2_e : scale / q.softcap,
          q.softcap * log2_e,
          o.weights == weighting::step_gain ? scratch.allocate<float>(out.count() * most_rows) : nullptr,
          nullptr,
          sight_memory::of(scratch, out.count(), most_rows, !sees_by_index(view, q))};
}

/// Of queries with a component of keys, as it is.
inline scalar_product scalar_product_of(component const& keys, query_rows const& q) {
  std::int32_t const run = keys.rows.run_bytes / size_of(keys.type);
  return {keys.rows.n_runs, run, {q.type, std::int64_t{run} * size_of(q.type)}, {keys.type, keys.rows.run_stride}};
}

/// f(product) with the fastest that types and layout allow; keys in two tensors one product after the other, quantised
/// ones decoded on the way.
template <class Entry, class F>
void with_product(layer_view<Entry> const& view, component const& keys, query_rows const& q, F&& f) {
  std::uint64_t const start =
      q.layers == nullptr ? reinterpret_cast<std::uintptr_t>(q.data) : static_cast<std::uint64_t>(q.layer_alignment);
  std::int64_t const strides = q.token_stride | q.head_stride | q.seq_stride | q.layer_stride;
  bool const rows_aligned = (start | static_cast<std::uint64_t>(strides * 2)) % 16 == 0;
  auto const tensor = [&](auto type) {
    using T = decltype(type);
    if (q.head_dim <= 64)
      f(tensor_product<T, 2>{q.head_dim});
    else if (q.head_dim <= 128)
      f(tensor_product<T, 4>{q.head_dim});
    else
      f(tensor_product<T, 0>{q.head_dim});
  };
  bool const wide = rows_aligned && q.type == keys.type && unit_bytes(view, keys) == 16 && keys.rows.n_runs == 1;
  component const* const second = view.second_keys();
  if (keys.is_quantised() || (second != nullptr && second->is_quantised()))
    f(coded_product{row_code(keys), second == nullptr ? row_code() : row_code(*second), q.type, false});
  else if (second != nullptr)
    f(split_product{scalar_product_of(keys, q), scalar_product_of(*second, q), keys.width() * size_of(q.type)});
  else if (wide && q.type == dtype::bf16)
    tensor(bf16{});
  else if (wide && q.type == dtype::f16)
    tensor(f16{});
  else
    f(scalar_product_of(keys, q));
}

/// f(weight_tile) with everything that weights need: rows that are checked, and the LSE of every query row where the
/// engine's is not used.
template <class Entry, class F>
void with_weights(device& ctx, frame& scratch, attention_call<Entry> c, reading what, F&& f) {
  auto const rows = static_cast<std::uint32_t>(c.out.count());
  std::int64_t const wide = std::int64_t{c.group} * c.most_rows, tokens = c.out.most_tokens;
  bool const own_lse = !c.q.has_lse() || c.o.weights == weighting::step_gain;
  if (!own_lse) c.sums = scratch.allocate<std::uint64_t>(c.out.count() * wide);
  bool const checked = !own_lse || looks_at_rows(c);  // else lse_kernel counts rows
  if (checked) check_window(ctx, c, what);
  with_product(c.view, c.keys, c.q, [&](auto product) {
    using P = decltype(product);
    if (own_lse) {
      lse_splits const in(wide, tokens);
      c.lse = scratch.allocate<float>(c.out.count() * wide);
      auto* const peaks = scratch.allocate<float>(c.out.count() * in.stride);
      auto* const sums = scratch.allocate<float>(c.out.count() * in.stride);
      ctx.launch({rows * in.blocks}, {128}, 0,
                 lse_part_kernel<Entry, P>{c, product, divisor(c.view.pages.page_size), peaks, sums, in});
      ctx.launch({blocks_for(c.out.count() * wide, 256)}, {256}, 0,
                 lse_kernel<Entry>{c, what, peaks, sums, in, checked});
    }
    using transposed = decltype(product.transposed());
    f(weight_tile<Entry, transposed>{c, product.transposed()});
    if (!own_lse) check_sums(ctx, c);
  });
}

template <class Entry> void sum_attention(device& ctx, frame& scratch, attention_call<Entry> const& c, reading what) {
  with_weights(ctx, scratch, c, what, [&]<class Product>(weight_tile<Entry, Product> const& tile) {
    auto const rows = static_cast<std::uint32_t>(c.out.count());
    std::int64_t const tokens = c.out.most_tokens, stride = (tokens + 3) / 4 * 4;
    bool const one_by_one = c.o.pool_before_group.width > 1;
    float* const heads = one_by_one ? scratch.allocate<float>(c.out.count() * c.group * stride) : nullptr;
    using columns = column_sums_kernel<Entry, Product>;
    bool const at_once = !one_by_one && c.o.pool.width <= columns::widest;
    pool_options const pooled = at_once ? c.o.pool : pool_options{1};
    std::uint32_t const chunks = blocks_for(tokens, columns::written(pooled)), small = blocks_for(tokens, 256);
    ctx.launch({rows * chunks}, {128}, 0, columns{tile, heads, pooled});
    if (one_by_one)
      ctx.launch(
          {rows * small}, {256}, 0,
          pool_heads_kernel{ctx.watch(), c.o.pool_before_group, c.o.group, c.out, heads, stride, c.group, small});
    if (!at_once) kernels::pool(ctx, c.o.pool, c.out);
  });
}

/// Attention that the last W query rows of a sequence pay to each of its tokens: the host's formula
/// (kernels/window_scores.hpp).
///
/// Cost     2·Hq·W·N·D flop on tensor cores for f16 and bf16 of one type in 16-byte aligned rows (else one by one;
///          codes are decoded for every 2·2 products) and one read of K with the engine's LSE; twice that without. One
///          launch with LSE, three without; pooling up to 33 wide happens in the last one, in blocks that overlap by
///          width − 1 tokens (5 % of the products for 7), wider in one more behind a copy. Scratch without LSE: 4·Hq·W
///          bytes and 8 more per split of 1 024 tokens. D ≤ 128 holds the keys in registers, beyond that they are read
///          once a row tile.
/// Errors   as on the host; what needs a look at the rows by fault::queries and fault::weight_sum.
template <class Entry>
void kernel(kernels::window_scores_tag, device& ctx, layer_view<Entry> const& view, query_rows const& q,
            window_options const& o, score_rows const& out) {
  expect_window_options(q, o, out);
  if (out.count() == 0) return;
  expect_most_rows(q.most_rows);
  frame scratch(ctx.scratch());
  attention_call<Entry> const c = make_call(ctx, scratch, view, q, o, out);
  sum_attention(ctx, scratch, c, reading_of(out, reading::window));
}

/// The weights of each of the last W query rows, reduced over the group (kernels/window_scores.hpp).
///
/// Cost     as window_scores, and W floats written a token; four launches without LSE, two with it.
/// Errors   as window_scores; fault::tokens for fewer tokens than rows, fault::not_finite. Of rows of observe() W is
///          an upper bound: where a sequence provides fewer, the last planes are not written.
template <class Entry>
void kernel(kernels::window_weights_tag, device& ctx, layer_view<Entry> const& view, query_rows const& q,
            window_options const& o, score_rows const& out) {
  expect_window_options(q, o, out), expect_single_rows(o);
  if (out.count() == 0) return;
  expect_most_rows(q.most_rows);
  frame scratch(ctx.scratch());
  attention_call<Entry> const c = make_call(ctx, scratch, view, q, o, out);
  with_weights(ctx, scratch, c, reading_of(out, reading::single_rows),
               [&]<class Product>(weight_tile<Entry, Product> const& tile) {
                 ctx.launch({static_cast<std::uint32_t>(out.count()) * blocks_for(out.most_tokens, 128)}, {128}, 0,
                            window_weights_kernel<Entry, Product>{tile});
               });
}

/// Attention that each token has received from all N rows of its sequence (kernels/column_sums.hpp), by the same two
/// passes.
///
/// Cost     Hq·N²·D flop with LSE, twice that without; scratch without LSE 12·Hq·N bytes, never N×N.
template <class Entry>
void kernel(kernels::column_sums_tag, device& ctx, layer_view<Entry> const& view, query_rows const& q, group_reduce how,
            score_rows const& out) {
  KVEVICT_EXPECTS(out.positions == nullptr,
                  "column_sums: the rows are scattered, so slots are not in the order of the queries; keep a "
                  "running sum in the cache's state instead, or compact stably");
  if (out.count() == 0) return;
  expect_most_rows(q.most_rows);
  frame scratch(ctx.scratch());
  window_options const o{std::max(1, q.most_rows), row_reduce::sum, how};
  attention_call<Entry> const c = make_call(ctx, scratch, view, q, o, out);
  sum_attention(ctx, scratch, c, reading::all_tokens);
}

/// The same kernel serves few rows and all of them.
template <class View, class Rows>
void kernel(kernels::newest_sums_tag, device& ctx, View const& view, Rows const& rows, window_options const& o,
            score_rows const& out) {
  kernels::window_scores(ctx, view, rows, o, out);
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda
