// SPDX-License-Identifier: Apache-2.0
// Prints, as JSON, what every verb would put into a device's stream, and its scratch, the bytes and flops that its
// shape demands.
#include <cstdio>
#include <regex>
#include <string>

#include "cuda/shapes.hpp"

namespace {

namespace cuda = kvevict::cuda;

/// The kernel's name and template arguments from the compiler's text.
std::string name_of(char const* text) {
  std::string s = text;
  auto const from = s.find("Kernel = ");
  s = from == std::string::npos ? s : s.substr(from + 9);
  if (auto const to = s.find_first_of("];"); to != std::string::npos) s.resize(to);
  return std::regex_replace(s, std::regex("kvevict::(v0_\\w+::)?(cuda::)?(pooled::)?"), "");
}

/// A decoding step of H2O, whose state is a float a slot.
bench::verb decoding_step() {
  return {"step/h2o", 0, 0, [](cuda::device& ctx, bench::layer const& l, bench::shape const& z, bench::outputs& out) {
            kvevict::component state = l.view.components[0];
            state.what = kvevict::role::state, state.type = kvevict::dtype::f32;
            state.rows.base += std::int64_t{1} << 41;
            state.rows.run_bytes = state.rows.slot_stride = 4, state.rows.page_stride = 4 * z.page_size;
            auto const view = l.view.with(state);
            auto row = l.window_queries;
            row.most_rows = 1, row.positions = l.view.lengths.data;
            constexpr auto h2o = kvevict::presets::h2o();
            kvevict::budget const ask{.tokens_per_head = z.budget};
            kvevict::observe(ctx, h2o, kvevict::step(view, row), ask);
            kvevict::plan(ctx, h2o, kvevict::remembered(view), ask, out.keep);
            compact(ctx, view, out.keep, kvevict::compaction::stable, out.done);
          }};
}

void print(cuda::dry_run const& run) {
  char const *const kinds[] = {"kernel", "copy", "fill"}, *comma = "";
  for (auto const& s : run.steps) {
    std::printf("%s{\"%s\": \"%s\", \"blocks\": %u, \"threads\": %u, \"bytes\": %zu}", comma,
                kinds[static_cast<int>(s.what)], name_of(s.name).c_str(), s.grid.x, s.block.x, s.bytes);
    comma = ", ";
  }
}

}  // namespace

int main() {
  simt::shared_bytes = cuda::limits::dynamic_shared;  // an H100's
  bench::shape const s;
  static std::byte memory[64];
  alignas(16) static std::byte base[16];
  auto* const integers = reinterpret_cast<std::int32_t*>(memory);
  bench::layer const l(s, base, base + 0, integers, integers, base, integers, integers,
                       reinterpret_cast<float*>(memory));
  cuda::owned_stream own;
  bench::outputs out;
  std::printf("[\n");
  char const* separator = "";
  auto verbs = bench::verbs(s);
  verbs.push_back(decoding_step());
  for (bench::verb const& v : verbs) {
    bench::layer moved = l;
    moved.view.components[1].rows.base = base + (std::int64_t{1} << 40);  // K and V apart; nothing is read
    auto const run = cuda::device::try_out(own, [&](cuda::device& ctx) { v.call(ctx, moved, s, out); });
    std::printf("%s{\"verb\": \"%s\", \"bytes\": %.0f, \"flops\": %.0f, \"scratch\": %zu, \"steps\": [", separator,
                v.name, v.bytes, v.flops, run.scratch_bytes);
    print(run);
    std::printf("]}");
    separator = ",\n";
  }
  std::printf("\n]\n");
}
