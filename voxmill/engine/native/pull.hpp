// The pointwise part of the engine: multiply source spectra by the spectra of dilated 3 x 3 x 3
// kernels, which are computed on the fly, and add the products to target spectra.
//
// A tap at offset (a, b, c), each -1, 0 or 1, multiplies the spectrum by
// exp(i (a tz + b ty + c tx)), t = 2 pi k dilation / length. In the basis (middle, sum, difference)
// of the taps along an axis this is w0 + cos(t) ws + i sin(t) wd. The factor of z is applied once a
// plane (18 numbers remain), that of x once a line (6 remain: complex G0, Gs, Gd), and along y the
// spectrum of the kernel is G0 + cos(ty) Gs + i sin(ty) Gd: 4 multiply-adds besides the 4
// of the complex product itself, instead of 27 a voxel.
#pragma once

#include <map>

#include "grid.hpp"
#include "shared16.hpp"
#include "storage.hpp"

namespace voxmill {

// cos and sin of 2 pi k d / length; `sign` is -1 for the conjugate kernels of the gradient.
template <typename T>
class Tables {
  public:
    using C = Complex<T>;
    Tables(const Grid<T>& grid, int sign) : grid_(grid), sign_(sign) {}

    // [frequency] for z, [position] for x: each lane has its source's dilation.
    const C* along(int axis, const std::vector<int>& dilations) {
        auto& table = lanes_[{axis, dilations}];
        if (table) return table.get();
        const int length = grid_.box.p[axis];
        table = make_array<C>(length);
        for (int i = 0; i < length; i++)
            for (int lane = 0; lane < lanes<T>; lane++) {
                const int k = axis == 0 ? i : grid_.x.order()[i];
                const double angle = phase(k, dilations[lane], length);
                table[i].re[lane] = T(std::cos(angle));
                table[i].im[lane] = T(sign_ * std::sin(angle));
            }
        return table.get();
    }

    // [block] along y.
    const C* across(int dilation) {
        auto& table = blocks_[dilation];
        if (table) return table.get();
        const int length = grid_.box.p[1];
        table = make_array<C>(grid_.y_blocks);
        std::fill(table.get(), table.get() + grid_.y_blocks, C{});
        for (int i = 0; i < length; i++) {
            const double angle = phase(grid_.y.order()[i], dilation, length);
            table[i / lanes<T>].re[i % lanes<T>] = T(std::cos(angle));
            table[i / lanes<T>].im[i % lanes<T>] = T(sign_ * std::sin(angle));
        }
        return table.get();
    }

  private:
    static double phase(int k, int dilation, int length) {
        return 2 * M_PI * double((long long)k * dilation % length) / length;
    }
    const Grid<T>& grid_;
    const int sign_;
    std::map<std::pair<int, std::vector<int>>, Array<C>> lanes_;
    std::map<int, Array<C>> blocks_;
};

// (middle, sum, difference) of the taps along each axis, in place. Taps that reach beyond the box
// from every voxel in it would wrap around: they are left out.
template <typename T>
void to_basis(T* taps, const Box& box, int dilation) {
    const int strides[3] = {9, 3, 1};
    for (int axis = 0; axis < 3; axis++) {
        const int step = strides[axis];
        const bool inside = dilation < box.n[axis];
        for (int i = 0; i < 27; i++) {
            if (i / step % 3 != 0) continue;
            const T minus = taps[i], middle = taps[i + step], plus = taps[i + 2 * step];
            taps[i] = middle;
            taps[i + step] = inside ? plus + minus : 0;
            taps[i + 2 * step] = inside ? plus - minus : 0;
        }
    }
}

// All that some targets pull from one range of sources.
template <typename T>
struct Pull {
    using C = Complex<T>;
    int first_target = 0, targets = 0;
    int first_source = 0, sources = 0;
    int blocks = 0;                 // of `lanes` sources
    Array<Vec<T>> basis;            // [target][block][27], lanes over sources
    std::vector<const C*> z, x;     // [target * blocks + block]
    std::vector<const C*> y;        // [target * sources + source]
    int group = 1;                  // blocks of sources that are added at once
    bool one_dilation = true;       // whether a target's sources all have one dilation
    size_t scratch_size() const { return size_t(targets) * blocks * 18 + group * 6; }
};

// The kernels of a pull: taps and dilation of a pair of maps.
template <typename T>
struct Kernels {
    virtual ~Kernels() = default;
    virtual void taps(int target, int source, T* to) const = 0;
    virtual int dilation(int target, int source) const = 0;
};

template <typename T>
Pull<T> make_pull(const Grid<T>& grid, Tables<T>& tables, const Kernels<T>& kernels,
                  int first_target, int targets, int first_source, int sources) {
    constexpr int L = lanes<T>;
    Pull<T> pull;
    pull.first_target = first_target;
    pull.targets = targets;
    pull.first_source = first_source;
    pull.sources = sources;
    pull.blocks = (sources + L - 1) / L;
    // A line of all sources of a group stays in half of a small L1 cache.
    const size_t line_bytes = sizeof(Complex<T>) * grid.y_blocks * L;
    pull.group = std::clamp(int(16384 / line_bytes), 1, 2);
    const size_t size = size_t(targets) * pull.blocks * 27;
    pull.basis = make_array<Vec<T>>(size);
    std::fill(pull.basis.get(), pull.basis.get() + size, Vec<T>{});
    for (int t = 0; t < targets; t++)
        for (int block = 0; block < pull.blocks; block++) {
            std::vector<int> dilations(L, 0);
            for (int lane = 0; lane < L && block * L + lane < sources; lane++) {
                const int target = first_target + t, source = first_source + block * L + lane;
                T taps[27];
                kernels.taps(target, source, taps);
                dilations[lane] = kernels.dilation(target, source);
                pull.one_dilation &= dilations[lane] == kernels.dilation(target, first_source);
                to_basis(taps, grid.box, dilations[lane]);
                for (int i = 0; i < 27; i++)
                    pull.basis[(size_t(t) * pull.blocks + block) * 27 + i][lane] = taps[i];
                pull.y.push_back(tables.across(dilations[lane]));
            }
            pull.z.push_back(tables.along(0, dilations));
            pull.x.push_back(tables.along(2, dilations));
        }
    return pull;
}

// B blocks of a line of a target: to = sum + kernel * source, over some sources. kOneDilation: all
// sources have one dilation, so that its cosines and sines stay in registers.
template <typename T, typename Item, int B, bool kOneDilation>
__attribute__((noinline)) void add_line(const Complex<T>* sum, Complex<T>* to, bool fresh,
                                        const Item* source, size_t stride, int sources,
                                        const T* kernel, const Complex<T>* const* y, int block) {
    using V = Vec<T>;
    constexpr int L = lanes<T>;
    V re[B], im[B], cosine[B], sine[B];
#pragma GCC unroll 16
    for (int b = 0; b < B; b++) {
        re[b] = fresh ? V{} : sum[b].re;
        im[b] = fresh ? V{} : sum[b].im;
        cosine[b] = y[0][block + b].re;
        sine[b] = y[0][block + b].im;
    }
    for (; sources > 0; sources -= L, y += L, kernel += 6 * L)
        for (int s = 0; s < std::min(L, sources); s++, source += stride) {
            const V mid_re = splat<T>(kernel[s]), mid_im = splat<T>(kernel[L + s]);
            const V sum_re = splat<T>(kernel[2 * L + s]), sum_im = splat<T>(kernel[3 * L + s]);
            const V dif_re = splat<T>(kernel[4 * L + s]), dif_im = splat<T>(kernel[5 * L + s]);
            const Complex<T>* phase = y[s] + block;
#pragma GCC unroll 16
            for (int b = 0; b < B; b++) {
                const V c = kOneDilation ? cosine[b] : phase[b].re;
                const V d = kOneDilation ? sine[b] : phase[b].im;
                const V w_re = mid_re + c * sum_re - d * dif_im;
                const V w_im = mid_im + c * sum_im + d * dif_re;
                const Complex<T> from = unpack(source[b]);
                re[b] = re[b] + w_re * from.re - w_im * from.im;
                im[b] = im[b] + w_re * from.im + w_im * from.re;
            }
        }
#pragma GCC unroll 16
    for (int b = 0; b < B; b++) to[b] = {re[b], im[b]};
}

// Spectra are stored as `Item`s: Complex<T> or Shared16.
template <typename T, typename Item>
class Puller {
  public:
    using V = Vec<T>;
    using C = Complex<T>;

    static constexpr int kLinesAhead = 30;
    // The hardware's prefetcher does not follow so many streams. AVX-512 CPUs gain by our fetches;
    // on AVX2 (Zen 3) the arithmetic takes longer, and fetches cost 2 to 7 % more than they save
    // (all at once; shares, as below, were not measured there).
    static constexpr bool kFetch = kRegisters >= 32;

    // Add plane k of `pull` to `sums`, the spectrum of its first target with those of the others
    // behind it; `fresh` sums start at zero. The first `own_targets` go to planes at `own` instead.
    template <typename... Rest>
    static void plane(const Grid<T>& grid, const Pull<T>& pull, Rest... rest) {
        // Sums stay in registers, and cosines and sines too where a target has one dilation.
        constexpr bool many = kRegisters >= 32;
        if (pull.one_dilation) return add_plane<many ? 7 : 2, true>(grid, pull, rest...);
        add_plane<many ? 9 : 3, false>(grid, pull, rest...);
    }

  private:
    template <int kWidest, bool kOneDilation>
    static void add_plane(const Grid<T>& grid, const Pull<T>& pull, const Item* spectra, C* sums,
                          C* own, int own_targets, int k, bool fresh, V* scratch) {
        const int chunks = (grid.y_blocks + kWidest - 1) / kWidest;
        V* kernel = scratch;  // 6 vectors of a line for each block of a group
        V* reduced = scratch + pull.group * 6;
        reduce(pull, k, reduced);
        const size_t size = grid.spectrum_size();
        for (int line = 0; line < grid.box.p[2]; line++) {
            const size_t at = k * grid.plane_size() + size_t(line) * grid.y_blocks;
            for (int block = 0; block < pull.blocks; block += pull.group) {
                const int done = block * lanes<T>;
                const int blocks = std::min(pull.group, pull.blocks - block);
                const int sources = std::min(blocks * lanes<T>, pull.sources - done);
                const Item* source = spectra + at + (pull.first_source + done) * size;
                // So many lines ahead that the work before them takes as long as the fetch.
                const int ahead = grid.y_blocks * (1 + kLinesAhead / (sources * pull.targets));
                for (int t = 0; t < pull.targets; t++) {
                    if constexpr (kFetch) {
                        fetch_share(source + ahead, sources, size, t, pull.targets, grid.y_blocks);
                        if (block == 0 && !fresh)
                            fetch<1>(sums + at + t * size + ahead, grid.y_blocks);
                    }
                    const size_t index = size_t(t) * pull.blocks + block;
                    for (int b = 0; b < blocks; b++)
                        line_kernel(reduced + (index + b) * 18, pull.x[index + b][line],
                                    kernel + b * 6);
                    C* to = t < own_targets ? own + t * grid.plane_size() + line * grid.y_blocks
                                            : sums + at + t * size;
                    const C* sum = block == 0 ? sums + at + t * size : to;
                    const C* const* y = pull.y.data() + size_t(t) * pull.sources + done;
                    for (int c = 0; c < chunks; c++) {
                        const int from = grid.y_blocks * c / chunks;
                        const int end = grid.y_blocks * (c + 1) / chunks;
                        add<kOneDilation, kWidest>(end - from, sum + from, to + from,
                                               fresh && block == 0, source + from, size, sources,
                                               reinterpret_cast<const T*>(kernel), y, from);
                    }
                }
            }
        }
    }

    // A share of the sources with each target: fetches of all at once wait for each other.
    static void fetch_share(const Item* source, int sources, size_t size, int target, int targets,
                            int count) {
        const int end = sources * (target + 1) / targets;
        for (int s = sources * target / targets; s < end; s++) fetch<0>(source + s * size, count);
    }

    template <int kWrite, typename Number>
    static void fetch(const Number* numbers, int count) {
        const char* from = reinterpret_cast<const char*>(numbers);
        for (size_t i = 0; i < count * sizeof(Number); i += 64)
            __builtin_prefetch(from + i, kWrite);
    }

    // Apply the factor of z: from 27 real to 9 complex numbers a source.
    static void reduce(const Pull<T>& pull, int k, V* reduced) {
        for (size_t i = 0; i < size_t(pull.targets) * pull.blocks; i++) {
            const V* basis = pull.basis.get() + i * 27;
            const C phase = pull.z[i][k];
            for (int j = 0; j < 9; j++) {
                reduced[i * 18 + 2 * j] = basis[j] + phase.re * basis[9 + j];
                reduced[i * 18 + 2 * j + 1] = phase.im * basis[18 + j];
            }
        }
    }

    // Apply the factor of x: from [3 of y][3 of x] to [3 of y] complex numbers.
    static void line_kernel(const V* reduced, C phase, V* kernel) {
#pragma GCC unroll 3
        for (int j = 0; j < 3; j++) {
            const V* h = reduced + 6 * j;
            kernel[2 * j] = h[0] + phase.re * h[2] - phase.im * h[5];
            kernel[2 * j + 1] = h[1] + phase.re * h[3] + phase.im * h[4];
        }
    }

    template <bool kOneDilation, int B, typename... Rest>
    static void add(int width, Rest... rest) {
        if (width == B) return add_line<T, Item, B, kOneDilation>(rest...);
        if constexpr (B > 1) add<kOneDilation, B - 1>(width, rest...);
    }
};

}  // namespace voxmill
