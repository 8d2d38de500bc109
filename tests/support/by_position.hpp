// SPDX-License-Identifier: Apache-2.0
// Which tokens are new to observe() is told by position: in a shard, which holds few of the rows' tokens, and behind
// padding, which is none. Against sums in double precision.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include <kvevict/kvevict.hpp>

#include "support/batch_cache.hpp"
#include "support/catch.hpp"

namespace support {

/// Σ over the rows [from, to) of sequence b of what each pays to the token at position p, the mean over the group.
inline double paid(batch const& in, std::size_t b, std::size_t h, std::size_t p, std::size_t from, std::size_t to) {
  reference::layer const& l = in.layers[b];
  std::size_t const G = in.Hq / in.H;
  double sum = 0;
  for (std::size_t i = std::max(from, p); i < to; ++i)
    for (std::size_t hq = h * G; hq < (h + 1) * G; ++hq)
      sum += std::exp(reference::logit(l, hq, i, p) -
                      reference::log_sum_exp(reference::logits(l, hq, i, reference::first_indices(i + 1))));
  return sum / static_cast<double>(G);
}

/// A cache in which slot t of sequence b holds the token at position slots[b][t], or padding (−1), whose keys are large
/// and whose position is any.
struct placed_tokens {
  batch in = random_batch(17, {.Hq = 4, .H = 2, .D = 8, .N = {40, 30}, .future = 0});
  std::vector<std::vector<int>> slots;
  layouts::cache<std::int32_t> cache;

  placed_tokens(std::vector<std::vector<int>> of, std::int32_t floats, bool carried)
      : slots(std::move(of)), cache(layouts::layout::nhd, shape(floats, carried)) {
    cache.fill(
        [this](int b, int h, int t, int d) {
          int const p = at(b, t);
          return p < 0 ? 40.0 : in.layers[std::size_t(b)].keys.at(std::size_t(h), std::size_t(p), std::size_t(d));
        },
        [](int, int, int, int) { return 1.0f; });
    if (!carried) return;
    cache.fill(kvevict::role::position, [this](int b, int, int t, int) { return at(b, t) < 0 ? 3 : at(b, t); });
  }
  int at(int b, int t) const { return slots[std::size_t(b)][std::size_t(t)]; }
  layouts::cache_shape shape(std::int32_t floats, bool carried) const {
    auto out = cache_shape_of(in);
    for (std::size_t b = 0; b < 2; ++b) out.lengths[b] = int32(slots[b].size());
    out.state_floats = floats, out.page_size = 4, out.positions = carried;
    return out;
  }
  void set_state(float x) {
    cache.fill(kvevict::role::state, [=](int, int, int, int) { return x; });
  }
  float state(int b, int h, int t, int c = 0) { return cache.get(*cache.view.find(kvevict::role::state), b, h, t, c); }
};

/// All 40 and 30 tokens, each sequence's behind so many slots of padding.
inline std::vector<std::vector<int>> behind_padding(std::vector<std::int32_t> const& padding) {
  std::vector<std::vector<int>> out;
  for (std::size_t b = 0; b < 2; ++b) {
    out.emplace_back(std::size_t(padding[b]), -1);
    for (int p = 0; p < (b == 0 ? 40 : 30); ++p) out[b].push_back(p);
  }
  return out;
}

/// The tokens at positions part, part + 4, …, of which those of 40 and 30; `scattered`: in slots of no order.
inline std::vector<std::vector<int>> shard_of_four(int part, bool scattered) {
  std::vector<std::vector<int>> out(2);
  for (std::size_t b = 0; b < 2; ++b) {
    for (int p = part; p < (b == 0 ? 40 : 30); p += 4) out[b].push_back(p);
    if (scattered) std::rotate(out[b].begin(), out[b].begin() + 3, out[b].end());
  }
  return out;
}

inline kvevict::query_rows partial_queries(attention const& a) {
  kvevict::query_rows out = a.queries();
  out.lse = a.lse.data(), out.lse_token_stride = a.lse_stride(), out.lse_head_stride = 1;
  out.sum = kvevict::row_sum::at_most_one;
  return out;
}

/// see(policy, cache, rows, older, first tokens) observes.
template <class See> void shards_observe_by_position(See see) {
  auto const h2o = kvevict::presets::h2o();
  for (int part = 0; part < 4; ++part)
    for (std::size_t count = 1; count <= 5; ++count)
      for (bool const scattered : {false, true}) {
        CAPTURE(part, count, scattered);
        placed_tokens it(shard_of_four(part, scattered), 1, true);
        if (scattered) it.cache.view.order = kvevict::row_order::scattered;
        slot_positions slots;
        for (auto const& of : it.slots) slots.emplace_back(2, index_row(of.begin(), of.end()));
        attention const a = rows_of(it.in, slots, {40 - count, 30 - count}, {40, 30}, seen::everything);
        kvevict::attention_rows softmax = a.rows();
        softmax.sum = kvevict::row_sum::at_most_one;
        for (bool const weights : {false, true}) {
          it.set_state(0.5f);
          if (weights)
            see(h2o, it.cache, softmax, kvevict::older_tokens::observed, {});
          else
            see(h2o, it.cache, partial_queries(a), kvevict::older_tokens::observed, {});
          double worst = 0;
          it.cache.for_each_slot([&](int b, int h, int t) {
            auto const p = std::size_t(it.at(b, t)), to = it.in.N[std::size_t(b)], from = to - count;
            double const want = (p < from ? 0.5 : 0) + paid(it.in, std::size_t(b), std::size_t(h), p, from, to);
            worst = std::max(worst, std::abs(want - double{it.state(b, h, t)}));
          });
          CHECK(worst < 1e-5);
        }
      }
}

/// refused(cache, rows, what): with those words, and nothing is written.
template <class Refused> void rows_and_tokens_must_meet(Refused refused) {
  for (bool const scattered : {false, true}) {
    CAPTURE(scattered);
    placed_tokens shard(shard_of_four(1, scattered), 1, true);
    if (scattered) shard.cache.view.order = kvevict::row_order::scattered;
    slot_positions slots;
    for (auto const& of : shard.slots) slots.emplace_back(2, index_row(of.begin(), of.end()));
    attention a = rows_of(shard.in, slots, {39, 29}, {40, 30});
    refused(shard.cache, a.queries(), "1 rows of sequence 0, head 0 for 0 tokens from the position of the first one");
    a = rows_of(shard.in, slots, {36, 26}, {40, 30});
    refused(shard.cache, a.queries(), "4 rows of sequence 0, head 0 for 1 tokens");
    a.positions[0] = 30;  // and rows of tokens between are missing
    refused(shard.cache, a.queries(), "4 rows of sequence 0, head 0 for 2 tokens");
    a = rows_of(shard.in, slots, {39, 29}, {40, 30});
    a.positions = {37, 21};
    refused(shard.cache, a.queries(), "newest row of sequence 1, head 0 is at position 21 and the newest token at 29");
    a = rows_of(shard.in, slots, {38, 28}, {40, 30});
    a.positions = {17, 40, 17, 40};
    refused(shard.cache, partial_queries(a), "6 tokens of sequence 0, head 0 lie from the position of its first row");
  }
}

/// Padded on the left, states are those of sequences that are not; padding's is zero once a sequence has begun.
template <class See> void padding_is_no_token(See see) {
  std::vector<std::int32_t> const first{5, 0}, none;
  auto const plain = behind_padding({0, 0}), padded = behind_padding(first);
  auto const look = [&](auto const& policy, std::size_t count, kvevict::older_tokens older, bool carried) {
    std::int32_t const floats = kvevict::state_floats(policy);
    CAPTURE(floats, count, carried);
    placed_tokens with(padded, floats, carried), without(plain, floats, carried);
    with.set_state(0.5f), without.set_state(0.5f);
    attention const a = last_rows(with.in, count);
    see(policy, with.cache, a.queries(), older, first), see(policy, without.cache, a.queries(), older, none);
    double worst = 0;
    without.cache.for_each_slot([&](int b, int h, int t) {
      for (std::int32_t c = 0; c < floats; ++c)
        worst = std::max(worst, std::abs(double{with.state(b, h, t + first[std::size_t(b)], c)} -
                                         double{without.state(b, h, t, c)}));
      if (floats != 1) return;
      auto const p = std::size_t(t), to = with.in.N[std::size_t(b)], from = to - std::min(count, to);
      double const want = (p < from ? 0.5 : 0) + paid(with.in, std::size_t(b), std::size_t(h), p, from, to);
      worst = std::max(worst, std::abs(want - double{without.state(b, h, t)}));
    });
    CHECK(worst < 1e-5);
    for (int t = 0; t < 5; ++t) CHECK(with.state(0, 1, t) == (count < 40 ? 0.5f : 0.0f));
  };
  for (bool const carried : {false, true}) {
    look(kvevict::presets::h2o(), 40, kvevict::older_tokens::none, carried);
    look(kvevict::presets::h2o(), 3, kvevict::older_tokens::observed, carried);
    look(kvevict::presets::ahakv({.recent = 8}), 40, kvevict::older_tokens::none, carried);
    look(kvevict::presets::ahakv({.recent = 8}), 3, kvevict::older_tokens::observed, carried);
  }
}

}  // namespace support
