// Large arrays in huge pages where the system has them: fewer page faults and TLB misses.
#pragma once

#include <sys/mman.h>

#include "simd.hpp"

namespace voxmill {

// Maps a panel of layers holds: reading a spectrum once a panel, in-panel reads grow with it.
constexpr int kPanelMaps = 10;

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

template <typename T>
class Storage {
  public:
    explicit Storage(size_t count) : bytes_(count * sizeof(T)) {
        if (bytes_ == 0) return;
        bytes_ = (bytes_ + kPage - 1) / kPage * kPage;
        memory_ = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory_ == MAP_FAILED) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
        madvise(memory_, bytes_, MADV_HUGEPAGE);
#endif
    }
    ~Storage() {
        if (bytes_ && memory_ != MAP_FAILED) munmap(memory_, bytes_);
    }
    Storage(const Storage&) = delete;
    Storage& operator=(const Storage&) = delete;
    T* get() const { return static_cast<T*>(memory_); }

  private:
    static constexpr size_t kPage = 4096;
    size_t bytes_;
    void* memory_ = nullptr;
};

}  // namespace voxmill
