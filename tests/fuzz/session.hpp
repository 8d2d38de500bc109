// SPDX-License-Identifier: Apache-2.0
// One run: a cache is planned, evicted from and decoded into, and after every verb the laws are looked at.
#pragma once

#include <kvevict/threads.hpp>

#include "fuzz/breaks.hpp"
#include "fuzz/outcomes.hpp"

namespace fuzz {

/// What sound input may be refused for: the policy or the cache cannot do what is asked, and the message says so.
inline bool may_be_refused(std::string const& m) {
  constexpr char const* reasons[] = {"protected tokens of",
                                     "share a page table; use",
                                     "share a page table; evict both together",
                                     "the heads share a page table",
                                     "keeps one set of tokens for all heads",
                                     "one set of tokens, or one length, for both needs",
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
                                     "no more rows than every",
                                     "by one page table; use",
                                     "has pages of its own, and the new table",
                                     "pages of its own, which drop_pages and rewrite_table do not name",
                                     "a page stays or goes as a whole",
                                     "that stay whole (",
                                     "needs a page table, but the cache is contiguous",
                                     "something opaque",
                                     "does not say what turned it",
                                     "has no role::position component",
                                     "shares its bytes with another one",
                                     "positions one for each",
                                     "lies in the read-only prefix at position",
                                     "its positions in common with"};
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
        policy_(
            choose_policy<Entry>(in, {in, broken_ == field::options ? in.below(4) : -1}, gate_, shape_.of.by_channel)) {
    if (policy_.state_floats > 0 && policy_.state_floats < 32) shape_.state_floats = policy_.state_floats;
  }

  void run() {
    cache<Entry> c(in_, shape_);
    cache_ = &c;
    if (!in_.one_in(2)) threaded_ = kvevict::host(pool().as_executor(0));
    view_type view = c.view;
    view_breaker<Entry> hurt(in_, c);
    ++done().runs, done().broken += broken_ != field::none;
    done().of_codes += shape_.of.codes(), done().of_forks += c.forked;
    done().of_tables += !c.view.has_one_table();
    if (c.view.find(role::state) == nullptr) shape_.state_floats = 0;
    bool const remembers = shape_.state_floats > 0 && in_.one_in(2);
    evidence e = choose_evidence(in_, c, view, group_, std::clamp(policy_.window, 0, in_.one_in(8) ? 3 : 60),
                                 policy_.what, gate_);
    if (broken_ == field::evidence) break_evidence(in_, e);
    if (broken_ == field::view) hurt(view);
    if (!plan(view, e, remembers)) return;
    if (broken_ == field::keep) break_keep(in_, keep_);
    if (broken_ == field::none && in_.one_in(3)) outcomes<Entry>::look(in_, serial_, view, keep_);
    if (!evict(view) || broken_ != field::none || c.forked) return;
    decode();
  }

 private:
  static shape choose_shape(input& in) {
    constexpr std::int32_t widths[] = {1, 2, 4, 5, 8, 16};
    std::int32_t const layers = in.one_in(4) ? in.between(2, 3) : 1;
    shape out{layers * in.between(1, 3), in.between(1, 3), layers, in.pick(widths), 0, coding::choose(in)};
    if (out.of.codes()) out.head_dim = quantised_case::D;
    return out;
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
      bool const known = may_be_refused(refusal.what()) || is_of_this_cache(refusal.what());
      if (!known) std::fprintf(stderr, "fuzz: %s\n", refusal.what());
      law(known, "sound input is not refused");
    }
    return false;
  }

  /// What only caches of some kinds are refused for.
  bool is_of_this_cache(std::string const& m) const {
    auto const says = [&](char const* part) { return m.find(part) != m.npos; };
    if (cache_->forked && says("would be written by both")) return true;
    if (shape_.of.codes() && says("would have to be quantised again")) return true;
    return shape_.of.by_channel && (says("gives up whole pages of") || says("is quantised per page and channel") ||
                                    says("keeps one set of tokens for all layers"));
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
    if (e.sees.first_token != nullptr)
      laws_of::check_padded(view, keep_, e.sees, budget_, policy_);
    else
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

  /// By moves, by fresh pages or by the table alone, as the cache allows; then the engine takes what came of it.
  bool evict(view_type& view) {
    bool const by_moves = broken_ == field::moves || view.pages.is_identity() || broken_ == field::view;
    int const way = by_moves ? 0 : in_.below(policy_.whole_pages || view.pages.page_size == 1 ? 6 : 3);
    if (way == 0 || way == 1) {
      if (!cut(view)) return false;
      if (broken_ == field::none) take(view);
      return true;
    }
    if (way == 2) return relocate(view);
    if (view.pages.page_size == 1 && in_.one_in(2))
      return name_others(view, rewritten_, done().rewritten,
                         [&](auto& out) { kvevict::rewrite_table(serial_, view, keep_, out); });
    return name_others(view, dropped_, done().dropped,
                       [&](auto& out) { kvevict::drop_pages(serial_, view, keep_, out); });
  }

  /// Only the table changes.
  template <class Done, class Call> bool name_others(view_type& view, Done& out, std::int64_t& count, Call call) {
    auto const was = outcomes<Entry>::all_tokens(view);
    image const before = cache_->memory;
    if (!attempt([&] { call(out); })) return false;
    law(cache_->memory == before, "a table is written, and no page");
    outcomes<Entry>::check_table(view, keep_, was, out, outcomes<Entry>::pages(view));
    ++count;
    if (broken_ != field::none) return true;
    for (Entry const page : out.released()) cache_->give(page);
    take_table(view, out);
    return true;
  }

  bool relocate(view_type& view) {
    auto pages = outcomes<Entry>::make_ledger(in_, *cache_, view);
    auto const pages_before = pages;
    auto const was = outcomes<Entry>::all_tokens(view);
    image const before = cache_->memory;
    auto& ctx = in_.one_in(2) ? serial_ : threaded_;
    bool const done_so = attempt([&] { kvevict::relocate(ctx, view, keep_, pages, relocated_); });
    if (!done_so || !relocated_.ok()) {
      std::sort(pages.free.begin(), pages.free.end());
      auto free = pages_before.free;
      std::sort(free.begin(), free.end());
      law(cache_->memory == before && pages.count == pages_before.count && pages.free == free,
          "without a result nothing has changed, and what was taken is given back");
      return false;
    }
    auto in_use = outcomes<Entry>::pages(view);
    for (Entry const page : relocated_.acquired()) in_use.insert(page);
    outcomes<Entry>::check_table(view, keep_, was, relocated_, in_use);
    outcomes<Entry>::check_relocated(*cache_, view, keep_, was, relocated_, pages_before, before);
    std::map<Entry, std::int64_t> named = pages_before.count;
    for (Entry const page : relocated_.acquired()) ++named[page];
    for (Entry const page : relocated_.released())
      if (--named[page] == 0) named.erase(page);
    law(pages.count == named, "the ledger counts what the table names");
    ++done().relocated, done().moved += relocated_.bytes_moved() != 0;
    if (broken_ != field::none) return true;
    auto const taken = relocated_.acquired();
    auto& free = cache_->free_pages();
    free.erase(std::remove_if(free.begin(), free.end(),
                              [&](Entry page) {
                                Entry const id = outcomes<Entry>::stripped(view, page);
                                return std::find(taken.begin(), taken.end(), id) != taken.end();
                              }),
               free.end());
    for (Entry const page : relocated_.released())
      if (pages_before.references(page) == 1 && !pages_before.published(page)) free.push_back(page);
    take_table(view, relocated_);
    return true;
  }

  /// The engine's part: its table where it lies, shorter rows.
  template <class Done> void take_table(view_type& view, Done const& done) {
    if (view.pages.row_begin == nullptr) {
      done.write_dense(view.pages, const_cast<Entry*>(view.pages.entries));
    } else {
      std::int64_t row = 0;
      outcomes<Entry>::each_table_row(view, [&](std::int32_t b, std::int32_t h) {
        auto const entries = done.entries(row++);
        std::copy(entries.begin(), entries.end(), const_cast<Entry*>(view.pages.entries_of(b, h)));
      });
    }
    for (std::int32_t b = 0; b < view.sequences(); ++b)
      for (std::int32_t h = 0; h < view.heads(); ++h) cache_->set_length(b, h, done.length(b, h));
    cache_->view.order = done.order();
    view = cache_->view;
  }

  /// Keys are turned to contiguous positions.
  void turn(view_type& view) {
    bool const prefix = view.read_only != nullptr;  // begins at position 1
    std::int32_t const first = prefix ? 1 : in_.between(0, 3);
    image const before = cache_->memory;
    if (!attempt([&] { kvevict::rerotate(in_.one_in(2) ? serial_ : threaded_, view, cache_->rope, first); })) return;
    outcomes<Entry>::check_turned(*cache_, view, first, before);
    ++done().turned;
    for (std::int32_t b = 0; b < view.sequences(); ++b) {
      std::int32_t longest = 0;
      for (std::int32_t h = 0; h < view.heads(); ++h) longest = std::max(longest, view.length(b, h));
      cache_->next_position[static_cast<std::size_t>(b)] = first + longest;
    }
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
      if (!slots_free && cache_->rope.is_given() && in_.one_in(3)) turn(cache_->view);
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
      if (in_.one_in(4)) outcomes<Entry>::look(in_, serial_, view, keep_);
      evict(view);
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
  kvevict::relocated<Entry> relocated_;
  kvevict::dropped<Entry> dropped_;
  kvevict::rewritten<Entry> rewritten_;
};

}  // namespace fuzz
