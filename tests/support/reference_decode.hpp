// SPDX-License-Identifier: Apache-2.0
// Brute-force decoding: one token per step, evictions replayed, nothing incremental that could be recomputed.
#pragma once

#include <deque>
#include <functional>

#include "support/reference_policies.hpp"

namespace reference {

/// When and what to evict: N > budget + slack evicts down to budget; the `recent` newest are safe.
struct decode_options {
  std::size_t budget = 0;
  std::size_t recent = 0;
  std::size_t slack = 0;
};

/// Cache of one KV head: surviving positions, ascending, and their scores.
struct head_cache {
  index_row positions;
  row scores;
};

/// Which slots survive when `scores` decide: the best budget-recent of the older ones, and the recent ones. Slots
/// ascending.
inline index_row surviving_slots(row const& scores, decode_options const& o) {
  if (scores.size() <= o.budget + o.slack) return first_indices(scores.size());
  std::size_t const recent = std::min(o.recent, o.budget);
  std::size_t const older = scores.size() - recent;
  index_row out = top_k(row(scores.begin(), scores.begin() + static_cast<std::ptrdiff_t>(older)), o.budget - recent);
  for (std::size_t j = older; j < scores.size(); ++j) out.push_back(j);
  return out;
}

template <class T> std::vector<T> gather(std::vector<T> const& in, index_row const& slots) {
  std::vector<T> out;
  for (std::size_t const j : slots) out.push_back(in[j]);
  return out;
}

inline head_cache gather(head_cache const& in, index_row const& slots) {
  return {gather(in.positions, slots), gather(in.scores, slots)};
}

/// H2O, one step from given weights: the newest token has been appended at `position`, weights[j] is the attention to
/// slot j (the new token last). Accumulate, then evict.
inline head_cache h2o_step(head_cache cache, std::size_t position, row const& weights, decode_options const& o) {
  if (weights.size() != cache.positions.size() + 1)
    throw std::invalid_argument("reference::h2o_step: one weight per slot and one for the new token");
  cache.positions.push_back(position);
  cache.scores.push_back(0.0);
  for (std::size_t j = 0; j < weights.size(); ++j) cache.scores[j] += weights[j];
  return gather(cache, surviving_slots(cache.scores, o));
}

/// H2O's cache after prefill from column sums of one head.
inline head_cache h2o_prefill(row const& sums, decode_options const& o) {
  return gather(head_cache{first_indices(sums.size()), sums}, surviving_slots(sums, {o.budget, o.recent, 0}));
}

/// step -> KV head -> cache after the step's eviction; entry 0 is the state after prefill.
using decode_trace = std::vector<std::vector<head_cache>>;

/// H2O over a whole sequence: tokens [0,N) are the prompt, the rest of `in` is decoded. Every decoded query attends to
/// the survivors of its KV head and to itself; weights are averaged over the group.
inline decode_trace h2o_replay(layer const& in, std::size_t N, decode_options const& o) {
  decode_trace trace(1);
  for (row const& sums : column_sums(prefix(in, N))) trace[0].push_back(h2o_prefill(sums, o));
  ahakv_options plain;
  plain.use_gain = false;
  for (std::size_t i = N; i < in.N(); ++i) {
    std::vector<head_cache> next;
    for (std::size_t h = 0; h < in.H(); ++h) {
      index_row keys = trace.back()[h].positions;
      keys.push_back(i);
      next.push_back(h2o_step(trace.back()[h], i, step_gain_row(in, h, i, keys, o.budget, plain), o));
    }
    trace.push_back(next);
  }
  return trace;
}

/// One stored row: the weight that it gave to every position it saw (0 elsewhere), over absolute positions.
struct ring_row {
  std::size_t position = 0;
  row weight_of_position;
};

/// γ̄ of the tokens in the cache of head h (positions ascending), one per slot.
using prior_rule = std::function<row(std::size_t h, index_row const& positions)>;

/// Prior from the V rows in the cache as they lie there: pooled over neighbouring slots, maximum over the slots.
inline prior_rule prior_of_cache(layer const& in, ahakv_options const& o) {
  rows const squared = squared_norms(in.values);
  return
      [squared, o](std::size_t h, index_row const& positions) { return value_prior(gather(squared[h], positions), o); };
}

/// Prior with pooled norms fixed by the neighbours in the original sequence (all of `in`, future tokens too), maximum
/// over the slots.
inline prior_rule prior_of_sequence(layer const& in, ahakv_options const& o) {
  rows out = squared_norms(in.values);
  for (row& r : out) r = pooled(r, o.value_pool, pool::average);
  return [out, o](std::size_t h, index_row const& positions) {
    ahakv_options unpooled = o;
    unpooled.value_pool = 1;
    return value_prior(gather(out[h], positions), unpooled);
  };
}

/// Σ of the last `recent` stored rows for every listed position.
inline row ring_sum(std::deque<ring_row> const& ring, index_row const& positions) {
  row out(positions.size(), 0.0);
  for (ring_row const& r : ring)
    for (std::size_t n = 0; n < positions.size(); ++n)
      if (positions[n] < r.weight_of_position.size()) out[n] += r.weight_of_position[positions[n]];
  return out;
}

/// AhaKV over a whole sequence, as h2o_replay. The ring holds the last r rows: at first the prompt's last r rows (over
/// the whole prompt), then one per decoded token (over the survivors and itself, i = position+1, k = budget). Scores in
/// the trace are Ŝ.
inline decode_trace ahakv_replay(layer const& in, std::size_t N, decode_options const& d, ahakv_options const& o,
                                 prior_rule const& prior) {
  std::size_t const r = o.recent;
  if (r == 0) throw std::invalid_argument("reference::ahakv_replay: recent must be positive");
  std::vector<std::deque<ring_row>> rings(in.H());
  decode_trace trace(1);
  for (std::size_t i = 0; i < in.N(); ++i) {
    if (i + r < N) continue;  // prompt rows before the last r
    if (i >= N) trace.push_back(trace.back());
    for (std::size_t h = 0; h < in.H(); ++h) {
      index_row keys = first_indices(i + 1);
      if (i >= N) {
        keys = trace.back()[h].positions;
        keys.push_back(i);
      }
      row const weights = step_gain_row(in, h, i, keys, d.budget, o);
      ring_row stored{i, row(i + 1, 0.0)};
      for (std::size_t n = 0; n < keys.size(); ++n) stored.weight_of_position[keys[n]] = weights[n];
      rings[h].push_back(stored);
      if (rings[h].size() > r) rings[h].pop_front();
      if (i + 1 < N) continue;
      head_cache cache{keys, ring_sum(rings[h], keys)};
      row const gamma = prior(h, keys);
      for (std::size_t n = 0; n < keys.size(); ++n) cache.scores[n] *= gamma[n];
      decode_options const rule{d.budget, d.recent, i >= N ? d.slack : 0};
      cache = gather(cache, surviving_slots(cache.scores, rule));
      if (i + 1 == N) trace[0].push_back(cache);
      if (i >= N) trace.back()[h] = cache;
    }
  }
  return trace;
}

}  // namespace reference
