// SPDX-License-Identifier: Apache-2.0
// Without libFuzzer: replays files, or runs new seeds for some seconds.
//
//   fuzz [--seconds S] [--runs N] [--seed N] [FILE or FOLDER]…
//
// A seed is a number, whose digits are the input. When a run ends the program, the last line names its input.
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "fuzz/input.hpp"

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size);
extern "C" void __sanitizer_set_death_callback(void (*)()) __attribute__((weak));

namespace {

std::string current;

void say() { std::fprintf(stderr, "fuzz: while running %s\n", current.c_str()); }
void on_signal(int signal) {
  say();
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

void run(std::uint64_t seed) {
  std::string const text = std::to_string(seed);
  current = "--runs 1 --seed " + text;
  LLVMFuzzerTestOneInput(reinterpret_cast<std::uint8_t const*>(text.data()), text.size());
}

void replay(std::filesystem::path const& file) {
  current = file.string();
  std::ifstream in(file, std::ios::binary);
  std::vector<char> const bytes{std::istreambuf_iterator<char>(in), {}};
  std::vector<std::uint8_t> const data(bytes.begin(), bytes.end());
  LLVMFuzzerTestOneInput(data.data(), data.size());
}

}  // namespace

int main(int argc, char** argv) {
  using clock = std::chrono::steady_clock;
  if (__sanitizer_set_death_callback != nullptr) __sanitizer_set_death_callback(say);
  for (int const signal : {SIGABRT, SIGFPE, SIGSEGV})
    if (signal == SIGABRT || __sanitizer_set_death_callback == nullptr) std::signal(signal, on_signal);
  // counts are printed at the end of the program, by target.cpp
  double seconds = 0;
  std::uint64_t runs = 0, seed = 1;
  for (int i = 1; i < argc; ++i) {
    std::string const argument = argv[i];
    auto const number = [&] { return i + 1 < argc ? std::strtoull(argv[++i], nullptr, 10) : 0; };
    if (argument == "--seconds") {
      seconds = static_cast<double>(number());
    } else if (argument == "--runs") {
      runs = number();
    } else if (argument == "--seed") {
      seed = number();
    } else if (std::filesystem::is_directory(argument)) {
      for (auto const& entry : std::filesystem::directory_iterator(argument)) replay(entry.path());
    } else {
      replay(argument);
    }
  }
  if (seconds > 0) std::printf("seed %llu\n", static_cast<unsigned long long>(seed)), std::fflush(stdout);
  auto const start = clock::now();
  for (std::uint64_t i = 0; i < runs || std::chrono::duration<double>(clock::now() - start).count() < seconds; ++i)
    run(seed + i);
}
