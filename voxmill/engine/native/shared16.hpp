// shared16: a complex number in 32 bits, 16 for each real number, for spectra that wait in memory.
//
//   bit   31        20 19         8 7          0
//         [ real part ][ imaginary ][ exponent ]      value = part * 2^(exponent - 137)
//
// Both parts are whole numbers from -2048 to 2047 (two's complement) with one exponent, that of the
// larger part (block floating point). The larger part keeps 11 bits besides its sign, where
// bfloat16 has 8, float16 has 11 and float32 has 24; the range is nearly that of float32. Sums are
// never kept in this form.
#pragma once

#include "simd.hpp"

namespace voxmill {

struct Shared16 {
    typedef unsigned bits __attribute__((vector_size(kVectorBytes), may_alias));
    typedef int integers __attribute__((vector_size(kVectorBytes), may_alias));
    static constexpr unsigned kTop = 0xfff00000u;  // 12 bits of 32
    // Smaller numbers are rounded as if they had it, so that both scales are normal numbers.
    static constexpr unsigned kLeastExponent = 40;
    bits both;
};

template <typename T>
inline Complex<T> unpack(const Complex<T>& value) {
    return value;
}
inline Complex<float> unpack(const Shared16& value) {
    // The part in the top 12 bits is 2^20 times the whole number: times 2^(exponent - 157).
    const Vec<float> unit = (Vec<float>)(((value.both & 0xffu) - 30u) << 23);
    const auto part = [&](Shared16::bits bits) {
        return __builtin_convertvector((Shared16::integers)(bits & Shared16::kTop), Vec<float>) *
               unit;
    };
    return {part(value.both), part(value.both << 12)};
}
template <typename T>
inline void pack(const Complex<T>& value, Complex<T>& to) {
    to = value;
}
inline void pack(const Complex<float>& value, Shared16& to) {
    const Shared16::bits re = (Shared16::bits)value.re & 0x7fffffffu;
    const Shared16::bits im = (Shared16::bits)value.im & 0x7fffffffu;
    // Of the larger part, rounded to 11 bits: it must not need a twelfth beside its sign.
    Shared16::bits exponent = ((re > im ? re : im) + 0x1000u) >> 23;
    exponent = exponent > Shared16::kLeastExponent
                   ? exponent
                   : Shared16::bits{} + Shared16::kLeastExponent;
    const Vec<float> scale = (Vec<float>)((264u - exponent) << 23);
    // Adding 1.5 * 2^23 leaves the nearest whole number in the lowest bits.
    const auto whole = [&](Vec<float> part) {
        return (Shared16::bits)(part * scale + 12582912.0f);
    };
    to.both = (whole(value.re) << 20) | ((whole(value.im) << 20) >> 12) | exponent;
}

}  // namespace voxmill
