// SPDX-License-Identifier: Apache-2.0
// validate() against the brute force of support/ownership.hpp: it accepts exactly the views in which no byte has two
// owners. KVEVICT_VIEWS says how many random views are compared, KVEVICT_VIEWS_SEED where they begin.
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>

#include <kvevict/cache/validate.hpp>

#include "support/catch.hpp"
#include "support/keep_sets.hpp"
#include "support/ownership.hpp"
#include "support/random.hpp"

namespace cache_ownership_test {

using namespace kvevict;
using support::ownership;

namespace {

enum class form : std::uint8_t { pages, rows, skipping, any };
constexpr char const* form_names[] = {"pages", "rows", "skipping", "any"};

/// A random view over memory that is not there: validate() reads tables and lengths alone. Its pages are those of
///
///   pages      a cache whose dimensions nest in any order, K and V in one pool or in two
///   rows       the same whose ids count rows of a cache with interleaved heads
///   skipping   ids of one pool of blocks, V in the block behind K's
///   any        no order at all
///
/// and then, often, one number is changed.
template <class Entry> class random_view {
 public:
  static constexpr bool by_address = page_table<Entry>::holds_pointers;
  layer_view<Entry> view;
  form kind;

  random_view(reference::generator& random, bool own_pages) : random_(random) {
    kind = static_cast<form>(one_of(4));
    set_shape();
    set_components();
    set_table();
    if (one_of(2) == 0) set_read_only();
    if (one_of(3) != 0) change_something();
    if (own_pages) set_own_pages();
    view.pages.entries = identity_ ? nullptr : entries_.data();
    view.pages.row_begin = csr_ ? row_begin_.data() : nullptr;
    view.lengths.data = lengths_.data();
    view.read_only = read_only_.empty() ? nullptr : read_only_.data();
  }

 private:
  std::int64_t one_of(std::int64_t n) { return static_cast<std::int64_t>(random_.below(static_cast<std::size_t>(n))); }
  std::int64_t between(std::int64_t low, std::int64_t high) { return low + one_of(high - low + 1); }
  std::int64_t gap() { return one_of(4) == 0 ? unit_ * between(1, 3) : 0; }

  void set_shape() {
    auto& t = view.pages;
    t.layers = one_of(3) == 0 ? static_cast<std::int32_t>(between(2, 3)) : 1;
    per_layer_ = static_cast<std::int32_t>(between(1, 3));
    t.sequences = t.layers * per_layer_;
    t.heads = static_cast<std::int32_t>(between(1, 3));
    t.page_size = static_cast<std::int32_t>(between(1, 4));
    own_tables_ = one_of(2) == 0;
    identity_ = !by_address && one_of(6) == 0;
    csr_ = !identity_ && one_of(2) == 0;
    type_ = one_of(2) == 0 ? dtype::f32 : dtype::f16;
    unit_ = size_of(type_);
    common_ = t.layers > 1 && one_of(2) == 0;  // one table for all layers
    positions_ = unit_ == 4 && one_of(2) == 0;
    common_positions_ = positions_ && t.layers > 1 && (common_ || identity_);
    std::int32_t const columns = identity_ ? 1 : static_cast<std::int32_t>(between(1, 4)),
                       H = own_tables_ ? t.heads : 1;
    auto const first = static_cast<std::size_t>(per_layer_ * H);
    for (std::int32_t r = 0; r < t.sequences * H; ++r)
      lengths_.push_back(one_of(5) == 0 ? 0 : static_cast<std::int32_t>(between(1, columns * t.page_size)));
    if (common_positions_ && one_of(2) == 0)
      for (std::size_t r = first; r < lengths_.size(); ++r) lengths_[r] = lengths_[r - first];
    view.lengths = {nullptr, H, own_tables_ ? 1 : 0};
    t.columns = columns;
    for (std::int32_t const n : lengths_) pages_ += (n + t.page_size - 1) / t.page_size;
    if (identity_) pages_ = per_layer_;
  }

  void add(role what, dtype type, row_map m) {
    component c;
    c.what = what, c.type = type;
    m.base = by_address ? nullptr : reinterpret_cast<std::byte*>(base);
    m.page_count = pool_;
    c.rows = m;
    view = view.with(c);
  }

  /// Strides of dimensions within one another, in a random order, from `bytes` on; returns the bytes of all.
  std::int64_t nest(std::int64_t bytes, std::vector<std::pair<std::int64_t, std::int64_t*>> dimensions) {
    for (std::size_t i = dimensions.size(); i > 1; --i) std::swap(dimensions[i - 1], dimensions[random_.below(i)]);
    for (auto const& [extent, stride] : dimensions) {
      if (extent == 1 && one_of(3) == 0) continue;
      *stride = bytes + gap();
      bytes += (extent - 1) * *stride;
    }
    return bytes;
  }

  void set_components() {
    auto const& t = view.pages;
    std::int64_t const P = t.page_size, H = t.heads, L = t.layers;
    std::int32_t const count = static_cast<std::int32_t>(between(1, 3));
    bool const together = one_of(2) == 0;  // components of a page lie side by side
    pool_ = std::max<std::int64_t>(1, pages_ + one_of(4));
    std::int64_t at = 0, block = 0;
    std::vector<row_map> maps;
    for (std::int32_t i = 0; i < count; ++i) {
      row_map m;
      m.run_bytes = static_cast<std::int32_t>(unit_ * between(1, 4));
      m.n_runs = one_of(3) == 0 ? static_cast<std::int32_t>(between(2, 3)) : 1;
      bool const one_for_all = one_of(4) == 0;
      std::int64_t heads = 0;
      std::int64_t* const head = one_for_all ? &heads : &m.head_stride;
      std::int64_t const head_extent = one_for_all ? 1 : H;
      if (kind == form::rows) {
        set_rows(m, one_for_all, count, i);
      } else if (kind == form::any) {
        for (auto* stride : {&m.page_stride, &m.slot_stride, &m.run_stride, &m.layer_stride})
          *stride = unit_ * between(1, 24);
        if (!one_for_all) m.head_stride = unit_ * between(1, 24);
        m.offset = unit_ * one_of(60);
      } else if (kind == form::skipping || together) {
        std::int64_t const bytes =
            nest(m.run_bytes, {{m.n_runs, &m.run_stride}, {P, &m.slot_stride}, {head_extent, head}});
        m.offset = at, at += bytes + gap(), block = std::max(block, bytes);
      } else {
        std::int64_t page = 0;
        std::int64_t const bytes = nest(m.run_bytes, {{m.n_runs, &m.run_stride},
                                                      {P, &m.slot_stride},
                                                      {head_extent, head},
                                                      {by_address ? 1 : pool_, by_address ? &page : &m.page_stride},
                                                      {L, &m.layer_stride}});
        m.offset = at, at += bytes + gap();
      }
      maps.push_back(m);
    }
    skip_ = 1;
    if (kind == form::skipping) {
      skip_ = count, pool_ *= count;
      for (std::int32_t i = 0; i < count; ++i) {
        auto& m = maps[static_cast<std::size_t>(i)];
        m.offset = i * block, m.page_stride = block, m.layer_stride = (pool_ + count) * block;
      }
    } else if (kind == form::pages && together) {
      std::int64_t page = 0, layer = 0;
      page_bytes_ = nest(at, {{by_address ? 1 : pool_, &page}, {L, &layer}});
      for (auto& m : maps) m.page_stride = by_address ? 0 : std::max(page, unit_), m.layer_stride = layer;
    }
    role const roles[] = {role::k, role::v, role::k_scale};
    for (std::size_t i = 0; i < maps.size(); ++i) {
      bool const positions = positions_ && i > 0 && i + 1 == maps.size();
      if (own_layers() || (positions && common_positions_)) maps[i].layer_stride = 0;
      page_bytes_ =
          std::max(page_bytes_, maps[i].offset + maps[i].run_bytes + (P - 1) * maps[i].slot_stride +
                                    (H - 1) * maps[i].head_stride + (maps[i].n_runs - 1) * maps[i].run_stride +
                                    (L - 1) * maps[i].layer_stride);
      add(positions ? role::position : roles[i], positions ? dtype::i32 : type_, maps[i]);
    }
    if (one_of(6) == 0) {  // V is K, or a part of it
      component c = view.components[0];
      c.what = role::rope, c.alias_of = 0;
      if (c.rows.n_runs == 1) c.rows.run_bytes = static_cast<std::int32_t>(unit_);
      view = view.with(c);
    }
  }
  bool own_layers() { return !identity_ && !common_ && one_of(4) == 0; }  // layers by their tables alone

  /// Heads interleave: a slot is H rows, a page P·H rows, and ids count rows.
  void set_rows(row_map& m, bool one_for_all, std::int32_t count, std::int32_t i) {
    auto const& t = view.pages;
    if (i == 0) {
      period_ = between(1, 3), row_ = m.run_bytes + gap();
      blocks_ = std::max<std::int64_t>(1, pages_ + one_of(3));
      pool_ = blocks_ * t.page_size * period_ + (one_of(3) == 0 ? between(-period_, 2) : 0);
      pool_ = std::max<std::int64_t>(pool_, 1);
      side_by_side_ = one_of(3) == 0;
    }
    m.run_bytes = static_cast<std::int32_t>(std::min<std::int64_t>(m.run_bytes, row_)), m.n_runs = 1;
    std::int64_t const row = side_by_side_ ? row_ * count : row_;  // K and V in one row, or V behind K
    m.page_stride = row, m.slot_stride = row * period_;
    m.head_stride = one_for_all || one_of(2) == 0 ? 0 : row;
    std::int64_t const pool = pool_ * row;
    m.layer_stride = side_by_side_ ? pool : pool * count;
    m.offset = i * (side_by_side_ ? row_ : pool);
  }

  std::int64_t id() {
    if (kind == form::skipping) return one_of(std::max<std::int64_t>(1, pool_ / skip_)) * skip_;
    if (kind != form::rows) return one_of(pool_);
    if (one_of(8) == 0) return one_of(pool_);
    return one_of(blocks_) * period_ * view.pages.page_size + one_of(period_);
  }
  Entry entry(std::int64_t id) {
    if constexpr (by_address) {
      std::int64_t const step = kind == form::rows ? row_ : kind == form::any ? unit_ : page_bytes_;
      return reinterpret_cast<std::byte*>(base) + id * (step + unit_ - 1) / unit_ * unit_;
    } else {
      return static_cast<Entry>(id);
    }
  }
  void set_table() {
    auto& t = view.pages;
    std::int32_t const H = own_tables_ ? t.heads : 1, tables = common_ ? 1 : t.layers;
    t.head_stride = own_tables_ ? 1 : 0;
    if (identity_) return;
    std::vector<std::int64_t> drawn;
    auto const fresh = [&] {
      std::int64_t x = id();
      for (int tries = 0; tries < 40 && std::find(drawn.begin(), drawn.end(), x) != drawn.end(); ++tries) x = id();
      drawn.push_back(x);
      return entry(x);
    };
    std::int64_t const C = t.columns;
    if (csr_) row_begin_.push_back(0);
    for (std::int32_t r = 0; r < tables * per_layer_ * H; ++r) {
      for (std::int64_t i = 0; i < C; ++i) entries_.push_back(fresh());
      if (csr_) row_begin_.push_back(static_cast<std::int32_t>(entries_.size()));
    }
    if (csr_) {
      t.layer_stride = common_ ? 0 : std::int64_t{per_layer_} * H;
    } else {
      t.head_stride = own_tables_ ? C : 0, t.seq_stride = C * H;
      t.layer_stride = common_ ? 0 : C * H * per_layer_;
    }
    if constexpr (std::is_same_v<Entry, std::int32_t>)
      if (one_of(8) == 0) {
        t.index_mask = 0x7fffffff;
        for (auto& e : entries_)
          if (one_of(2) == 0) e |= std::numeric_limits<std::int32_t>::min();
      }
  }

  /// Components but the first, and what is an alias of it, have pages of their own, in a second table behind the first
  /// one: shared as those are, or not; of pools that nothing is known of, or of K's.
  void set_own_pages() {
    if (identity_) return;
    auto const n = entries_.size();
    std::map<Entry, Entry> other;
    bool const alike = one_of(4) != 0, in_one_pool = one_of(3) == 0;
    bool const strides =
        std::all_of(view.begin(), view.end(), [](component const& c) { return c.rows.page_stride > 0; });
    if (in_one_pool && !by_address && strides) {
      pool_ *= 2;
      for (auto& c : view.components) c.rows.page_count *= 2;
    }
    for (std::size_t i = 0; i < n; ++i) {
      Entry x = entry(id());
      if (alike) x = other.emplace(entries_[i], x).first->second;
      entries_.push_back(x);
    }
    for (std::int32_t i = 1; i < view.component_count; ++i) {
      component& c = view.components[static_cast<std::size_t>(i)];
      if (c.alias_of >= 0 || (i > 1 && one_of(2) == 0)) continue;
      c.table_offset = static_cast<std::int64_t>(n);
      if (in_one_pool && c.type == view.components[0].type) c.rows = view.components[0].rows;
    }
  }

  /// Some sequences begin with pages of the first.
  void set_read_only() {
    auto const& t = view.pages;
    std::int32_t const H = own_tables_ ? t.heads : 1;
    for (std::int32_t b = 0; b < t.sequences; ++b)
      read_only_.push_back(one_of(3) == 0 ? 100 : t.page_size * static_cast<std::int32_t>(one_of(t.columns + 1)));
    if (identity_) return;
    std::size_t const C = static_cast<std::size_t>(t.columns);
    for (std::size_t r = static_cast<std::size_t>(H); r < entries_.size() / C; ++r)
      for (std::size_t i = 0; one_of(2) == 0 && i < C && i < 2; ++i)
        entries_[r * C + i] = entries_[r % static_cast<std::size_t>(H) * C + i];
  }

  void change_something() {
    auto& c = view.components[random_.below(static_cast<std::size_t>(view.component_count))];
    std::int64_t const by = unit_ * between(-4, 4);
    auto const move = [&](std::int64_t& x, std::int64_t least) { x = std::max(least, x + by); };
    switch (one_of(9)) {
      case 0: move(c.rows.page_stride, unit_); break;
      case 1: move(c.rows.slot_stride, unit_); break;
      case 2: move(c.rows.head_stride, 0); break;
      case 3: move(c.rows.run_stride, unit_); break;
      case 4: move(c.rows.layer_stride, unit_); break;
      case 5: move(c.rows.offset, 0); break;
      case 6:
        for (auto& each : view.components) each.rows.page_count = std::max<std::int64_t>(1, pool_ - one_of(4));
        break;
      case 7:
        if (!read_only_.empty()) read_only_[random_.below(read_only_.size())] = 0;
        break;
      default:
        if (!entries_.empty()) {
          auto& e = entries_[random_.below(entries_.size())];
          e = one_of(2) == 0 ? entries_[random_.below(entries_.size())] : entry(id());
          if constexpr (by_address)
            e += by;
          else if (one_of(20) == 0)
            e = static_cast<Entry>(one_of(2) == 0 ? -1 : pool_);
        }
    }
    auto& first = view.components[0];
    for (auto& each : view.components)  // an alias follows
      if (each.alias_of == 0) {
        row_map const own = each.rows;
        each.rows = first.rows;
        if (first.rows.n_runs == 1) each.rows.run_bytes = own.run_bytes;
      }
  }

  static constexpr std::intptr_t base = 1 << 20;
  reference::generator& random_;
  bool own_tables_ = false, identity_ = false, csr_ = false, common_ = false, side_by_side_ = false;
  bool positions_ = false, common_positions_ = false;  // the last component; one row of them for all layers
  dtype type_ = dtype::f32;
  std::int64_t unit_ = 4, pages_ = 0, pool_ = 1, skip_ = 1, period_ = 1, row_ = 4, blocks_ = 1, page_bytes_ = 4;
  std::int32_t per_layer_ = 1;
  std::vector<std::int32_t> lengths_, row_begin_, read_only_;
  std::vector<Entry> entries_;
};

std::uint64_t number(char const* name, std::uint64_t otherwise) {
  char const* const given = std::getenv(name);
  return given == nullptr ? otherwise : std::strtoull(given, nullptr, 10);
}

struct counts {
  std::map<std::string, std::int64_t> of;
};

template <class Entry> void compare(std::uint64_t seed, arena& scratch, support::byte_owners& owners, counts& seen) {
  reference::generator random(seed);
  random_view<Entry> const made(random, seed % 5 == 0);
  ownership const truth = owners.judge(made.view);
  std::string const said = support::refusal([&] { validate(made.view, scratch); });
  std::string const what = std::string(form_names[static_cast<int>(made.kind)]) +
                           (page_table<Entry>::holds_pointers ? ", addresses" : ", ids");
  ++seen.of[(made.view.has_one_table() ? what : "two tables") + ": " + support::name_of(truth)];
  // what can be written can be read; a view that is read has no byte twice in a row
  std::vector<std::int32_t> const whole(static_cast<std::size_t>(made.view.sequences()), 1 << 30);
  bool const readable = support::refusal([&] { validate(made.view, scratch, page_use::read); }).empty(),
             apart = support::refusal([&] { validate(made.view.with_read_only(whole.data()), scratch); }).empty();
  if (said.empty() == (truth == ownership::sound) && (readable || !said.empty()) && (apart || !readable)) return;
  CAPTURE(readable, apart, seed, support::name_of(truth), form_names[static_cast<int>(made.kind)]);
  CHECK(said == std::string("not what was said"));
}

}  // namespace

TEST_CASE("ownership: validate accepts exactly the views in which no byte has two owners") {
  std::uint64_t const views = number("KVEVICT_VIEWS", 20'000), first = number("KVEVICT_VIEWS_SEED", 1);
  arena scratch;
  support::byte_owners owners;
  counts seen;
  auto const look = [&](std::uint64_t seed) {
    if (seed % 4 == 0)
      compare<std::byte*>(seed, scratch, owners, seen);
    else if (seed % 4 == 1)
      compare<std::int64_t>(seed, scratch, owners, seen);
    else
      compare<std::int32_t>(seed, scratch, owners, seen);
  };
  for (std::uint64_t seed = first; seed < first + views; ++seed) look(seed);
  // pages that have no byte in common at one address, of components that keep heads and layers apart differently
  for (std::uint64_t const rare : {37'586u, 109'142u, 122'707u}) look(rare);
  std::printf("ownership: KVEVICT_VIEWS=%llu KVEVICT_VIEWS_SEED=%llu\n", static_cast<unsigned long long>(views),
              static_cast<unsigned long long>(first));
  for (auto const& [what, n] : seen.of) {
    if (views > 20'000) std::printf("  %8lld  %s\n", static_cast<long long>(n), what.c_str());
    if (views >= 20'000) CHECK(n > static_cast<std::int64_t>(views) / 100'000);
  }
}

}  // namespace cache_ownership_test
