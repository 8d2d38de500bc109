// SPDX-License-Identifier: Apache-2.0
// rerotate() on a device: keys are turned to contiguous positions in the context's stream.
#pragma once

#include <algorithm>
#include <limits>

#include <kvevict/apply/turned_rows.hpp>
#include <kvevict/cuda/context/call.hpp>
#include <kvevict/cuda/evidence/validate.hpp>
#include <kvevict/cuda/scores/rope_steps.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

/// A thread for every token of a (row, 256 tokens) grid.
struct turning_grid {
  static constexpr std::int32_t threads = 256;
  std::uint32_t chunks;

  KVEVICT_DEVICE std::int64_t row(thread& t) const { return t.block().x / chunks; }
  KVEVICT_DEVICE std::int64_t token(thread& t) const {
    return std::int64_t{t.block().x % chunks} * threads + t.linear_index();
  }
};

/// Every row can be turned, as on the host; and the ranks of scattered rows, for which each token is compared with all
/// of its row.
///
/// Shapes   positions (B·H, N) → ranks (B·H, stride), or null.
template <class Entry> struct check_turns_kernel {
  static constexpr int max_threads = turning_grid::threads;
  watched watch;
  turned_rows<Entry> in;
  turning_grid grid;
  std::int32_t* ranks;

  KVEVICT_DEVICE void operator()(thread& t) const {
    KVEVICT_SHARED(t, std::int32_t, others, turning_grid::threads);
    if (watch.stopped(t)) return;
    layer_view<Entry> const& v = in.view;
    std::int64_t const r = grid.row(t), j = grid.token(t);
    auto const b = static_cast<std::int32_t>(r / v.heads()), h = static_cast<std::int32_t>(r % v.heads());
    std::int32_t const n = v.length(b, h), of_others = v.length(in.position_sequence(b), in.position_head(h));
    if (n != of_others) {
      if (j == 0) watch.refuse(t, fault::common_positions_of_other_length, b, h, n, of_others);
      return;
    }
    std::int32_t const p = j < n ? in.position(b, h, j) : 0;
    auto place = static_cast<std::int32_t>(j);
    if (ranks != nullptr) {
      std::int32_t equal = 0;
      place = 0;
      for (std::int32_t from = 0; from < n; from += turning_grid::threads) {
        std::int32_t const i = from + static_cast<std::int32_t>(t.linear_index());
        if (i < n) others[t.linear_index()] = in.position(b, h, i);
        t.sync_block();
        for (std::int32_t k = 0; k < turning_grid::threads && from + k < n; ++k)
          place += others[k] < p, equal += others[k] == p;
        t.sync_block();
      }
      if (j < n) ranks[r * in.stride + j] = place;
      if (j < n && (p < 0 || equal > 1)) watch.refuse(t, fault::positions_cannot_turn, b, h);
    } else if (j < n && v.owns(in.position_component(), b, h)) {
      std::int32_t const before = j == 0 ? -1 : in.position(b, h, j - 1);
      if (p <= before) watch.refuse(t, fault::not_ascending, b, h, before, p, j);
    }
    if (j < n && j < v.read_only_tokens(b) && p != in.first + place)
      watch.refuse(t, fault::prefix_would_turn, b, h, p, in.first + place, j);
  }
};

/// A row's tokens in all components that turn: neighbouring threads have neighbouring pairs.
///
/// Shapes   components (B·H, N, width), positions (B·H, N) → components.
template <class Entry> struct turn_rows_kernel {
  static constexpr int max_threads = turning_grid::threads;
  static constexpr std::int32_t tokens = 16;  // of a block
  watched watch;
  turned_rows<Entry> in;
  std::uint32_t chunks;

  KVEVICT_DEVICE void operator()(thread& t) const {
    if (watch.stopped(t)) return;
    layer_view<Entry> const& v = in.view;
    std::int64_t const r = t.block().x / chunks;
    auto const b = static_cast<std::int32_t>(r / v.heads()), h = static_cast<std::int32_t>(r % v.heads());
    std::int32_t const first = static_cast<std::int32_t>(t.block().x % chunks) * tokens,
                       count = std::min(tokens + 0, v.length(b, h) - first);  // + 0: a device has no address of it
    for (std::int32_t c = 0; c < v.component_count && count > 0; ++c) {
      component const& of = v.begin()[c];
      turning const& by = in.by[static_cast<std::size_t>(c)];
      if (by.width == 0 || !v.owns(of, b, h)) continue;
      token_rows<Entry> const rows = v.rows_of(of, b, h);
      for (auto i = static_cast<std::int32_t>(t.linear_index()); i < count * by.count(); i += max_threads) {
        std::int32_t const token = first + i / by.count(), pair = i % by.count();
        std::int64_t const far = std::int64_t{in.target(b, h, token)} - in.position(b, h, token);
        if (far == 0) continue;
        turn const how = turn_by(far, by.steps[pair]);
        with_type(of.type, [&](auto type) { turn_pair<decltype(type)>(rows(token), of.rows, by.pair(pair), how); });
      }
    }
  }
};

/// When all keys are turned.
///
/// Shapes   → positions (B·H, N).
template <class Entry> struct write_positions_kernel {
  static constexpr int max_threads = turning_grid::threads;
  watched watch;
  turned_rows<Entry> in;
  turning_grid grid;

  KVEVICT_DEVICE void operator()(thread& t) const {
    if (watch.stopped(t)) return;
    layer_view<Entry> const& v = in.view;
    std::int64_t const r = grid.row(t), j = grid.token(t);
    auto const b = static_cast<std::int32_t>(r / v.heads()), h = static_cast<std::int32_t>(r % v.heads());
    if (j >= v.length(b, h) || !v.owns(in.position_component(), b, h)) return;
    if (std::int32_t const to = in.target(b, h, j); in.position(b, h, j) != to) in.position(b, h, j) = to;
  }
};

template <class Entry>
void enqueue_rerotation(device& ctx, layer_view<Entry> const& v, rope const& by, std::int32_t first) {
  device::call call(ctx, ctx.nameless(), v.sequences(), v.pages.layers);
  std::int64_t const longest = v.rows() == 0 ? 0 : v.pages.most_tokens();
  turned_rows<Entry> rows = contract::expect_turnable(v, by, first, longest);
  using turn_rows = turn_rows_kernel<Entry>;
  KVEVICT_EXPECTS(
      v.rows() == 0 || (longest - 1) / turn_rows::tokens < std::numeric_limits<std::int32_t>::max() / v.rows(),
      "rerotate: ", v.rows(), " rows with room for ", longest,
      " tokens are more than a device turns in one "
      "launch; give fewer sequences or layers at once, or a narrower table (pages.columns)");
  validate(ctx, v);
  frame scratch(ctx.scratch());
  for (turning& t : rows.by)
    if (t.width != 0) {
      auto* const steps = scratch.allocate<std::uint64_t>(t.count());
      kernels::rope_steps(ctx, by, t.width, steps);
      t.steps = steps;
    }
  std::int32_t* ranks = nullptr;
  if (v.order == row_order::scattered)
    rows.ranks = ranks = scratch.allocate<std::int32_t>(v.rows() * longest), rows.stride = longest;
  auto const blocks = [&](std::int64_t tokens) { return blocks_for(longest, tokens); };
  turning_grid const grid{blocks(turning_grid::threads)};
  auto const all = static_cast<std::uint32_t>(v.rows());
  ctx.launch({all * grid.chunks}, {256}, 0, check_turns_kernel<Entry>{ctx.watch("rerotate"), rows, grid, ranks});
  ctx.launch({all * blocks(turn_rows::tokens)}, {256}, 0, turn_rows{ctx.watch(), rows, blocks(turn_rows::tokens)});
  ctx.launch({all * grid.chunks}, {256}, 0, write_positions_kernel<Entry>{ctx.watch(), rows, grid});
  call.done();
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda

namespace kvevict {
inline namespace KVEVICT_ABI {

/// The host's rerotate (apply/rerotate.hpp), in the context's stream.
///
/// Shapes   keys (H,N,D), positions (H,N), all in device memory → the same.
/// Cost     O(pages) checks, three launches and one for every component that turns; of scattered rows N comparisons a
///          token. Nothing is waited for.
/// Errors   as on the host: at once for what the host's fields show, the rest by ctx.wait(). Nothing has changed then.
///          New positions have to be in range for as many tokens as the table has room for: lengths are known to the
///          device alone.
///          A compaction before it in the stream that was refused has left its cache as it was, and that is turned:
///          wait for its ticket first where that may happen.
template <class Entry>
void rerotate(cuda::device& ctx, layer_view<Entry> const& view, rope const& by, std::int32_t first_position = 0) {
  cuda::enqueue_rerotation(ctx, view, by, first_position);
}

}  // namespace KVEVICT_ABI
}  // namespace kvevict
