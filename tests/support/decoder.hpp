// SPDX-License-Identifier: Apache-2.0
// An engine that decodes: it appends tokens to a cache, lets a policy observe, and evicts when the budget is passed.
#pragma once

#include <kvevict/kernels/host.hpp>

#include <kvevict/apply/compact.hpp>
#include <kvevict/apply/replace.hpp>
#include <kvevict/policy.hpp>

#include "support/any_preset.hpp"

namespace support {

/// How the keep set is applied.
enum class applying : std::uint8_t { stable, fill_holes, in_place };

struct decode_setting {
  std::int32_t budget = 16, slack = 0;
  form as = form::queries;
  applying how = applying::stable;
  layouts::layout layout = layouts::layout::head_pages;
};

/// A token of a row: its position, and the floats that the policy keeps for it.
struct slot_state {
  std::size_t position;
  std::vector<double> state;
};

/// Runs the batch's future tokens through a cache of type Cache. All prompts have the same length.
template <class Cache, class Policy> class decoder {
 public:
  decoder(Cache& cache, Policy policy, batch const& in, decode_setting s)
      : cache_(cache), policy_(policy), in_(in), s_(s), free_(in.B() * in.H, -1) {}

  /// Positions in every slot, [b][h].
  [[nodiscard]] slot_positions positions() const {
    slot_positions out(in_.B());
    for (std::size_t b = 0; b < in_.B(); ++b)
      for (std::size_t h = 0; h < in_.H; ++h) {
        auto const at = cache_.read(kvevict::role::position, static_cast<int>(b), static_cast<int>(h));
        out[b].emplace_back(at.begin(), at.end());
      }
    return out;
  }
  /// Tokens of a row by position; a free slot holds none.
  [[nodiscard]] std::vector<slot_state> row(std::size_t b, std::size_t h) const {
    std::vector<slot_state> out;
    auto const at = cache_.read(kvevict::role::position, static_cast<int>(b), static_cast<int>(h)),
               state = cache_.read(kvevict::role::state, static_cast<int>(b), static_cast<int>(h));
    std::size_t const width = state.size() / std::max<std::size_t>(at.size(), 1);
    for (std::size_t s = 0; s < at.size(); ++s)
      if (free_[b * in_.H + h] != int32(s))
        out.push_back({static_cast<std::size_t>(at[s]),
                       std::vector<double>(state.begin() + static_cast<std::ptrdiff_t>(s * width),
                                           state.begin() + static_cast<std::ptrdiff_t>((s + 1) * width))});
    std::sort(out.begin(), out.end(), [](auto const& a, auto const& c) { return a.position < c.position; });
    return out;
  }

  /// Writes token `i` of every sequence behind its rows, or into the slots that are free. What the slot held otherwise
  /// stays there.
  void append(std::size_t i) {
    for (std::size_t b = 0; b < in_.B(); ++b)
      for (std::size_t h = 0; h < in_.H; ++h) {
        std::int32_t& free = free_[b * in_.H + h];
        std::size_t const r = cache_.per_head() ? b * in_.H + h : b;
        if (free < 0 && (cache_.per_head() || h == 0)) ++cache_.lengths()[r];
        int const slot = free < 0 ? cache_.lengths()[r] - 1 : free;
        for (std::size_t d = 0; d < in_.D; ++d) {
          set(kvevict::role::k, b, h, slot, d, in_.layers[b].keys.at(h, i, d));
          set(kvevict::role::v, b, h, slot, d, in_.layers[b].values.at(h, i, d));
        }
        set(kvevict::role::position, b, h, slot, 0, static_cast<double>(i));
        free = -1;
      }
  }

  /// Folds the rows [from, to) in; their tokens are in the cache.
  void observe(std::size_t from, std::size_t to) {
    attention const rows =
        rows_of(in_, positions(), std::vector<std::size_t>(in_.B(), from), std::vector<std::size_t>(in_.B(), to));
    auto const& view = cache_.view;
    if (s_.as == form::weights)
      kvevict::observe(ctx_, policy_, kvevict::step(view, rows.rows()), ask());
    else if (s_.as == form::queries)
      kvevict::observe(ctx_, policy_, kvevict::step(view, rows.queries()), ask());
    else
      kvevict::observe(ctx_, policy_,
                       kvevict::step(view, rows.queries()).with_lse(rows.lse.data(), rows.lse_stride(), 1), ask());
  }

  [[nodiscard]] bool due(std::int32_t slack) const { return cache_.view.length(0, 0) > s_.budget + slack; }
  [[nodiscard]] kvevict::keep_set plan() {
    return kvevict::plan(ctx_, policy_, kvevict::remembered(cache_.view), ask());
  }
  [[nodiscard]] std::vector<float> scores() {
    std::vector<float> out;
    kvevict::scores(ctx_, policy_, kvevict::remembered(cache_.view), ask(), out);
    return out;
  }

  void apply(kvevict::keep_set const& keep) {
    if (s_.how == applying::in_place && cache_.view.length(0, 0) == s_.budget + 1) {
      auto const done = kvevict::replace(ctx_, cache_.view, keep);
      for (std::size_t r = 0; r < free_.size(); ++r) free_[r] = done.slots()[static_cast<std::int64_t>(r)];
      cache_.view.order = done.order();
      return;
    }
    auto const done = kvevict::compact(
        ctx_, cache_.view, keep,
        s_.how == applying::fill_holes ? kvevict::compaction::fill_holes : kvevict::compaction::stable);
    for (std::size_t r = 0; r < free_.size(); ++r)
      if (cache_.per_head() || r % in_.H == 0)
        cache_.lengths()[cache_.per_head() ? r : r / in_.H] = done.lengths()[static_cast<std::int64_t>(r)];
    cache_.view.order = done.order();
  }

  /// The whole loop: prompt, eviction, then `future` tokens; after(step) follows every eviction, 0 being the prompt's.
  template <class Before, class After> void run(Before before_eviction, After after) {
    std::size_t const N = in_.N[0];
    observe(0, N);
    before_eviction(0);
    if (due(0)) apply(plan());
    after(0);
    for (std::size_t step = 1; step <= in_.future; ++step) {
      append(N + step - 1);
      observe(N + step - 1, N + step);
      before_eviction(step);
      if (due(s_.slack)) apply(plan());
      after(step);
    }
  }

 private:
  [[nodiscard]] kvevict::budget ask() const { return {.tokens_per_head = s_.budget}; }
  void set(kvevict::role what, std::size_t b, std::size_t h, int slot, std::size_t d, double x) {
    cache_.set(*cache_.view.find(what), static_cast<int>(b), static_cast<int>(h), slot, static_cast<int>(d),
               static_cast<float>(x));
  }

  Cache& cache_;
  Policy policy_;
  batch const& in_;
  decode_setting s_;
  kvevict::host ctx_;
  std::vector<std::int32_t> free_;  // (B·H) slot that the next token overwrites, or −1
};

/// f(decoder, cache) with the batch's prompts in a cache with room for all its tokens.
template <class Policy, class F> void with_decoder(Policy policy, batch const& in, decode_setting const& s, F f) {
  auto shape = cache_shape_of(in);
  shape.page_size = 4;
  shape.spare_tokens = int32(in.future);
  shape.state_floats = kvevict::state_floats(policy);
  layouts::with_layout(s.layout, shape, [&](auto& cache) {
    fill(cache, in);
    decoder run(cache, policy, in, s);
    f(run, cache);
  });
}

}  // namespace support
