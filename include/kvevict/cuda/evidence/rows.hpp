// SPDX-License-Identifier: Apache-2.0
// The device's rows of a plan. What is decided about them is decided by evidence/planning.hpp, as on the host.
#pragma once

#include <kvevict/cuda/context/device.hpp>
#include <kvevict/cuda/context/row_grid.hpp>
#include <kvevict/cuda/evidence/position_ranks.hpp>
#include <kvevict/evidence/rows.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

void has_kernel(kernels::plan_rows_tag, device&);
void has_kernel(kernels::new_rows_tag, device&);
void has_kernel(kernels::most_rows_tag, device&);

template <class Entry> KVEVICT_DEVICE row whole_row(layer_view<Entry> const& cache, std::int32_t b, std::int32_t h) {
  std::int32_t const n = cache.length(b, h);
  return {b, h, n, 0, n, n, n, false};
}

/// One block per sequence, threads over its heads.
///
/// Shapes   lengths of (B·H) rows → rows (B·H), begin (B·H+1).
template <class Entry, class Layers> struct plan_rows_kernel {
  static constexpr int max_threads = 128;
  watched watch;
  layer_view<Entry> cache;
  protect keep;
  Layers layers;
  budget want;
  sharing share;
  std::int32_t page;
  row* rows;
  std::int64_t* begin;
  std::int64_t stride;

  KVEVICT_DEVICE void operator()(thread& t) const {
    if (watch.stopped(t)) return;
    KVEVICT_SHARED(t, std::uint64_t, total, 2);  // and of them tokens of part-filled pages
    KVEVICT_SHARED(t, std::int32_t, longest, 1);
    auto const b = static_cast<std::int32_t>(t.block().x), H = cache.heads();
    auto const first = static_cast<std::int32_t>(t.linear_index()), step = static_cast<std::int32_t>(t.block_size().x);
    if (share == sharing::stack || (planning::after_scores<Layers>() && share != sharing::cap)) {
      for (std::int32_t h = first; h < H; h += step) write(t, unit_of_stack(b, h), sharing::stack, b, h);
      return;
    }
    if constexpr (planning::has_units<Layers>)
      if (share != sharing::cap && planning::moves_budget(layers)) {
        for (std::int32_t h = first; h < H; h += step) write(t, unit_of(b, h), share, b, h);
        return;
      }
    if (first == 0) total[0] = total[1] = 0, longest[0] = 0;
    t.sync_block();
    for (std::int32_t h = first; h < H; h += step) {
      atomic_add(t, &total[0], static_cast<std::uint64_t>(cache.length(b, h)));
      if (page > 1) atomic_add(t, &total[1], static_cast<std::uint64_t>(cache.length(b, h) % page));
      atomic_max(t, &longest[0], cache.length(b, h));
    }
    t.sync_block();
    budget const asked = want.in_layer(cache.pages.layer_of(b));
    auto p = planning::plan_sequence(keep, layers, asked, share, b, H, static_cast<std::int64_t>(total[0]), longest[0],
                                     cache.read_only_tokens(b), page, static_cast<std::int64_t>(total[1]));
    for (std::int32_t h = first; h < H; h += step) write(t, p, share, b, h);
  }

 private:
  /// Every thread decides alike where heads share a budget.
  KVEVICT_DEVICE planning::sequence_plan unit_of(std::int32_t b, std::int32_t h) const {
    planning::model_layers<Entry> const all{&cache, &want};
    std::int32_t const head = share == sharing::heads ? 0 : h, heads = share == sharing::heads ? cache.heads() : 1;
    if (!all.known()) return planning::plan_alone(keep, layers, all, b, head, heads, page);
    return planning::unit_plan<Layers, Entry>(keep, layers, all, b, head, heads, page)
        .of_layer(all.layer_of(b), want.of(b));
  }

  KVEVICT_DEVICE void refuse_budget(thread& t, planning::sequence_plan const& p, std::int32_t b, std::int32_t h,
                                    std::int32_t tokens) const {
    watch.refuse(t, fault::budget_below_protected, b, h, p.asked, tokens, p.page, p.front,
                 p.page > 1 ? keep.recent : p.back);
  }

  KVEVICT_DEVICE planning::sequence_plan unit_of_stack(std::int32_t b, std::int32_t h) const {
    return planning::plan_stack(
        keep, cache, want, b,
        share == sharing::none ? planning::head_of_unit(want, h) : planning::heads_of_unit(cache, want), page);
  }

  KVEVICT_DEVICE void write(thread& t, planning::sequence_plan p, sharing by, std::int32_t b, std::int32_t h) const {
    using fault_of = planning::sequence_plan::fault;
    if (want.keeps_whole(b)) p.cut = false, p.wrong = fault_of::none;
    if (p.wrong == fault_of::no_budget) watch.refuse(t, fault::negative_budget, b, h, p.asked);
    if (p.wrong == fault_of::budget_below_protected) refuse_budget(t, p, b, h, p.protected_tokens);
    if (p.wrong == fault_of::other_lengths)
      watch.refuse(t, fault::other_lengths, b, p.head, p.given, p.has, 0, p.layer);
    std::int64_t const r = std::int64_t{b} * cache.heads() + h;
    row it = whole_row(cache, b, h);
    if (p.cut && p.wrong == fault_of::none) {
      planning::row_ends const ends = planning::ends_of(p, keep, it.tokens);
      planning::protect_interval(it, ends.front, ends.back);
      planning::assign_budget(it, p, by, cache.heads());
      if (planning::pages_beyond_budget(it, p, by)) refuse_budget(t, p, b, h, it.protected_tokens());
    }
    rows[r] = it;
    begin[r] = r * stride;
    if (r + 1 == cache.rows()) begin[r + 1] = (r + 1) * stride;
  }
};

struct as_planned {
  KVEVICT_DEVICE void operator()(row&) const {}
};
/// Their memory: N of the longest possible row a row, so that grids and scratch depend on nothing that only the device
/// knows.
template <class Entry>
score_rows allocate_rows(bool observed, frame& scratch, layer_view<Entry> const& cache, std::int32_t layer) {
  score_rows out;
  out.observed = observed;
  planning::expect_positions(out.verb(), cache);
  std::int64_t const n = cache.rows(), most = cache.pages.most_tokens(), stride = (most + 3) / 4 * 4;
  out.rows = scratch.allocate<row>(n);
  out.begin = scratch.allocate<std::int64_t>(n + 1);
  out.values = scratch.allocate<float>(n * stride);
  out.positions = cache.order == row_order::ascending ? nullptr : scratch.allocate<std::int32_t>(n * stride);
  out.sequences = cache.sequences(), out.heads = cache.heads(), out.layer = layer, out.layers = cache.pages.layers;
  out.most_tokens = most, out.total_floats = n * stride;
  return out;
}
inline std::int64_t* begin_of(score_rows const& out) { return const_cast<std::int64_t*>(out.begin); }

template <class Entry, class Layers>
score_rows kernel(kernels::plan_rows_tag, device& ctx, frame& scratch, layer_view<Entry> const& cache,
                  protect const& keep, Layers const& layers, budget const& want, sharing share, std::int32_t page = 1,
                  visibility const& = {}) {
  score_rows out = allocate_rows(false, scratch, cache, want.layer);
  out.first_head = want.head, out.model_heads = want.head_count;
  ctx.launch({out.heads == 0 ? 0 : static_cast<std::uint32_t>(out.sequences)}, {128}, 0,
             plan_rows_kernel<Entry, Layers>{ctx.watch(out.verb()), cache, keep, layers, want, share, page, out.rows,
                                             begin_of(out), stride_of(out)});
  rank_by_position(ctx, cache, out, true, as_planned{});
  return out;
}

/// What a device sizes its grids and scratch by: an upper bound, 0 where no sequence provides any.
inline void expect_most_rows(std::int32_t most_rows) {
  KVEVICT_EXPECTS(most_rows >= 0, "evidence: most_rows is ", most_rows,
                  "; a device cannot look row_begin up, say how many rows a sequence provides at most");
}

/// As many as there may be, one at least; of scattered rows one. How many there are only the device knows.
template <class Evidence> std::int32_t kernel(kernels::new_rows_tag, device&, Evidence const& e) {
  if constexpr (has<Evidence, facts::features>)
    return e.cache.order == row_order::scattered ? 1 : std::max(1, e.input.most_rows);
  else
    return std::max(1, e.attention.most_rows);
}

inline std::int64_t kernel(kernels::most_rows_tag, device&, feature_rows const& in, std::int32_t sequences) {
  return std::int64_t{in.most_rows} * sequences;
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda
