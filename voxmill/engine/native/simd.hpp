// Vectors as wide as the CPU's registers, from one source for AVX-512, AVX, NEON and SSE.
//
// GCC's vector extensions turn each operation into one instruction of the target; a product added
// to a sum becomes a fused multiply-add where the target has it.
#pragma once

#include <cstddef>
#include <cstring>
#include <utility>

namespace voxmill {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
constexpr int kRegisters = 32;
#elif defined(__AVX__)
constexpr int kVectorBytes = 32;
constexpr int kRegisters = 16;
#elif defined(__aarch64__)
constexpr int kVectorBytes = 16;
constexpr int kRegisters = 32;
#else
constexpr int kVectorBytes = 16;
constexpr int kRegisters = 16;
#endif

template <typename T>
struct Simd;
template <>
struct Simd<float> {
    typedef float vec __attribute__((vector_size(kVectorBytes), may_alias));
    typedef int mask __attribute__((vector_size(kVectorBytes), may_alias));
    typedef int integer;
};
template <>
struct Simd<double> {
    typedef double vec __attribute__((vector_size(kVectorBytes), may_alias));
    typedef long long mask __attribute__((vector_size(kVectorBytes), may_alias));
    typedef long long integer;
};

template <typename T>
using Vec = typename Simd<T>::vec;
template <typename T>
using Mask = typename Simd<T>::mask;
template <typename T>
constexpr int lanes = kVectorBytes / int(sizeof(T));

// A vector of complex numbers; all spectra are arrays of them. The copies are written out part by
// part: GCC copies a plain struct in halves of a vector on some CPUs, and reading whole vectors
// from a copy that is still on its way to memory stalls.
template <typename T>
struct Complex {
    Vec<T> re, im;
    Complex() = default;
    Complex(Vec<T> re, Vec<T> im) : re(re), im(im) {}
    Complex(const Complex& other) : re(other.re), im(other.im) {}
    Complex& operator=(const Complex& other) {
        re = other.re;
        im = other.im;
        return *this;
    }
};

template <typename T>
inline Vec<T> splat(T value) {
    return value - Vec<T>{};
}

// The first `count` numbers at `from`, zeros after them.
template <typename T>
inline Vec<T> load_part(const T* from, int count) {
    Vec<T> value{};
    std::memcpy(&value, from, sizeof(T) * count);
    return value;
}

template <typename T>
inline void store_part(T* to, Vec<T> value, int count) {
    std::memcpy(to, &value, sizeof(T) * count);
}

// All bits set in the lanes below `count`.
template <typename T>
inline Mask<T> lane_mask(int count) {
    Mask<T> mask;
    for (int i = 0; i < lanes<T>; i++) mask[i] = i < count ? -1 : 0;
    return mask;
}

template <typename T>
inline Vec<T> keep(Vec<T> value, Mask<T> mask) {
    return (Vec<T>)((Mask<T>)value & mask);
}

template <typename T>
inline T sum_lanes(Vec<T> value) {
    T sum = 0;
    for (int i = 0; i < lanes<T>; i++) sum += value[i];
    return sum;
}

namespace detail {

// Lane of the two operands that goes to lane I when blocks of H lanes are exchanged.
template <int H, bool kHigh, int kLanes>
constexpr int exchanged(int i) {
    const int block = i / H;
    if (!kHigh) return block % 2 == 0 ? i : i - H + kLanes;
    return block % 2 == 0 ? i + H : i + kLanes;
}

template <typename T, int H, bool kHigh, int... I>
inline Vec<T> exchange(Vec<T> a, Vec<T> b, std::integer_sequence<int, I...>) {
    return __builtin_shuffle(a, b, Mask<T>{exchanged<H, kHigh, lanes<T>>(I)...});
}

template <typename T, int H>
inline void transpose_step(Vec<T>* rows) {
    constexpr int n = lanes<T>;
    using Lanes = std::make_integer_sequence<int, n>;
#pragma GCC unroll 16
    for (int i = 0; i < n; i++) {
        if (i & H) continue;
        const Vec<T> a = rows[i], b = rows[i + H];
        rows[i] = exchange<T, H, false>(a, b, Lanes{});
        rows[i + H] = exchange<T, H, true>(a, b, Lanes{});
    }
    if constexpr (2 * H < n) transpose_step<T, 2 * H>(rows);
}

}  // namespace detail

// Transpose a square of lanes x lanes numbers in registers.
template <typename T>
inline void transpose(Vec<T>* rows) {
    detail::transpose_step<T, 1>(rows);
}

}  // namespace voxmill
