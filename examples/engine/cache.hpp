// SPDX-License-Identifier: Apache-2.0
// The KV cache: pages of one pool, and for every sequence one page table per (layer, KV head).
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <new>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace llama {

/// Pages of P tokens of one KV head of one layer, with a free list. Untouched pages cost no memory.
class kv_pool {
 public:
  kv_pool(std::int64_t pages, int page_size, int head_dim) try
      : pages_(int(pages)), page_size_(page_size), head_dim_(head_dim) {
    if (pages < 1 || pages > std::numeric_limits<int>::max()) throw std::bad_alloc();
    std::size_t const slots = std::size_t(pages) * page_size;
    keys_ = std::make_unique_for_overwrite<float[]>(slots * head_dim);
    values_ = std::make_unique_for_overwrite<float[]>(slots * head_dim);
    positions_ = std::make_unique_for_overwrite<std::int32_t[]>(slots);
    free_.reserve(std::size_t(pages));
    while (pages-- > 0) free_.push_back(std::int32_t(pages));
  } catch (std::bad_alloc const&) {
    throw std::runtime_error("a KV cache of " + std::to_string(pages) + " pages of " + std::to_string(page_size) +
                             " tokens and " + std::to_string(head_dim) +
                             " elements does not fit into memory; ask for fewer tokens");
  }

  int take() {
    expect_free(1);
    int const page = free_.back();
    free_.pop_back();
    return page;
  }
  void give(int page) { free_.push_back(page); }
  void expect_free(int pages) const {
    if (pages > std::ssize(free_)) throw std::runtime_error("the KV pool is full; give it more pages or evict");
  }

  /// A fresh page with the same content.
  int copy(std::int64_t from) {
    std::int64_t const to = take(), size = page_size_ * head_dim_;
    std::copy_n(keys() + from * size, size, keys() + to * size);
    std::copy_n(values() + from * size, size, values() + to * size);
    std::copy_n(positions() + from * page_size_, page_size_, positions() + to * page_size_);
    if (keep()) std::copy_n(keep() + from * page_size_, page_size_, keep() + to * page_size_);
    return int(to);
  }

  /// From now on every slot has a keep probability, which gates fill.
  void add_keep() { keep_ = std::make_unique_for_overwrite<float[]>(std::size_t(pages_) * page_size_); }

  int pages() const { return pages_; }
  int page_size() const { return page_size_; }
  int head_dim() const { return head_dim_; }
  int used_pages() const { return pages_ - int(free_.size()); }
  std::size_t page_bytes() const { return page_size_ * (2 * head_dim_ * sizeof(float) + sizeof(std::int32_t)); }
  std::size_t used_bytes() const { return used_pages() * page_bytes(); }

  float* keys() const { return keys_.get(); }                   // (pages,P,D), after RoPE
  float* values() const { return values_.get(); }               // (pages,P,D)
  std::int32_t* positions() const { return positions_.get(); }  // (pages,P), logical
  float* keep() const { return keep_.get(); }                   // (pages,P) keep probabilities, or null

 private:
  int pages_, page_size_, head_dim_;
  std::unique_ptr<float[]> keys_, values_, keep_;
  std::unique_ptr<std::int32_t[]> positions_;
  std::vector<std::int32_t> free_;
};

/// Where the tokens of one KV head of one layer lie: slot s is row s % P of page pages[s / P].
struct head_table {
  std::vector<std::int32_t> pages;
  int length = 0;  // physical: slots in use
  int hole = -1;   // a slot below length that the next token takes instead of a new one (replacement in place)

  std::int64_t row(int slot, int page_size) const {
    return std::int64_t{pages[slot / page_size]} * page_size + slot % page_size;
  }
};

/// One sequence: its tables and its next logical position. Pages go back to the pool with it.
class sequence {
 public:
  sequence(kv_pool& pool, int layers, int kv_heads) : pool_(&pool), kv_heads_(kv_heads), tables_(layers * kv_heads) {}
  sequence(sequence&&) = default;
  ~sequence() {
    for (auto& t : tables_)
      for (int page : t.pages) pool_->give(page);
  }

  /// A deep copy: the same tokens in fresh pages.
  sequence fork() const {
    sequence copy(*pool_, layers(), kv_heads_);
    copy.next_position = next_position;
    for (std::size_t i = 0; i < tables_.size(); ++i) {
      copy.tables_[i] = {{}, tables_[i].length, tables_[i].hole};
      for (int page : tables_[i].pages) copy.tables_[i].pages.push_back(pool_->copy(page));
    }
    return copy;
  }

  /// Pages that n more tokens take from the pool.
  int pages_for(int n) const {
    int sum = 0, P = pool_->page_size();
    for (auto const& t : tables_)
      sum += t.hole >= 0 ? 0 : std::max(0, (t.length + n + P - 1) / P - int(t.pages.size()));
    return sum;
  }

  /// Makes room for n tokens and returns the first one's slot; the others follow it.
  int append(int layer, int head, int n) {
    auto& t = table(layer, head);
    if (t.hole >= 0 && n == 1) return std::exchange(t.hole, -1);
    if (t.hole >= 0) throw std::logic_error("a hole takes one token at a time");
    int const first = t.length;
    while (int(t.pages.size()) * pool_->page_size() < first + n) t.pages.push_back(pool_->take());
    t.length += n;
    return first;
  }

  /// Keeps the first `length` slots and gives the pages behind them back.
  void truncate(int layer, int head, int length) {
    auto& t = table(layer, head);
    if (length < 0 || length > t.length) throw std::logic_error("truncate: a length can only become smaller");
    t.length = length;
    if (t.hole >= length) t.hole = -1;
    for (; int(t.pages.size() - 1) * pool_->page_size() >= length && !t.pages.empty(); t.pages.pop_back())
      pool_->give(t.pages.back());
  }

  kv_pool& pool() const { return *pool_; }
  int kv_heads() const { return kv_heads_; }
  int layers() const { return int(tables_.size()) / kv_heads_; }
  head_table& table(int layer, int head) { return tables_[layer * kv_heads_ + head]; }
  head_table const& table(int layer, int head) const { return tables_[layer * kv_heads_ + head]; }

  int next_position = 0;  // logical: eviction does not change it

 private:
  kv_pool* pool_;
  int kv_heads_;
  std::vector<head_table> tables_;  // (L,H)
};

/// Some layers of several sequences as dense arrays, the form in which a page-table view reads them.
struct layer_tables {
  std::vector<std::int32_t> entries;  // (layers,B,H,columns), -1 behind the last page
  std::vector<std::int32_t> lengths;  // (layers,B,H)
  int columns = 0;
};

inline layer_tables tables_of(std::span<sequence* const> batch, int layer, int layers = 1) {
  layer_tables out;
  auto const each = [&](auto f) {
    for (int l = layer; l < layer + layers; ++l)
      for (sequence* s : batch)
        for (int h = 0; h < s->kv_heads(); ++h) f(s->table(l, h));
  };
  each([&](head_table const& t) { out.columns = std::max(out.columns, int(t.pages.size())); });
  each([&](head_table const& t) {
    out.lengths.push_back(t.length);
    out.entries.insert(out.entries.end(), t.pages.begin(), t.pages.end());
    out.entries.resize(out.lengths.size() * out.columns, -1);
  });
  return out;
}

}  // namespace llama
