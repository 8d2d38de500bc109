// SPDX-License-Identifier: Apache-2.0
// What the emulation refuses, and what it says.
#include <string>
#include <vector>

#include "simt/on_device.hpp"
#include "support/catch.hpp"

namespace refusals_test {

using namespace simt_test;
namespace cuda = kvevict::cuda;

namespace {

template <class F> struct as_kernel {
  F f;
  void operator()(cuda::thread& t) const { f(t); }
};

/// The message of what a kernel does wrong.
template <class F> std::string complaint(cuda::extent block, F f, std::size_t shared = 0) {
  cuda::stream const s = default_stream();
  try {
    cuda::launch(s, {1}, block, shared, as_kernel<F>{f});
    cuda::synchronize(s);
  } catch (cuda::cuda_error const& e) {
    return e.what();
  }
  return "none";
}
bool has(std::string const& text, std::string const& part) {
  INFO(text);
  CHECK(text.find(part) != std::string::npos);
  return text.find(part) != std::string::npos;
}

struct one_pointer {
  float* p;
  std::int64_t count;
  void operator()(cuda::thread&) const {}
  template <class Check> void pointers(Check check) const { check(p, count); }
};
struct small_blocks {
  static constexpr int max_threads = 64;
  void operator()(cuda::thread&) const {}
};

}  // namespace

TEST_CASE("a barrier that not all threads reach is refused, in every schedule") {
  for (std::uint64_t schedule = 0; schedule < 4; ++schedule) {
    scheduled const s(schedule);
    has(complaint({64},
                  [](cuda::thread& t) {
                    if (t.linear_index() < 48) t.sync_block();
                  }),
        "the block barrier is reached by 48 of 64 threads: thread 48 has returned");
    has(complaint({32},
                  [](cuda::thread& t) {
                    if (t.lane() < 16) t.sync_warp();
                  }),
        "sync_warp with mask 0xffffffff in warp 0 is reached by 16 of 32 threads: thread 16 has returned");
    has(complaint({64},
                  [](cuda::thread& t) {
                    if (t.warp() == 0)
                      t.sync_block();
                    else
                      t.sync_warp(), t.sync_block(), t.sync_block();
                  }),
        "the block barrier is reached by 32 of 64 threads: thread 0 has returned");
  }
  CHECK(complaint({64}, [](cuda::thread& t) { t.sync_block(); }) == "none");  // and the next launch is clean
}

TEST_CASE("a lane outside the mask is refused") {
  has(complaint({32}, [](cuda::thread& t) { cuda::ballot(t, true, 0xffff); }), "which is outside the mask");
  has(complaint({32},
                [](cuda::thread& t) {
                  if (t.lane() < 16) cuda::shuffle(t, 1, 20, 0xffff);
                }),
      "reads lane 20, which is outside the mask");
  has(complaint({32}, [](cuda::thread& t) { cuda::shuffle_xor(t, 1, 32); }), "outside the mask");
  has(complaint({48}, [](cuda::thread& t) { cuda::ballot(t, true); }), "the warp has only 16 lanes");
  has(complaint({32},
                [](cuda::thread& t) {
                  if (t.lane() != 3) cuda::shuffle(t, 1, 0);
                }),
      "shuffle with mask 0xffffffff in warp 0 is reached by 31 of 32 threads: thread 3 has returned");
}

TEST_CASE("launches beyond the device's limits are refused at once") {
  cuda::stream const s = default_stream();
  auto const refused = [&](cuda::extent grid, cuda::extent block, std::size_t shared) {
    CHECK_THROWS_AS(cuda::launch(s, grid, block, shared, one_pointer{nullptr, 0}), cuda::cuda_error);
  };
  refused({1}, {1025}, 0);
  refused({1}, {32, 33}, 0);
  refused({1}, {1, 1, 65}, 0);
  refused({1, 65536}, {1}, 0);
  refused({0}, {1}, 0);
  refused({0x80000000u}, {1}, 0);
  refused({1}, {1}, (227 << 10) + 1);
  CHECK_THROWS_AS(cuda::launch(s, {1}, {65}, 0, small_blocks{}), cuda::cuda_error);
  CHECK_NOTHROW(cuda::launch(s, {1}, {32, 32}, 227 << 10, one_pointer{nullptr, 0}));
  CHECK_NOTHROW(cuda::synchronize(s));
}

TEST_CASE("shared memory is what the launch gave") {
  auto const takes = [](cuda::thread& t) { t.shared<float>(4), t.shared<double>(3); };
  CHECK(complaint({32}, takes, 48) == "none");
  has(complaint({32}, takes, 40), "48 bytes are taken, the launch gave 40");
  has(complaint(
          {32}, [](cuda::thread& t) { t.shared<float>(t.linear_index() + 1); }, 4096),
      "arrays of different sizes");
  has(complaint({32},
                [](cuda::thread& t) {
                  KVEVICT_SHARED(t, float, big, 12289);
                  big[0] = 1;
                }),
      "are more than a block has");
  has(complaint(
          {32},
          [](cuda::thread& t) {
            KVEVICT_SHARED(t, float, some, 8);
            some[0] = 1;
          },
          227 << 10),
      "are more than a block has");
}

TEST_CASE("asynchronous copies and vectors are aligned and waited for") {
  on_device<float> in(std::vector<float>(8));
  float* const p = in.data();
  has(complaint(
          {1}, [p](cuda::thread& t) { cuda::copy_async16(t, t.shared<float>(4), p); }, 16),
      "never waited for");
  has(complaint(
          {1}, [p](cuda::thread& t) { cuda::copy_async16(t, t.shared<float>(8) + 1, p); }, 32),
      "not aligned to 16 bytes");
  has(complaint({1}, [p](cuda::thread& t) { cuda::load_vec128(t, p + 2); }), "not aligned to 16 bytes");
}

TEST_CASE("pointers of a kernel are checked where it is launched") {
  cuda::stream const s = default_stream();
  on_device<float> in(std::vector<float>(10));
  std::vector<float> host(10);
  CHECK_NOTHROW(cuda::launch(s, {1}, {1}, 0, one_pointer{in.data() + 2, 8}));
  CHECK_THROWS_AS(cuda::launch(s, {1}, {1}, 0, one_pointer{in.data() + 2, 9}), cuda::cuda_error);
  CHECK_THROWS_AS(cuda::launch(s, {1}, {1}, 0, one_pointer{host.data(), 10}), cuda::cuda_error);
  CHECK_THROWS_AS(cuda::copy_to_device(s, host.data(), host.data(), 40), cuda::cuda_error);
  CHECK_THROWS_AS(cuda::copy_to_host(s, in.data(), in.data(), 40), cuda::cuda_error);
  CHECK_THROWS_AS(cuda::fill_bytes(s, in.data(), 0, 41), cuda::cuda_error);
  void* const p = cuda::allocate(s, 100);
  cuda::release(s, p);
  // still there when launched, gone when it runs
  cuda::launch(s, {1}, {1}, 0, one_pointer{static_cast<float*>(p), 25});
  CHECK_THROWS_AS(cuda::synchronize(s), cuda::cuda_error);
}

TEST_CASE("a stream runs in order, when it is waited for") {
  cuda::owned_stream own;
  cuda::stream const s = own;
  std::vector<std::uint32_t> host{1, 2, 3}, back(3);
  void* const p = cuda::allocate(s, 12);
  cuda::copy_to_device(s, p, host.data(), 12);
  cuda::fill_bytes(s, p, 0, 4);
  cuda::copy_to_host(s, back.data(), p, 12);
  CHECK(back == std::vector<std::uint32_t>{0, 0, 0});
  cuda::synchronize(s);
  CHECK(back == std::vector<std::uint32_t>{0, 2, 3});
  cuda::release(s, p);
}

}  // namespace refusals_test
