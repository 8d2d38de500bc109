// SPDX-License-Identifier: Apache-2.0
// libFuzzer's entry; main.cpp calls it, too. At the end of the program it says what was done.
#include "fuzz/input.hpp"

namespace fuzz {
void run_int32(input&);
void run_int64(input&);
void run_address(input&);

namespace {

void print() {
  counts const& all = done();
  auto const number = [](std::int64_t n) { return static_cast<long long>(n); };
  std::printf(
      "%lld runs, %lld plans, %lld sequences cut, %lld tokens moved, %lld decode steps, %lld broken inputs, %lld "
      "refusals\n",
      number(all.runs), number(all.plans), number(all.cut), number(all.moved), number(all.steps), number(all.broken),
      number(all.refused));
  std::printf(
      "%lld relocations, %lld tables without pages, %lld of kept tokens, %lld masks and runs, %lld re-rotations, %lld "
      "quantised caches, %lld of forks, %lld of several tables\n",
      number(all.relocated), number(all.dropped), number(all.rewritten), number(all.masked), number(all.turned),
      number(all.of_codes), number(all.of_forks), number(all.of_tables));
  for (auto const& [kind, count] : all.refusals) std::printf("%8lld  %s\n", number(count), kind.c_str());
}

}  // namespace
}  // namespace fuzz

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  static bool const registered = (fuzz::done(), std::atexit(fuzz::print) == 0);
  static_cast<void>(registered);
  fuzz::input in(data, size);
  switch (in.below(3)) {
    case 0: fuzz::run_int32(in); break;
    case 1: fuzz::run_int64(in); break;
    default: fuzz::run_address(in);
  }
  return 0;
}
