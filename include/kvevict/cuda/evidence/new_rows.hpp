// SPDX-License-Identifier: Apache-2.0
// The device's rows of observe(): the host's are in evidence/rows.hpp.
#pragma once

#include <kvevict/cuda/evidence/rows.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

void has_kernel(kernels::observe_rows_tag, device&);

/// What observe() makes of a row whose new tokens are known: it takes in all.
template <class Entry, class Layers> struct assign_budgets {
  static constexpr std::int32_t least = planning::least_budget<Layers>();
  layer_view<Entry> cache;
  row_places places;
  older_tokens older;
  older_tokens const* older_each;
  bool scattered, is_shard;
  protect keep;
  Layers layers;
  budget want;

  KVEVICT_DEVICE bool takes_in(row const& it) const {
    return places.rows(it.sequence) > 0 && !want.keeps_whole(it.sequence);
  }
  KVEVICT_DEVICE void operator()(row& it) const {
    if (!takes_in(it)) return;
    planning::observe_all(it, scattered, keep, layers, want.in_layer(cache.pages.layer_of(it.sequence)),
                          cache.read_only_tokens(it.sequence));
    if ((older_each == nullptr ? older : older_each[it.sequence]) == older_tokens::zero) planning::start_at_zero(it);
  }
};

/// One thread per row of observe().
///
/// Shapes   evidence of B sequences → rows (B·H), begin (B·H+1).
template <class Evidence, class All> struct observe_rows_kernel {
  static constexpr int max_threads = 128;
  watched watch;
  Evidence e;
  All all;
  budget want;
  row* rows;
  std::int64_t* begin;
  std::int64_t stride;

  KVEVICT_DEVICE void operator()(thread& t) const {
    if (watch.stopped(t)) return;
    std::int64_t const r = std::int64_t{t.block().x} * t.block_size().x + t.linear_index();
    if (r >= e.cache.rows()) return;
    auto const b = static_cast<std::int32_t>(r / e.cache.heads()), h = static_cast<std::int32_t>(r % e.cache.heads());
    row it = whole_row(e.cache, b, h);
    if (want.keeps_whole(b)) {
      planning::leave_out(it);
      return put(r, it);
    }
    std::int32_t const n = rows_of(e, b);
    if constexpr (!has<Evidence, facts::features>) {
      if (n > 0 && e.attention.positions == nullptr) return watch.refuse(t, fault::no_positions, b, h);
    }
    planning::older_check const c(e, b, h, it.tokens);
    if (n > it.tokens)
      watch.refuse(t, fault::more_rows_than_tokens, b, h, n, it.tokens);
    else if (c.wrong != older_fault::none)
      watch.refuse(t, fault::older_tokens, b, h, c.older, c.known, 0, static_cast<std::int32_t>(c.wrong));
    if (has<Evidence, facts::features> && all.scattered && n > 1) watch.refuse(t, fault::scattered_rows, b, h, n);
    if (want.of(b) < All::least) watch.refuse(t, fault::negative_budget, b, h, want.of(b));
    if constexpr (!has<Evidence, facts::features>)
      if (n <= it.tokens) check_positions(t, it, n);
    if (n == 0)
      planning::leave_out(it);
    else
      planning::protect_interval(it, 0, c.fresh);
    if (n != 0 && !all.scattered) all(it);
    put(r, it);
  }

 private:
  KVEVICT_DEVICE void put(std::int64_t r, row const& it) const {
    rows[r] = it;
    begin[r] = r * stride;
    if (r + 1 == e.cache.rows()) begin[r + 1] = (r + 1) * stride;
  }

 private:
  /// A row's share of its sequence's positions.
  KVEVICT_DEVICE void check_positions(thread& t, row const& it, std::int32_t n) const {
    window_rows const in = newest_rows(e.cache, e.attention, it.sequence, it.tokens, n, row_place::in_cache);
    auto const sights = sights_of(e.cache, e.attention, it.sequence, it.head, it.tokens, in, row_place::in_cache);
    for (std::int32_t i = it.head; i < n; i += e.cache.heads()) {
      std::int64_t const at = sights.position(i);
      sight_fault const why = sights.fault_of(i);
      if (at < 0)
        watch.refuse(t, fault::position, it.sequence, it.head, at, 0, i);
      else if (why != sight_fault::none)
        watch.refuse(t, fault::row_sight, it.sequence, it.head, at, static_cast<std::int64_t>(why), i);
    }
  }
};

template <class Evidence, class Layers>
score_rows kernel(kernels::observe_rows_tag, device& ctx, frame& scratch, Evidence const& e, protect const& keep,
                  Layers const& layers, budget const& want) {
  score_rows out = allocate_rows(true, scratch, e.cache, want.layer);
  assign_budgets<typename decltype(e.cache)::table_entry, Layers> all{
      e.cache, places_of(e), e.older, e.older_each, out.positions != nullptr, planning::is_shard(e),
      keep,    layers,       want};
  ctx.launch({blocks_for(out.count(), 128)}, {128}, 0,
             observe_rows_kernel<Evidence, decltype(all)>{ctx.watch(out.verb()), e, all, want, out.rows, begin_of(out),
                                                          stride_of(out)});
  rank_by_position(ctx, e.cache, out, false, all);
  return out;
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda
