// Complex Fourier transforms of vectors, one signal per lane, in place and in cache.
//
// Forward: decimation in frequency, natural order to permuted order; inverse: decimation in time,
// permuted to natural. The engine multiplies spectra point by point, so it never sorts them:
// `order` says which frequency is where. Neither direction scales.
// Source of the algorithm: J. W. Cooley, J. W. Tukey, Math. Comp. 19 (1965) 297-301, in the mixed
// radix form of W. M. Gentleman and G. Sande, AFIPS Fall Joint Computer Conf. 29 (1966) 563-578.
#pragma once

#include <cmath>
#include <stdexcept>
#include <vector>

#include "simd.hpp"

namespace voxmill {

// a * (re + i im), the same factor in all lanes; with kInverse its conjugate.
template <typename T, bool kInverse>
inline Complex<T> rotated(Complex<T> a, T re, T im) {
    const Vec<T> c = splat<T>(re), s = splat<T>(im);
    if (kInverse) return {a.re * c + a.im * s, a.im * c - a.re * s};
    return {a.re * c - a.im * s, a.im * c + a.re * s};
}

template <typename T>
inline Complex<T> operator+(Complex<T> a, Complex<T> b) {
    return {a.re + b.re, a.im + b.im};
}
template <typename T>
inline Complex<T> operator-(Complex<T> a, Complex<T> b) {
    return {a.re - b.re, a.im - b.im};
}
// a * -i in the forward direction, a * i in the inverse one.
template <typename T, bool kInverse>
inline Complex<T> quarter(Complex<T> a) {
    if (kInverse) return {-a.im, a.re};
    return {a.im, -a.re};
}

template <typename T, bool kInverse, int R>
struct Butterfly;

template <typename T, bool kInverse>
struct Butterfly<T, kInverse, 2> {
    static inline __attribute__((always_inline)) void apply(Complex<T>* a) {
        const Complex<T> b = a[0] - a[1];
        a[0] = a[0] + a[1];
        a[1] = b;
    }
};

template <typename T, bool kInverse>
struct Butterfly<T, kInverse, 4> {
    static inline __attribute__((always_inline)) void apply(Complex<T>* a) {
        const Complex<T> s02 = a[0] + a[2], d02 = a[0] - a[2];
        const Complex<T> s13 = a[1] + a[3], d13 = quarter<T, kInverse>(a[1] - a[3]);
        a[0] = s02 + s13;
        a[2] = s02 - s13;
        a[1] = d02 + d13;
        a[3] = d02 - d13;
    }
};

template <typename T, bool kInverse>
struct Butterfly<T, kInverse, 8> {
    static inline __attribute__((always_inline)) void apply(Complex<T>* a) {
        Complex<T> even[4] = {a[0], a[2], a[4], a[6]};
        Complex<T> odd[4] = {a[1], a[3], a[5], a[7]};
        Butterfly<T, kInverse, 4>::apply(even);
        Butterfly<T, kInverse, 4>::apply(odd);
        const Vec<T> h = splat<T>(T(0.70710678118654752440));
        const Complex<T> q1 = quarter<T, kInverse>(odd[1]), q3 = quarter<T, kInverse>(odd[3]);
        odd[1] = {(odd[1].re + q1.re) * h, (odd[1].im + q1.im) * h};
        odd[2] = quarter<T, kInverse>(odd[2]);
        odd[3] = {(q3.re - odd[3].re) * h, (q3.im - odd[3].im) * h};
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            a[i] = even[i] + odd[i];
            a[i + 4] = even[i] - odd[i];
        }
    }
};

// cos and sin of 2 pi i / R, known to the compiler.
template <int R>
struct Roots;
template <>
struct Roots<3> {
    static constexpr double cosine[] = {1, -0.5, -0.5};
    static constexpr double sine[] = {0, 0.86602540378443864676, -0.86602540378443864676};
};
template <>
struct Roots<5> {
    static constexpr double cosine[] = {1, 0.30901699437494742410, -0.80901699437494742410,
                                        -0.80901699437494742410, 0.30901699437494742410};
    static constexpr double sine[] = {0, 0.95105651629515357212, 0.58778525229247312917,
                                      -0.58778525229247312917, -0.95105651629515357212};
};
template <>
struct Roots<7> {
    static constexpr double cosine[] = {1, 0.62348980185873353053, -0.22252093395631440429,
                                        -0.90096886790241912624, -0.90096886790241912624,
                                        -0.22252093395631440429, 0.62348980185873353053};
    static constexpr double sine[] = {0, 0.78183148246802980871, 0.97492791218182360702,
                                      0.43388373911755812048, -0.43388373911755812048,
                                      -0.97492791218182360702, -0.78183148246802980871};
};

// Odd radices: sums and differences of mirrored inputs, then cosines and sines.
template <typename T, bool kInverse, int R>
struct Butterfly {
    static_assert(R == 3 || R == 5 || R == 7, "a small odd radix");
    static inline __attribute__((always_inline)) void apply(Complex<T>* a) {
        constexpr int H = (R - 1) / 2;
        Complex<T> sum[H], difference[H];
        const Complex<T> first = a[0];
#pragma GCC unroll 4
        for (int j = 0; j < H; j++) {
            sum[j] = a[j + 1] + a[R - 1 - j];
            difference[j] = a[j + 1] - a[R - 1 - j];
            a[0] = a[0] + sum[j];
        }
#pragma GCC unroll 4
        for (int k = 1; k <= H; k++) {
            Complex<T> even = first, odd{};
#pragma GCC unroll 4
            for (int j = 1; j <= H; j++) {
                const int root = j * k % R;
                const Vec<T> c = splat<T>(T(Roots<R>::cosine[root]));
                const Vec<T> s = splat<T>(T(Roots<R>::sine[root]));
                even.re += sum[j - 1].re * c;
                even.im += sum[j - 1].im * c;
                odd.re += difference[j - 1].re * s;
                odd.im += difference[j - 1].im * s;
            }
            odd = quarter<T, kInverse>(odd);
            a[k] = even + odd;
            a[R - k] = even - odd;
        }
    }
};

template <typename T>
class Fft {
  public:
    explicit Fft(int length) : length_(length) {
        int rest = length;
        for (int radix : {8, 4, 2, 7, 5, 3}) {
            // 16 is 4 * 4, not 8 * 2.
            while (rest % radix == 0 && !(radix == 8 && rest % 16 == 0 && rest % 32 != 0)) {
                stages_.push_back({radix, rest});
                rest /= radix;
            }
        }
        if (rest != 1) throw std::invalid_argument("FFT length with a prime factor above 7");
        for (Stage& stage : stages_) add_twiddles(stage);
        order_.resize(length);
        for (int i = 0; i < length; i++) order_[i] = frequency_at(i);
    }

    int length() const { return length_; }
    // order()[position] = frequency
    const std::vector<int>& order() const { return order_; }

    void forward(Complex<T>* x) const {
        for (size_t i = 0; i < stages_.size(); i++) pass<false>(stages_[i], x);
    }
    void inverse(Complex<T>* x) const {
        for (size_t i = stages_.size(); i-- > 0;) pass<true>(stages_[i], x);
    }

  private:
    struct Stage {
        int radix, length;
        size_t first = 0;  // of its twiddle factors
    };

    void add_twiddles(Stage& stage) {
        stage.first = twiddles_.size();
        for (int j = 0; j < stage.length / stage.radix; j++)
            for (int q = 1; q < stage.radix; q++) {
                const double angle = -2 * M_PI * (double(j) * q / stage.length);
                twiddles_.push_back(T(std::cos(angle)));
                twiddles_.push_back(T(std::sin(angle)));
            }
    }

    int frequency_at(int position) const {
        int frequency = 0, step = 1;
        for (const Stage& stage : stages_) {
            const int part = stage.length / stage.radix;
            frequency += step * (position / part);
            position %= part;
            step *= stage.radix;
        }
        return frequency;
    }

    template <bool kInverse>
    void pass(const Stage& stage, Complex<T>* x) const {
        switch (stage.radix) {
            case 2: return pass_of<kInverse, 2>(stage, x);
            case 3: return pass_of<kInverse, 3>(stage, x);
            case 4: return pass_of<kInverse, 4>(stage, x);
            case 5: return pass_of<kInverse, 5>(stage, x);
            case 7: return pass_of<kInverse, 7>(stage, x);
            default: return pass_of<kInverse, 8>(stage, x);
        }
    }

    template <bool kInverse, int R>
    __attribute__((noinline)) void pass_of(const Stage& stage, Complex<T>* x) const {
        const int part = stage.length / R;
        for (Complex<T>* block = x; block != x + length_; block += stage.length) {
            butterfly<kInverse, R, false>(block, part, nullptr);
            const T* twiddle = twiddles_.data() + stage.first + 2 * (R - 1);
            for (int j = 1; j < part; j++, twiddle += 2 * (R - 1))
                butterfly<kInverse, R, true>(block + j, part, twiddle);
        }
    }

    template <bool kInverse, int R, bool kTwiddled>
    static inline __attribute__((always_inline)) void butterfly(Complex<T>* x, int part,
                                                                const T* twiddle) {
        Complex<T> a[R];
#pragma GCC unroll 8
        for (int q = 0; q < R; q++) {
            a[q] = x[q * part];
            if (kTwiddled && kInverse && q > 0)
                a[q] = rotated<T, true>(a[q], twiddle[2 * q - 2], twiddle[2 * q - 1]);
        }
        Butterfly<T, kInverse, R>::apply(a);
#pragma GCC unroll 8
        for (int q = 0; q < R; q++) {
            if (kTwiddled && !kInverse && q > 0)
                a[q] = rotated<T, false>(a[q], twiddle[2 * q - 2], twiddle[2 * q - 1]);
            x[q * part] = a[q];
        }
    }

    int length_;
    std::vector<Stage> stages_;
    std::vector<T> twiddles_;
    std::vector<int> order_;
};

}  // namespace voxmill
