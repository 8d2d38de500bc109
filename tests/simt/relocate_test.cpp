// SPDX-License-Identifier: Apache-2.0
// A keep set that was planned on a device and read back: verbs that touch no byte of the cache are the host's, on a
// view whose table is the host's; relocation moves what the host moves.
#include "simt/same_words.hpp"
#include "support/ledger.hpp"

namespace relocate_test {

using namespace simt_test;

namespace {

/// Counts what a view names; every third page of a row is published, and these are free.
template <class Entry>
support::ledger<Entry> ledger_of(kvevict::layer_view<Entry> const& v, std::vector<Entry> const& unused) {
  support::ledger<Entry> out;
  out.free = unused;
  out.refer(v, [&](Entry page, std::int64_t i) {
    if (i % 3 == 0) out.hash.insert(page);
  });
  return out;
}

/// The device's cache by the host's table, of which entries of addresses are the device's.
template <class Entry> struct by_the_hosts_table {
  std::vector<Entry> entries;
  kvevict::layer_view<Entry> view;

  by_the_hosts_table(layouts::cache<Entry>& here, device_cache<Entry> const& there)
      : entries(here.entries()), view(there.view) {
    view.pages.entries = entries.data() + (here.view.pages.entries - here.entries().data());
    view.pages.row_begin = here.view.pages.row_begin, view.pages.columns = here.view.pages.columns;
    view.lengths = here.view.lengths;
    if constexpr (std::is_pointer_v<Entry>)
      for (Entry& e : entries)
        for (std::size_t i = 0; i < here.snapshot().size(); ++i)
          if (auto& b = here.buffer(i); e >= b.data() && e < b.data() + b.size()) {
            e = there.start(i) + (e - b.data());
            break;
          }
  }
};

constexpr layout tables[] = {layout::nhd,        layout::hnd,      layout::x_packed,    layout::csr,
                             layout::token_pool, layout::pointers, layout::head_blocks, layout::head_pages};

template <class F> void with_room(layout l, F f) {
  layouts::cache_shape shape{.lengths = {37, 22}, .heads = 2, .head_dim = 16, .page_size = 4, .spare_tokens = 40};
  shape.state_floats = 3;
  layouts::with_layout(l, shape, [&](auto& cache) {
    cache.fill(role::k, [](int b, int h, int t, int d) { return b + 2 * h + 4 * t + 200 * d; });
    f(cache);
  });
}
/// Pages behind the rows.
template <class Entry>
std::vector<Entry> unused(kvevict::layer_view<Entry> const& v, std::vector<std::int32_t> const& n) {
  std::vector<Entry> out;
  for (std::int32_t b = 0; b < v.sequences(); ++b)
    for (std::int32_t h = 0; h < (v.pages.per_head() ? v.heads() : 1); ++h)
      for (std::int64_t i = (v.length(b, h) + v.pages.page_size - 1) / v.pages.page_size,
                        end = (n[static_cast<std::size_t>(b)] + 40) / v.pages.page_size;
           i < end; ++i)
        out.push_back(v.pages.entry(b, h, i));
  return out;
}

}  // namespace

TEST_CASE("on a device pages that are shared stay, and the others move as on the host, in every layout") {
  std::uint64_t seed = 0;
  for (std::int32_t const tokens : {13, 30})
    for (layout const l : tables)
      with_room(l, [&](auto& cache) {
        scheduled const order(++seed);
        using entry = typename std::decay_t<decltype(cache.view)>::table_entry;
        CAPTURE(cache.name());
        device_cache<entry> there(cache);
        by_the_hosts_table<entry> const mixed(cache, there);
        kvevict::host host;
        cuda::device ctx(default_stream());
        auto const keydiff = presets::keydiff({.sinks = 2, .recent = 3});
        kvevict::budget const ask{.tokens_per_head = tokens};
        auto const want = plan(host, keydiff, kvevict::contents(cache.view), ask);
        cuda::keep_set keep;
        plan(ctx, keydiff, kvevict::contents(there.view), ask, keep);
        auto const read = keep.read(ctx);
        REQUIRE(read.tokens == want.tokens);

        auto here_pages = ledger_of(cache.view, unused(cache.view, {37, 22})),
             there_pages = ledger_of(mixed.view, unused(mixed.view, {37, 22}));
        kvevict::relocated<entry> done_here, done_there;
        on_device<std::int32_t> const slots(std::vector<std::int32_t>(4));
        CHECK(refusal([&] { replace(ctx, there.view, keep, slots.data()), ctx.wait(); }) != "");  // stops no other call
        relocate(host, cache.view, want, here_pages, done_here);
        relocate(ctx, host, mixed.view, read, there_pages, done_there);
        ctx.wait();
        REQUIRE(done_here.ok());
        REQUIRE(done_there.ok());
        CHECK((there.snapshot() == cache.snapshot()));
        CHECK(done_there.bytes_moved() == done_here.bytes_moved());
        CHECK(done_there.bytes_moved() > 0);
        CHECK(done_there.acquired().size == done_here.acquired().size);
        CHECK(done_there.released().size == done_here.released().size);
        CHECK(there_pages.free.size() == here_pages.free.size());
        if constexpr (!std::is_pointer_v<entry>) {
          auto const list = [](auto const& x) { return std::vector<entry>(x.begin(), x.end()); };
          CHECK(list(done_there.entries()) == list(done_here.entries()));
          CHECK(list(done_there.released()) == list(done_here.released()));
        }
      });
}

TEST_CASE("on a device rows that heads have in common are moved only where all agree, in the host's words") {
  layouts::cache<std::int32_t> cache(layout::nhd, {.lengths = {20}, .heads = 2, .spare_tokens = 40});
  cache.view.components[2].rows.head_stride = 0;  // positions
  std::vector<std::int32_t> const row{0, 2, 3, 7, 11, 18, 19}, other{0, 2, 3, 7, 12, 18, 19};
  for (bool const agree : {false, true}) {
    device_cache<std::int32_t> there(cache);
    by_the_hosts_table<std::int32_t> const mixed(cache, there);
    auto const keep = keep_of(cache.view, {row, agree ? row : other});
    auto here_pages = ledger_of(cache.view, unused(cache.view, {20})), there_pages = here_pages;
    kvevict::host host;
    cuda::device ctx(default_stream());
    kvevict::relocated<std::int32_t> done;
    auto const said = refusal([&] { relocate(ctx, host, mixed.view, keep, there_pages, done), ctx.wait(); });
    CHECK(done.ok() == agree);
    CHECK(refusal([&] { relocate(host, cache.view, keep, here_pages, done); }) == said);
    CHECK(contains(said, "component position has one row for all heads") == !agree);
    CHECK((there_pages == here_pages));
    CHECK((there.snapshot() == cache.snapshot()));
  }
}

TEST_CASE("a keep set that was read from a device becomes a mask, runs and tables on the host") {
  for (layout const l : tables)
    with_room(l, [&](auto& cache) {
      using entry = typename std::decay_t<decltype(cache.view)>::table_entry;
      CAPTURE(cache.name());
      device_cache<entry> there(cache);
      by_the_hosts_table<entry> const mixed(cache, there);
      auto const before = there.snapshot();
      kvevict::host host;
      cuda::device ctx(default_stream());
      auto const pages = presets::streaming_llm({.sinks = 2}).with(kvevict::select::pages{});
      kvevict::budget const ask{.tokens_per_head = 14};
      cuda::keep_set keep;
      plan(ctx, pages, kvevict::contents(there.view), ask, keep);
      auto const read = keep.read(ctx);
      std::vector<std::uint32_t> bits(8), want(8);
      mask(host, mixed.view, read, kvevict::bit_rows<std::uint32_t>{bits.data(), 37, 2});
      for (std::int32_t r = 0; r < 4; ++r)
        for (std::int32_t const t : read.row(r)) want[static_cast<std::size_t>(r * 2 + t / 32)] |= 1u << t % 32;
      CHECK(bits == want);
      auto const runs = evicted_runs(host, mixed.view, read);
      std::int64_t gone = 0;
      for (kvevict::token_run const& run : runs(0, 0)) gone += run.last - run.first;
      CHECK(gone == 37 - read.row(0).size);
      auto const dropped = drop_pages(host, mixed.view, read);
      CHECK(dropped.length(0, 0) == read.row(0).size);
      CHECK(dropped.entries(0)[0] == mixed.view.pages.entries_of(0, 0)[0]);
      if (cache.view.pages.page_size == 1)
        CHECK(rewrite_table(host, mixed.view, read).entries(0).size == read.row(0).size);
      CHECK((there.snapshot() == before));
    });
}

}  // namespace relocate_test
