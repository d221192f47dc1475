// Memory: large arrays in huge pages where the system has them (fewer page faults and TLB misses),
// aligned small ones, and scratch that threads keep.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <new>

#include "simd.hpp"

namespace voxmill {

// Maps a panel of layers holds: reading a spectrum once a panel, in-panel reads grow with it.
constexpr int kPanelMaps = 16;
// With short vectors (AVX2) as many maps as a vector holds: measured 3 % faster than 4 there.
constexpr int kPartMaps = kRegisters >= 32 ? 4 : 8;

template <typename T>
struct SignsOf;
template <>
struct SignsOf<float> {
    typedef signed char type __attribute__((vector_size(kVectorBytes / 4), may_alias));
};
template <>
struct SignsOf<double> {
    typedef signed char type __attribute__((vector_size(kVectorBytes / 8), may_alias));
};
// A byte a lane: -1 or 0.
template <typename T>
using Signs = typename SignsOf<T>::type;

// One freed block is kept for the next box: fresh pages cost as much as some layers do.
class Kept {
  public:
    struct Block {
        void* memory = nullptr;
        size_t bytes = 0;
    };

    static Block take(size_t bytes) {
        {
            std::lock_guard<std::mutex> lock(mutex());
            Block block = block_();
            block_() = {};
            if (block.bytes >= bytes) return block;
            // Too small: gone before more is asked for, so that both never count at once.
            if (block.memory) munmap(block.memory, block.bytes);
        }
        void* memory =
            mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
        madvise(memory, bytes, MADV_HUGEPAGE);
#endif
        return {memory, bytes};
    }
    static void give(Block block) {
        std::lock_guard<std::mutex> lock(mutex());
        if (block.bytes > block_().bytes) std::swap(block, block_());
        if (block.memory) munmap(block.memory, block.bytes);
    }
    static void clear() {
        std::lock_guard<std::mutex> lock(mutex());
        if (block_().memory) munmap(block_().memory, block_().bytes);
        block_() = {};
    }

  private:
    static std::mutex& mutex() {
        static std::mutex mutex;
        return mutex;
    }
    static Block& block_() {
        static Block block;
        return block;
    }
};

template <typename T>
class Storage {
  public:
    explicit Storage(size_t count) {
        if (count) block_ = Kept::take((count * sizeof(T) + kPage - 1) / kPage * kPage);
    }
    ~Storage() { Kept::give(block_); }
    Storage(const Storage&) = delete;
    Storage& operator=(const Storage&) = delete;
    T* get() const { return static_cast<T*>(block_.memory); }

  private:
    static constexpr size_t kPage = 4096;
    Kept::Block block_;
};

template <typename V>
struct Free {
    void operator()(V* memory) const { ::operator delete[](memory, std::align_val_t(64)); }
};
template <typename V>
using Array = std::unique_ptr<V[], Free<V>>;
template <typename V>
Array<V> make_array(size_t count) {
    return Array<V>(static_cast<V*>(
        ::operator new[](sizeof(V) * std::max<size_t>(count, 1), std::align_val_t(64))));
}

// Scratch of this thread, kept for the next sweep: giving it back each time costs page faults.
template <typename V>
V* thread_scratch(size_t count) {
    thread_local Array<V> kept;
    thread_local size_t size = 0;
    if (count > size) {
        kept.reset();
        kept = make_array<V>(count);
        size = count;
    }
    return kept.get();
}

}  // namespace voxmill
