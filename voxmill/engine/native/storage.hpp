// Memory: large arrays in huge pages where the system has them (fewer page faults and TLB misses),
// small aligned arrays, and scratch that each thread keeps.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <new>

#include "simd.hpp"

namespace voxmill {

// Feature maps of a panel of layers: a larger panel reads earlier spectra less often, and its own
// maps more often.
constexpr int kPanelMaps = 16;
// Feature maps of a part of a panel. With short vectors (AVX2) as many as a vector holds: measured
// 3 % faster than 4 there.
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
// One byte a lane: -1 or 0.
template <typename T>
using Signs = typename SignsOf<T>::type;

// Under AddressSanitizer each array has its own block, so that a read beyond its end is seen.
#ifdef __SANITIZE_ADDRESS__
constexpr bool kChecked = true;
#else
constexpr bool kChecked = false;
#endif

// One freed block is kept for the next box: fresh pages take as long as some layers.
class Kept {
  public:
    struct Block {
        void* memory = nullptr;
        size_t bytes = 0;
    };

    static Block take(size_t bytes) {
        if (kChecked) return {::operator new(bytes, std::align_val_t(64)), bytes};
        {
            std::lock_guard<std::mutex> lock(mutex());
            Block block = block_();
            block_() = {};
            if (block.bytes >= bytes) return block;
            // Too small: freed before more is requested, so that both never exist at once.
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
        if (kChecked) return ::operator delete(block.memory, std::align_val_t(64));
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
        if (count) block_ = Kept::take((count * sizeof(T) + kRounding - 1) / kRounding * kRounding);
    }
    ~Storage() { Kept::give(block_); }
    Storage(const Storage&) = delete;
    Storage& operator=(const Storage&) = delete;
    T* get() const { return static_cast<T*>(block_.memory); }

  private:
    static constexpr size_t kRounding = kChecked ? 1 : 4096;  // bytes; the size of a page
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

// Scratch of this thread, kept for the next sweep: freeing it each time costs page faults.
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
