// SPDX-License-Identifier: Apache-2.0
// FlashInfer's own paged_kv_t against the view that engines/flashinfer.hpp makes of it. Its functions write a tag into
// every element, the view must read it; the cache is compacted through the view, and its functions read it again.
#include <cuda_fp16.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#include <flashinfer/page.cuh>

#include <kvevict/apply/compact.hpp>
#include <kvevict/core/host.hpp>
#include <kvevict/engines/flashinfer.hpp>

namespace {

using kvevict::role;
enum class storage { two_tensors, one_tensor, other_strides };

struct form {
  flashinfer::QKVLayout layout;
  storage held;
  std::uint32_t page_size, heads;
};

struct counts {
  std::int64_t cases = 0, elements = 0, differ = 0, on_device = 0, differ_there = 0;
};

constexpr std::uint32_t D = 64;
constexpr std::uint32_t batch = 5;

template <class T> std::uint64_t bits_of(T x) {
  std::uint64_t out = 0;
  std::memcpy(&out, &x, sizeof x);
  return out;
}

/// Tag of an element of a token, of K or V: the low bytes of a hash.
template <class T> T tag(std::uint32_t v, std::uint32_t b, std::uint32_t h, std::uint32_t t, std::uint32_t d) {
  std::uint64_t x = ((((std::uint64_t{v} * batch + b) * 8 + h) * 4096 + t) * D + d + 1) * 0x9e3779b97f4a7c15u;
  x ^= x >> 29;
  T out;
  std::memcpy(&out, &x, sizeof out);
  return out;
}

/// What each lane of attention reads: pages through the table, by FlashInfer's device functions.
template <class T>
__global__ void read_all(flashinfer::paged_kv_t<T, std::int32_t> kv, T* k, T* v, std::uint32_t b,
                         std::uint32_t tokens) {
  std::uint32_t const i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= tokens * kv.num_heads * kv.head_dim) return;
  std::uint32_t const d = i % kv.head_dim, h = i / kv.head_dim % kv.num_heads, t = i / kv.head_dim / kv.num_heads;
  std::uint32_t page, slot;
  kv.page_size.divmod(t, page, slot);
  k[i] = *kv.get_k_ptr(kv.indptr[b] + static_cast<std::int32_t>(page), h, slot, d);
  v[i] = *kv.get_v_ptr(kv.indptr[b] + static_cast<std::int32_t>(page), h, slot, d);
}

template <class T> T* allocate(std::size_t count, bool shared) {
  T* out = nullptr;
  if (shared && cudaMallocManaged(&out, std::max<std::size_t>(count, 1) * sizeof(T)) != cudaSuccess) std::abort();
  return shared ? out : new T[std::max<std::size_t>(count, 1)];
}
template <class T> void release(T* p, bool shared) {
  if (shared)
    cudaFree(p);
  else
    delete[] p;
}

template <class T> class check {
 public:
  check(form const& f, kvevict::dtype type, bool gpu, std::mt19937& random, counts& sum)
      : form_(f), type_(type), gpu_(gpu), random_(random), sum_(sum) {}

  void run() {
    set_table();
    set_pool();
    each([&](std::uint32_t v, std::uint32_t b, std::uint32_t h, std::uint32_t t, std::uint32_t d) {
      at(v, b, h, t, d) = tag<T>(v, b, h, t, d);
    });
    auto const cache = kvevict::engines::flashinfer::view(kv_, type_, pages_);
    read_through(cache);
    kvevict::host ctx;
    auto const mode = sum_.cases % 2 == 0 ? kvevict::compaction::stable : kvevict::compaction::fill_holes;
    set_keep();
    auto const done = kvevict::compact(ctx, cache, keep_, mode);
    kvevict::engines::flashinfer::update(kv_, cache, done);
    follow(done.moves());
    each([&](std::uint32_t v, std::uint32_t b, std::uint32_t h, std::uint32_t t, std::uint32_t d) {
      compare(at(v, b, h, t, d), tag<T>(v, b, h, token(b, h, t), d));
    });
    if (gpu_) read_on_device();
    ++sum_.cases;
    release(pool_, gpu_), release(indices_, gpu_), release(indptr_, gpu_), release(last_, gpu_);
  }

 private:
  void compare(T is, T want) { ++sum_.elements, sum_.differ += bits_of(is) != bits_of(want); }
  std::int32_t& token(std::uint32_t b, std::uint32_t h, std::uint32_t t) { return token_[(b * form_.heads + h)][t]; }
  T& at(std::uint32_t v, std::uint32_t b, std::uint32_t h, std::uint32_t t, std::uint32_t d) {
    std::uint32_t page, slot;
    kv_.page_size.divmod(t, page, slot);
    auto const id = static_cast<std::size_t>(indices_[indptr_[b] + static_cast<std::int32_t>(page)]);
    return v == 0 ? kv_.k_data[kv_.get_elem_offset(id, h, slot, d)] : kv_.v_data[kv_.get_v_elem_offset(id, h, slot, d)];
  }
  /// f for all elements, by FlashInfer's own lengths.
  template <class F> void each(F f) {
    for (std::uint32_t b = 0; b < batch; ++b)
      for (std::uint32_t t = 0; t < kv_.get_length(b); ++t)
        for (std::uint32_t h = 0; h < form_.heads; ++h)
          for (std::uint32_t d = 0; d < D; ++d) f(0, b, h, t, d), f(1, b, h, t, d);
  }

  void set_table() {
    std::uint32_t const P = form_.page_size;
    std::vector<std::uint32_t> const lengths{37, 0, 4 * P, 1, 2 * P + 3};  // none; a full last page
    indptr_ = allocate<std::int32_t>(batch + 1, gpu_), last_ = allocate<std::int32_t>(batch, gpu_);
    indptr_[0] = 0;
    for (std::uint32_t b = 0; b < batch; ++b) {
      std::uint32_t const n = (lengths[b] + P - 1) / P;
      indptr_[b + 1] = indptr_[b] + static_cast<std::int32_t>(n);
      last_[b] = lengths[b] == 0 ? 0 : static_cast<std::int32_t>(lengths[b] - (n - 1) * P);
    }
    pages_ = indptr_[batch] + 3;
    std::vector<std::int32_t> ids(static_cast<std::size_t>(pages_));
    std::iota(ids.begin(), ids.end(), 0);
    std::shuffle(ids.begin(), ids.end(), random_);
    indices_ = allocate<std::int32_t>(ids.size(), gpu_);
    std::copy(ids.begin(), ids.end(), indices_);
    token_.assign(batch * form_.heads, {});
    for (std::uint32_t r = 0; r < batch * form_.heads; ++r) {
      token_[r].resize(lengths[r / form_.heads]);
      std::iota(token_[r].begin(), token_[r].end(), 0);
    }
  }

  void set_pool() {
    std::uint32_t const P = form_.page_size, H = form_.heads;
    std::int64_t const page = std::int64_t{P} * H * D, all = pages_ * (page + 48);
    pool_ = allocate<T>(static_cast<std::size_t>(2 * all), gpu_);
    std::memset(pool_, 0x5a, static_cast<std::size_t>(2 * all) * sizeof(T));
    auto const [layout, held, size, heads] = form_;
    using kv_t = flashinfer::paged_kv_t<T, std::int32_t>;
    auto const strides = [&](std::int64_t of_page, flashinfer::QKVLayout l) {  // torch's of the last four axes
      return l == flashinfer::QKVLayout::kHND ? std::vector<std::int64_t>{of_page, std::int64_t{P} * D, D, 1}
                                              : std::vector<std::int64_t>{of_page, std::int64_t{H} * D, D, 1};
    };
    if (held == storage::two_tensors) {
      kv_ = kv_t(H, P, D, batch, layout, pool_, pool_ + all, indices_, indptr_, last_);
    } else if (held == storage::one_tensor) {  // [pages, 2, …]
      auto const s = strides(2 * page, layout);
      kv_ = kv_t(H, P, D, batch, layout, pool_, pool_ + page, s.data(), indices_, indptr_, last_);
    } else {
      auto const k = strides(page + 16, layout), v = strides(page + 48, layout);
      kv_ = kv_t(H, P, D, batch, layout, pool_, pool_ + all, k.data(), v.data(), indices_, indptr_, last_);
    }
  }

  void read_through(kvevict::layer_view<> const& cache) {
    for (std::uint32_t b = 0; b < batch; ++b)
      if (cache.length(static_cast<std::int32_t>(b), 0) != static_cast<std::int32_t>(kv_.get_length(b))) ++sum_.differ;
    auto const i32 = [](std::uint32_t x) { return static_cast<std::int32_t>(x); };
    each([&](std::uint32_t v, std::uint32_t b, std::uint32_t h, std::uint32_t t, std::uint32_t d) {
      T x;
      std::memcpy(&x, cache.row(*cache.find(v == 0 ? role::k : role::v), i32(b), i32(h), t) + d * sizeof(T), sizeof x);
      compare(x, tag<T>(v, b, h, t, d));
    });
  }

  /// About half of each sequence, as many in each head, other ones.
  void set_keep() {
    keep_ = {};
    keep_.sequences = batch, keep_.heads = static_cast<std::int32_t>(form_.heads), keep_.row_begin = {0};
    for (std::vector<std::int32_t> const& all : token_) {
      std::vector<std::int32_t> row = all;
      std::shuffle(row.begin(), row.end(), random_);
      row.resize((row.size() + 1) / 2);
      std::sort(row.begin(), row.end());
      keep_.tokens.insert(keep_.tokens.end(), row.begin(), row.end());
      keep_.row_begin.push_back(static_cast<std::int64_t>(keep_.tokens.size()));
      keep_.lengths.push_back(static_cast<std::int32_t>(all.size()));
    }
  }
  void follow(kvevict::move_plan const& moves) {
    for (std::size_t r = 0; r < token_.size(); ++r) {
      for (std::int64_t i = moves.row_begin[r]; i < moves.row_begin[r + 1]; ++i) {
        auto const k = static_cast<std::size_t>(i);
        token_[r][static_cast<std::size_t>(moves.destinations[k])] =
            token_[r][static_cast<std::size_t>(moves.sources[k])];
      }
      token_[r].resize(static_cast<std::size_t>(moves.lengths[r]));
      std::vector<std::int32_t> left = token_[r];  // what follows the moves must be the keep set
      std::sort(left.begin(), left.end());
      auto const kept = keep_.row(static_cast<std::int64_t>(r));
      sum_.differ += !std::equal(left.begin(), left.end(), kept.begin(), kept.end());
    }
  }

  void read_on_device() {
    for (std::uint32_t b = 0; b < batch; ++b) {
      std::uint32_t const n = kv_.get_length(b), count = n * form_.heads * D;
      if (n == 0) continue;
      T *const k = allocate<T>(count, true), *const v = allocate<T>(count, true);
      read_all<T><<<(count + 127) / 128, 128>>>(kv_, k, v, b, n);
      if (cudaDeviceSynchronize() != cudaSuccess) std::abort();
      for (std::uint32_t i = 0; i < count; ++i) {
        std::uint32_t const d = i % D, h = i / D % form_.heads,
                            was = static_cast<std::uint32_t>(token(b, h, i / D / form_.heads));
        sum_.on_device += 2;
        sum_.differ_there +=
            (bits_of(k[i]) != bits_of(tag<T>(0, b, h, was, d))) + (bits_of(v[i]) != bits_of(tag<T>(1, b, h, was, d)));
      }
      release(k, true), release(v, true);
    }
  }

  form form_;
  kvevict::dtype type_;
  bool gpu_;
  std::mt19937& random_;
  counts& sum_;
  flashinfer::paged_kv_t<T, std::int32_t> kv_;
  T* pool_ = nullptr;
  std::int32_t *indices_ = nullptr, *indptr_ = nullptr, *last_ = nullptr;
  std::int64_t pages_ = 0;
  std::vector<std::vector<std::int32_t>> token_;  // which token each slot holds, (B·H, length)
  kvevict::keep_set keep_;
};

}  // namespace

int main() {
  int devices = 0;
  bool const gpu = cudaGetDeviceCount(&devices) == cudaSuccess && devices > 0;
  std::mt19937 random(3);
  counts sum;
  for (auto const layout : {flashinfer::QKVLayout::kNHD, flashinfer::QKVLayout::kHND})
    for (std::uint32_t const P : {1u, 3u, 5u, 16u, 64u})
      for (std::uint32_t const H : {1u, 2u, 8u})
        for (storage const held : {storage::two_tensors, storage::one_tensor, storage::other_strides}) {
          check<nv_half>({layout, held, P, H}, kvevict::dtype::f16, gpu, random, sum).run();
          check<float>({layout, held, P, H}, kvevict::dtype::f32, gpu, random, sum).run();
        }
  std::printf("FlashInfer: %lld caches, %lld elements read by the view or by paged_kv_t, %lld differ\n",
              static_cast<long long>(sum.cases), static_cast<long long>(sum.elements),
              static_cast<long long>(sum.differ));
  if (gpu)
    std::printf("FlashInfer: %lld elements read on the device after compaction, %lld differ\n",
                static_cast<long long>(sum.on_device), static_cast<long long>(sum.differ_there));
  else
    std::printf("FlashInfer: its device functions are compiled; there is no GPU to run them\n");
  return sum.differ == 0 && sum.differ_there == 0 && sum.elements > 10000000 ? 0 : 1;
}
