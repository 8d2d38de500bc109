// SPDX-License-Identifier: Apache-2.0
// One run: a cache is planned, cut and decoded into, and after every verb the laws are looked at.
#pragma once

#include <kvevict/threads.hpp>

#include "fuzz/breaks.hpp"
#include "fuzz/laws.hpp"

namespace fuzz {

/// What sound input may be refused for: the policy or the cache cannot do what is asked, and the message says so.
inline bool may_be_refused(std::string const& m) {
  constexpr char const* reasons[] = {"protected tokens of",
                                     "share a page table; use",
                                     "the heads share a page table",
                                     "keeps one set of tokens for all heads",
                                     "one set of tokens for both needs",
                                     "tokens_per_head is 0",
                                     "has one row for all heads",
                                     "have one state component in common",
                                     "query rows and the window needs",
                                     "query rows for",
                                     "softmax rows for",
                                     "hidden states for",
                                     "rows are scattered",
                                     "every layer has a gate of its own",
                                     "one token comes next",
                                     "softmax rows and the score reads",
                                     "no more rows than every"};
  return std::any_of(std::begin(reasons), std::end(reasons), [&](char const* r) { return m.find(r) != m.npos; });
}

inline kvevict::threads& pool() {
  static kvevict::threads all(3);
  return all;
}

template <class Entry> class session {
 public:
  using view_type = kvevict::layer_view<Entry>;
  using laws_of = laws<Entry>;

  explicit session(input& in)
      : in_(in),
        broken_(in.one_in(3) ? in.pick(fields) : field::none),
        shape_(choose_shape(in)),
        group_(in.between(1, 2)),
        gate_(in, shape_.heads * (in.one_in(2) ? 1 : group_)),
        policy_(choose_policy<Entry>(in, {in, broken_ == field::options ? in.below(4) : -1}, gate_)) {
    if (policy_.state_floats > 0 && policy_.state_floats < 32) shape_.state_floats = policy_.state_floats;
  }

  void run() {
    cache<Entry> c(in_, shape_);
    cache_ = &c;
    if (!in_.one_in(2)) threaded_ = kvevict::host(pool().as_executor(0));
    view_type view = c.view;
    view_breaker<Entry> hurt(in_, c);
    ++done().runs, done().broken += broken_ != field::none;
    if (c.view.find(role::state) == nullptr) shape_.state_floats = 0;
    bool const remembers = shape_.state_floats > 0 && in_.one_in(2);
    evidence e = choose_evidence(in_, c, view, group_, std::clamp(policy_.window, 0, in_.one_in(8) ? 3 : 60),
                                 policy_.what, gate_);
    if (broken_ == field::evidence) break_evidence(in_, e);
    if (broken_ == field::view) hurt(view);
    if (!plan(view, e, remembers)) return;
    if (broken_ == field::keep) break_keep(in_, keep_);
    if (!cut(view) || broken_ != field::none) return;
    take(view);
    decode();
  }

 private:
  static shape choose_shape(input& in) {
    constexpr std::int32_t widths[] = {1, 2, 4, 5, 8, 16};
    std::int32_t const layers = in.one_in(4) ? in.between(2, 3) : 1;
    return {layers * in.between(1, 3), in.between(1, 3), layers, in.pick(widths), 0};
  }

  /// True when the call succeeded; a refusal has changed nothing.
  template <class F> bool attempt(F f) {
    image const before = cache_->memory;
    try {
      f();
      return true;
    } catch (kvevict::contract_violation const& refusal) {
      law(cache_->memory == before, "a refusal changes nothing");
      ++done().refused;
      if (broken_ != field::none) return false;
      ++done().refusals[kind_of(refusal.what())];
      if (!may_be_refused(refusal.what())) std::fprintf(stderr, "fuzz: %s\n", refusal.what());
      law(may_be_refused(refusal.what()), "sound input is not refused");
    }
    return false;
  }

  bool plan(view_type const& view, evidence const& e, bool remembers) {
    budget_ = {};
    budget_.tokens_per_head = in_.one_in(10) ? in_.between(0, 8) : in_.between(9, 40);
    budget_.layer = in_.below(2), budget_.layer_count = budget_.layer + std::max(1, shape_.layers) + in_.below(2);
    per_sequence_.assign(static_cast<std::size_t>(shape_.sequences), 0);
    for (std::int32_t& n : per_sequence_) n = in_.between(9, 40);
    if (in_.one_in(4)) budget_.per_sequence = per_sequence_.data();
    if (broken_ == field::budget) break_budget(in_, budget_, per_sequence_);
    return plan_again(view, e, remembers);
  }
  bool plan_again(view_type const& view, evidence const& e, bool remembers) {
    auto const& verb = remembers && policy_.remembered ? policy_.remembered : policy_.plan;
    image const before = cache_->memory;
    bool const planned = attempt([&] { verb(serial_, view, e, budget_, keep_); });
    kvevict::keep_set other;
    bool const again = attempt([&] { verb(threaded_, view, e, budget_, other); });
    law(cache_->memory == before, "plan() writes nothing into the cache");
    law(planned == again && (!planned || (keep_.tokens == other.tokens && keep_.row_begin == other.row_begin)),
        "threads plan what one thread plans");
    if (!planned) return false;
    ++done().plans;
    laws_of::check_keep(view, keep_, budget_, policy_);
    return true;
  }

  /// Moves, stored and read again, are carried out, by compact() or by apply().
  bool cut(view_type const& view) {
    constexpr kvevict::compaction modes[] = {kvevict::compaction::stable, kvevict::compaction::fill_holes};
    auto const mode = in_.pick(modes);
    kvevict::move_plan plan;
    if (!attempt([&] { kvevict::plan_moves(serial_, view, keep_, mode, plan); })) return false;
    std::vector<std::byte> stored;
    kvevict::write(plan, stored);
    bool const hurt = broken_ == field::moves;
    if (hurt) break_bytes(in_, stored);
    kvevict::move_plan moves;
    if (!attempt([&] { moves = kvevict::read_move_plan({stored.data(), static_cast<std::int64_t>(stored.size())}); }))
      return false;
    if (!hurt)
      law(moves.sources == plan.sources && moves.destinations == plan.destinations &&
              moves.row_begin == plan.row_begin && moves.lengths == plan.lengths &&
              moves.lengths_before == plan.lengths_before && moves.order == plan.order,
          "a stored plan is read back");
    std::vector<payloads> was;
    for (std::int32_t r = 0; r < view.rows(); ++r) was.push_back(laws_of::tokens(view, r));
    image const before = cache_->memory;
    bool const by_plan = hurt || in_.one_in(2);
    auto& ctx = in_.one_in(2) ? serial_ : threaded_;
    if (!attempt([&] {
          by_plan ? kvevict::apply(ctx, view, moves, done_) : kvevict::compact(ctx, view, keep_, mode, done_);
        }))
      return false;
    if (hurt) moves = done_.moves();
    laws_of::check_moved(*cache_, view, moves, before);
    for (std::int32_t r = 0; r < view.rows(); ++r)
      laws_of::check_row(view, moves, r, was[static_cast<std::size_t>(r)], hurt ? nullptr : &keep_, mode);
    laws_of::check_freed(view, moves, done_);
    return true;
  }

  /// The engine's part: shorter rows, and pages that others may have.
  void take(view_type& view) {
    for (Entry const page : done_.freed_pages()) cache_->give(page);
    for (std::int32_t b = 0; b < view.sequences(); ++b)
      for (std::int32_t h = 0; h < view.heads(); ++h) cache_->set_length(b, h, done_.length(b, h));
    cache_->view.order = done_.order();
    view = cache_->view;
  }

  void decode() {
    std::vector<std::int32_t> free_slots(static_cast<std::size_t>(cache_->view.rows()), -1);
    for (int step = in_.below(6); step > 0; --step) {
      if (cache_->view.order == kvevict::row_order::scattered && cache_->view.find(role::position) == nullptr) return;
      bool const slots_free = std::any_of(free_slots.begin(), free_slots.end(), [](auto s) { return s >= 0; });
      if (!slots_free && !cache_->has_room()) return;
      if (slots_free && std::any_of(free_slots.begin(), free_slots.end(), [](auto s) { return s < 0; })) return;
      cache_->append(free_slots);
      std::fill(free_slots.begin(), free_slots.end(), -1);
      view_type& view = cache_->view;
      ++done().steps;
      bool const state = shape_.state_floats > 0;
      evidence const e = choose_evidence(in_, *cache_, view, group_, state ? 1 : policy_.window, policy_.what, gate_);
      if (state && policy_.what == needs::prompt && !observe(view, e)) return;
      if (!plan_again(view, e, state)) continue;
      if (in_.one_in(3)) {
        kvevict::replaced slot;
        if (!attempt([&] { kvevict::replace(serial_, view, keep_, slot); })) continue;
        for (std::int32_t r = 0; r < view.rows(); ++r) {
          bool const whole = keep_.row(r).size == keep_.lengths[static_cast<std::size_t>(r)];
          auto const row = keep_.row(r);
          free_slots[static_cast<std::size_t>(r)] = slot.slots()[r];
          law(whole == (slot.slots()[r] < 0) && std::find(row.begin(), row.end(), slot.slots()[r]) == row.end(),
              "the victim is what is not kept");
        }
        view.order = slot.order();
        continue;
      }
      if (!cut(view)) continue;
      take(view);
    }
  }

  /// observe() writes the state of tokens that are not shared, and nothing else.
  bool observe(view_type const& view, evidence const& e) {
    image const before = cache_->memory;
    if (!attempt([&] { policy_.observe(serial_, view, e, budget_); })) return false;
    image const after = cache_->memory;
    component const& state = *view.find(role::state);
    std::vector<std::byte> now;
    laws_of::restore(*cache_, before);
    for (std::int32_t r = 0; r < view.rows(); ++r)
      for (std::int32_t t = view.read_only_tokens(r / view.heads());
           t < view.length(r / view.heads(), r % view.heads()); ++t) {
        std::byte* const at = cache<Entry>::address(view, state, r / view.heads(), r % view.heads(), t, 0);
        for (std::size_t i = 0; i < after.size(); ++i) {  // the same place in the image after
          auto const* const first = cache_->memory[i].data();
          if (at >= first && at < first + cache_->memory[i].size())
            std::copy_n(after[i].data() + (at - first), state.rows.run_bytes, at);
        }
      }
    law(cache_->memory == after, "observe() writes states and nothing else");
    return true;
  }

  input& in_;
  field broken_;
  shape shape_;
  std::int32_t group_;
  gate gate_;
  policy<Entry> policy_;
  cache<Entry>* cache_ = nullptr;
  kvevict::host serial_, threaded_;
  kvevict::budget budget_;
  std::vector<std::int32_t> per_sequence_;
  kvevict::keep_set keep_;
  kvevict::compacted<Entry> done_;
};

}  // namespace fuzz
