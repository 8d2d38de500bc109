// SPDX-License-Identifier: Apache-2.0
// Ranks of tensor parallelism as threads: each has some heads, and counts are added up between barriers.
#pragma once

#include <barrier>
#include <cstdint>
#include <thread>
#include <vector>

namespace support {

/// f(rank) on a thread each; `sum(rank)` is a rank's all_reduce.
class thread_ranks {
 public:
  explicit thread_ranks(int count) : gate_(count), bytes(static_cast<std::size_t>(count)), count_(count) {}

  auto sum(int rank) {
    return [this, rank](std::uint64_t* counts, std::int64_t n) {
      auto const size = static_cast<std::size_t>(n);
      if (rank == 0) total_.assign(size, 0);
      gate_.arrive_and_wait();
      for (int turn = 0; turn < count_; ++turn) {
        if (turn == rank)
          for (std::size_t i = 0; i < size; ++i) total_.at(i) += counts[i];
        gate_.arrive_and_wait();
      }
      for (std::size_t i = 0; i < size; ++i) counts[i] = total_.at(i);
      bytes[static_cast<std::size_t>(rank)].push_back(n * 8);
      gate_.arrive_and_wait();
    };
  }
  template <class F> void run(F f) {
    std::vector<std::thread> all;
    for (int rank = 1; rank < count_; ++rank) all.emplace_back([f, rank] { f(rank); });
    f(0);
    for (std::thread& t : all) t.join();
  }

 private:
  std::barrier<> gate_;
  std::vector<std::uint64_t> total_;

 public:
  std::vector<std::vector<std::int64_t>> bytes;  // of each rank's calls

 private:
  int count_;
};

}  // namespace support
