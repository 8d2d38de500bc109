// SPDX-License-Identifier: Apache-2.0
// Prints, as JSON, what every verb would do on a device: its launches and scratch, the bytes and flops that its shape
// demands.
#include <cstdio>
#include <regex>
#include <string>

#include "cuda/shapes.hpp"

namespace {

/// The kernel's name and template arguments from the compiler's text.
std::string name_of(char const* text) {
  std::string s = text;
  auto const from = s.find("Kernel = ");
  s = from == std::string::npos ? s : s.substr(from + 9);
  if (auto const to = s.find_first_of("];"); to != std::string::npos) s.resize(to);
  return std::regex_replace(s, std::regex("kvevict::(v0_\\w+::)?(cuda::)?(pooled::)?"), "");
}

}  // namespace

int main() {
  simt::shared_bytes = kvevict::cuda::limits::dynamic_shared;  // an H100's
  bench::shape const s;
  static std::byte memory[64];
  alignas(16) static std::byte base[16];
  auto* const integers = reinterpret_cast<std::int32_t*>(memory);
  bench::layer const l(s, base, base + 0, integers, integers, base, integers, integers,
                       reinterpret_cast<float*>(memory));
  kvevict::cuda::owned_stream own;
  bench::outputs out;
  std::printf("[\n");
  char const* separator = "";
  for (bench::verb const& v : bench::verbs(s)) {
    bench::layer moved = l;
    moved.view.components[1].rows.base = base + (std::int64_t{1} << 40);  // K and V apart; nothing is read
    auto const run =
        kvevict::cuda::device::try_out(own, [&](kvevict::cuda::device& ctx) { v.call(ctx, moved, s, out); });
    std::printf("%s{\"verb\": \"%s\", \"bytes\": %.0f, \"flops\": %.0f, \"scratch\": %zu, \"launches\": [", separator,
                v.name, v.bytes, v.flops, run.scratch_bytes);
    char const* comma = "";
    for (auto const& k : run.launches) {
      std::printf("%s{\"kernel\": \"%s\", \"blocks\": %u, \"threads\": %u, \"shared\": %zu}", comma,
                  name_of(k.kernel).c_str(), k.grid.x, k.block.x, k.shared);
      comma = ", ";
    }
    std::printf("]}");
    separator = ",\n";
  }
  std::printf("\n]\n");
}
