// SPDX-License-Identifier: Apache-2.0
// The device context's own affairs: a lent buffer, dry runs, and keep sets that nothing has written.
#include <limits>

#include <kvevict/cuda.cuh>

#include "simt/device_cache.hpp"
#include "support/batch_cache.hpp"
#include "support/catch.hpp"
#include "support/keep_sets.hpp"

namespace context_test {

using namespace simt_test;
using namespace support;
using Catch::Contains;
namespace cuda = kvevict::cuda;
namespace presets = kvevict::presets;

namespace {

constexpr kvevict::budget twenty{.tokens_per_head = 20};

/// A cache in device memory, the rows of all its tokens, and what a policy of theirs needs.
struct room {
  batch in;
  layouts::cache<std::int32_t> cache;
  device_memory memory;
  device_cache<std::int32_t> there;
  kvevict::query_rows queries;

  explicit room(std::vector<std::size_t> lengths = {40, 30})
      : in(random_batch(41, {.Hq = 4, .H = 2, .D = 16, .N = std::move(lengths)})),
        cache(layouts::layout::head_pages, cache_shape_of(in)),
        there((fill(cache, in), cache)),
        queries(on_device_rows(memory, all_rows(in).queries(), static_cast<std::int32_t>(in.N.size()))) {}
  void plan(cuda::device& ctx, cuda::keep_set& keep) const {
    kvevict::plan(ctx, presets::snapkv({.window = 8, .pool = 3}), kvevict::prompt(there.view, queries), twenty, keep);
  }
  void plan_small(cuda::device& ctx, cuda::keep_set& keep) const {
    kvevict::plan(ctx, presets::streaming_llm(), kvevict::contents(there.view), twenty, keep);
  }
  void compact(cuda::device& ctx, cuda::keep_set& keep, cuda::compacted<std::int32_t>& done) const {
    plan_small(ctx, keep);
    kvevict::compact(ctx, there.view, keep, kvevict::compaction::stable, done);
    done.wait(ctx);
  }
};

template <class Call> std::size_t scratch_of(Call const& call) {
  return cuda::device::try_out(default_stream(), call).scratch_bytes;
}

}  // namespace

TEST_CASE("a lent buffer of scratch_bytes is enough, whichever calls came before") {
  room const r;
  cuda::keep_set keep;
  std::size_t const bytes = scratch_of([&](cuda::device& ctx) { r.plan(ctx, keep); });
  REQUIRE(bytes > scratch_of([&](cuda::device& ctx) { r.plan_small(ctx, keep); }));
  std::vector<std::byte> const bytes_of(bytes);
  on_device<std::byte> const lent(bytes_of);
  cuda::device ctx(default_stream(), lent.data(), bytes);
  for (int again = 0; again < 2; ++again) {
    r.plan_small(ctx, keep);
    r.plan(ctx, keep);
  }
  CHECK(keep.read(ctx).rows() == 4);
  ctx.reserve(bytes);
  CHECK_THAT(refusal([&] { ctx.reserve(bytes + 1); }), Contains(std::to_string(bytes + 1)));
  r.plan(ctx, keep);
  CHECK(keep.read(ctx).rows() == 4);
}

TEST_CASE("a lent buffer that is too small says how much is needed at least, and serves smaller calls") {
  room const r;
  cuda::keep_set keep;
  std::size_t const bytes = scratch_of([&](cuda::device&ctx) { r.plan(ctx, keep); }),
                    small = scratch_of([&](cuda::device&ctx) { r.plan_small(ctx, keep); });
  for (std::size_t const given : {std::size_t{0}, small - 64, small, bytes - 64}) {
    CAPTURE(given, bytes);
    std::vector<std::byte> const bytes_of(bytes);
    on_device<std::byte> const lent(bytes_of);
    cuda::device ctx(default_stream(), lent.data(), given);
    std::string const text = refusal([&] { r.plan(ctx, keep); });
    INFO(text);
    CHECK_THAT(text, Contains("the buffer has " + std::to_string(given)) && Contains("try_out"));
    std::string const mark = "scratch of at least ";
    REQUIRE(text.find(mark) != std::string::npos);
    std::size_t const said = std::stoul(text.substr(text.find(mark) + mark.size()));
    CHECK((said > given && said <= bytes));
    if (given < small) continue;
    r.plan_small(ctx, keep);
    CHECK(keep.read(ctx).rows() == 4);
  }
}

TEST_CASE("memory for a keep set from elsewhere is that of what it keeps, not of its lengths") {
  cuda::device ctx(default_stream());
  kvevict::keep_set from;
  from.sequences = 1, from.heads = 2;
  from.tokens = {0, 7, 9}, from.row_begin = {0, 2, 3};
  from.lengths = {std::numeric_limits<std::int32_t>::max(), 12};
  cuda::keep_set keep;
  keep.assign(ctx, from);
  CHECK(keep.stride <= 4);
  auto const back = keep.read(ctx);
  CHECK(back.tokens == from.tokens);
  CHECK(back.row_begin == from.row_begin);
  CHECK(back.lengths == from.lengths);
}

TEST_CASE("a keep set that no kernel has written is not read") {
  room r;
  SECTION("after a refusal") {
    cuda::device ctx(default_stream());
    cuda::keep_set keep;
    auto const view = r.there.view.with_read_only(r.memory.put(std::vector<std::int32_t>{0, 5}));
    kvevict::plan(ctx, presets::streaming_llm(), kvevict::contents(view), twenty, keep);
    CHECK_THAT(refusal([&] { keep.read(ctx); }), Contains("read_only[1]"));
    CHECK_THAT(refusal([&] { keep.read(ctx); }), Contains("read_only[1]"));
    r.plan_small(ctx, keep);
    CHECK(keep.read(ctx).rows() == 4);
  }
  SECTION("through a stream that nothing lets wait for the plan") {
    cuda::owned_stream first, other;
    cuda::device ctx(first), reader(other);
    cuda::keep_set keep;
    r.plan_small(ctx, keep);
    std::int64_t kept = 0;
    std::string const text = refusal([&] { kept = keep.read(reader).kept(); });
    INFO(text);
    CHECK((kept == 0 || kept == 80));  // on a GPU the plan may have been done by then
    CHECK((text.empty() || text.find("by an event") != std::string::npos));
    ctx.wait();
    CHECK(keep.read(reader).kept() == 80);
  }
  SECTION("with counts that are none") {
    cuda::device ctx(default_stream());
    cuda::keep_set keep;
    r.plan_small(ctx, keep);
    ctx.wait();
    for (std::int32_t const wrong : {-1, 41, 1 << 30}) {
      cuda::copy_to_device(ctx.queue(), keep.counts + 2, &wrong, 4);
      ctx.wait();
      CHECK_THAT(refusal([&] { keep.read(ctx); }), Contains("row 2 keeps " + std::to_string(wrong)));
    }
  }
}

TEST_CASE("a dry run leaves what it is shown as it was") {
  room const small({9, 7}), large({40, 30});
  cuda::device ctx(default_stream());
  cuda::keep_set keep;
  cuda::compacted<std::int32_t> done;
  large.compact(ctx, keep, done);
  auto const before = keep.read(ctx);
  auto const lengths = std::vector<std::int32_t>(done.lengths().begin(), done.lengths().end());
  auto const *const tokens = keep.tokens, *const on_device_lengths = done.lengths_on_device();
  auto const run = [](room const& r, cuda::keep_set& into, cuda::compacted<std::int32_t>& ticket) {
    return cuda::device::try_out(default_stream(), [&](cuda::device& dry) {
      r.plan_small(dry, into);
      compact(dry, r.there.view, into, kvevict::compaction::fill_holes, ticket);
      replace(dry, r.there.view, into, const_cast<std::int32_t*>(r.there.view.lengths.data));
    });
  };
  room const other({300, 20, 11});
  for (room const* r : {&small, &other, &large}) CHECK(run(*r, keep, done).steps.size() == 6 + 5 + 3);
  CHECK(keep.tokens == tokens);
  CHECK(keep.read(ctx).tokens == before.tokens);
  CHECK(done.ok());
  CHECK(std::vector<std::int32_t>(done.lengths().begin(), done.lengths().end()) == lengths);
  CHECK(done.lengths_on_device() == on_device_lengths);
  cuda::keep_set fresh;
  cuda::compacted<std::int32_t> none;
  run(large, fresh, none);
  CHECK(fresh.rows() == 0);
  CHECK(none.lengths_on_device() == nullptr);
}

TEST_CASE("what only a real run can give is refused in a dry one, by name") {
  room const r;
  cuda::device ctx(default_stream());
  cuda::keep_set keep;
  cuda::compacted<std::int32_t> done;
  r.compact(ctx, keep, done);
  auto const host_set = keep.read(ctx);
  auto const says = [&](auto const& call, char const* verb) {
    CHECK_THAT(refusal([&] { cuda::device::try_out(default_stream(), call); }),
               Contains(verb) && Contains("a dry run"));
  };
  std::vector<float> values{1.0f};
  says([&](cuda::device& dry) { dry.wait(); }, "wait: ");
  says([&](cuda::device& dry) { done.wait(dry); }, "wait: ");
  says([&](cuda::device& dry) { keep.read(dry); }, "read: ");
  says([&](cuda::device& dry) { keep.assign(dry, host_set); }, "assign: ");
  says(
      [&](cuda::device& dry) {
        kvevict::scores(dry, presets::random(), kvevict::contents(r.there.view), twenty, values);
      },
      "scores: ");
  CHECK(values == std::vector<float>{1.0f});
  CHECK(done.ok());
  CHECK(keep.read(ctx).tokens == host_set.tokens);
}

TEST_CASE("a result that nothing was put into the stream for has nothing to tell") {
  room const r;
  cuda::device ctx(default_stream());
  cuda::keep_set keep;
  cuda::compacted<std::int32_t> done;
  for (int again = 0; again < 2; ++again) {
    CHECK_THAT(refusal([&] { done.wait(ctx); }), Contains("no compaction was put into the stream") && Contains("; "));
    CHECK_FALSE(done.ok());
  }
  r.compact(ctx, keep, done);
  CHECK(done.ok());
}

}  // namespace context_test
