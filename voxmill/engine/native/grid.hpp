// A box and its padded spectrum: the 3D real Fourier transform, split into two sweeps.
//
// "Columns" run along z; the real rows y and y + 1 form one complex signal. Between the inverse
// and the forward transform of a column the caller changes the real values. "Planes" of one
// frequency kz hold the transforms along y and x. Transforms skip what is known to be zero and
// what nobody reads outside of the box. Sizes count vectors of `lanes` complex numbers.
//
//   half spectrum  [kz plane][x position][y block]  lanes along y (positions in the FFT's order)
//   columns        [kz plane][y][x block]           lanes along x
#pragma once

#include <algorithm>
#include <cstdint>

#include "fft.hpp"

namespace voxmill {

struct Box {
    int32_t n[3];  // voxels of the box, z, y, x
    int32_t p[3];  // length of the transforms; at least n plus the largest dilation
};

template <typename T>
class Grid {
  public:
    using V = Vec<T>;
    using C = Complex<T>;

    explicit Grid(const Box& box)
        : box(box),
          z(box.p[0]),
          y(box.p[1]),
          x(box.p[2]),
          planes(box.p[0] / 2 + 1),
          y_blocks(blocks_of(box.p[1])),
          x_blocks(blocks_of(box.n[2])),
          x_mask(lane_mask<T>(box.n[2] - (x_blocks - 1) * lanes<T>)),
          place_(box.p[0]) {
        for (int i = 0; i < box.p[0]; i++) place_[z.order()[i]] = i;
    }

    static int blocks_of(int length) { return (length + lanes<T> - 1) / lanes<T>; }
    size_t plane_size() const { return size_t(box.p[2]) * y_blocks; }
    // Odd, so that the same place of all maps or planes, read at one time, does not fall into one
    // set of the cache when the edges are powers of two.
    size_t spectrum_size() const { return planes * plane_size() | 1; }
    size_t columns_stride() const { return size_t(box.n[1]) * x_blocks | 1; }
    size_t columns_size() const { return planes * columns_stride(); }
    // Scratch of one thread.
    size_t scratch_size() const {
        return size_t(y_blocks) * lanes<T> * x_blocks +
               std::max({box.p[0], box.p[2], x_blocks * lanes<T>});
    }
    // Forward transforms give twice the spectrum; inverse ones do not divide by the length.
    T scale() const { return T(0.5 / (double(box.p[0]) * box.p[1] * box.p[2])); }

    // Inverse transform of the columns of rows y and y + 1 in one block of x: values along z.
    void column_inverse(const C* columns, int row, int block, C* value) const {
        const bool paired = row + 1 < box.n[1];
        for (int k = 0; k < planes; k++) {
            const C* at = columns + k * columns_stride() + size_t(row) * x_blocks + block;
            const C a = at[0], b = paired ? at[x_blocks] : C{};
            if (k == 0 || 2 * k == box.p[0]) {
                value[place_[k]] = {a.re, b.re};
            } else {
                value[place_[k]] = {a.re - b.im, a.im + b.re};
                value[place_[box.p[0] - k]] = {a.re + b.im, b.re - a.im};
            }
        }
        z.inverse(value);
    }

    // Forward transform of such columns; values at z >= n are taken as zero.
    void column_forward(C* columns, int row, int block, C* value) const {
        const bool paired = row + 1 < box.n[1];
        std::fill(value + box.n[0], value + box.p[0], C{});
        z.forward(value);
        for (int k = 0; k < planes; k++) {
            const C plus = value[place_[k]], minus = value[place_[(box.p[0] - k) % box.p[0]]];
            C* at = columns + k * columns_stride() + size_t(row) * x_blocks + block;
            at[0] = {plus.re + minus.re, plus.im - minus.im};
            if (paired) at[x_blocks] = {plus.im + minus.im, minus.re - plus.re};
        }
    }

    // One plane of columns to one plane of the spectrum.
    void plane_forward(const C* columns, C* spectrum, C* scratch) const {
        constexpr int L = lanes<T>;
        const int rows = y_blocks * L;
        C* line = scratch + size_t(rows) * x_blocks;
        for (int b = 0; b < x_blocks; b++) {
            C* row = scratch + size_t(b) * rows;
            for (int i = 0; i < box.n[1]; i++) row[i] = columns[size_t(i) * x_blocks + b];
            std::fill(row + box.n[1], row + rows, C{});
            y.forward(row);
        }
        for (int block = 0; block < y_blocks; block++) {
            for (int b = 0; b < x_blocks; b++)
                transpose_block(scratch + size_t(b) * rows + block * L, line + b * L);
            std::fill(line + box.n[2], line + box.p[2], C{});
            x.forward(line);
            for (int i = 0; i < box.p[2]; i++) spectrum[size_t(i) * y_blocks + block] = line[i];
        }
    }

    void plane_inverse(const C* spectrum, C* columns, C* scratch) const {
        constexpr int L = lanes<T>;
        const int rows = y_blocks * L;
        C* line = scratch + size_t(rows) * x_blocks;
        for (int block = 0; block < y_blocks; block++) {
            for (int i = 0; i < box.p[2]; i++) line[i] = spectrum[size_t(i) * y_blocks + block];
            x.inverse(line);
            for (int b = 0; b < x_blocks; b++)
                transpose_block(line + b * L, scratch + size_t(b) * rows + block * L);
        }
        for (int b = 0; b < x_blocks; b++) {
            C* row = scratch + size_t(b) * rows;
            y.inverse(row);
            for (int i = 0; i < box.n[1]; i++) columns[size_t(i) * x_blocks + b] = row[i];
        }
    }

    const Box box;
    const Fft<T> z, y, x;
    const int planes, y_blocks, x_blocks;
    const Mask<T> x_mask;  // lanes of the last block of x that are inside of the box

  private:
    static void transpose_block(const C* from, C* to) {
        constexpr int L = lanes<T>;
        V part[L];
#pragma GCC unroll 16
        for (int i = 0; i < L; i++) part[i] = from[i].re;
        transpose<T>(part);
#pragma GCC unroll 16
        for (int i = 0; i < L; i++) to[i].re = part[i];
#pragma GCC unroll 16
        for (int i = 0; i < L; i++) part[i] = from[i].im;
        transpose<T>(part);
#pragma GCC unroll 16
        for (int i = 0; i < L; i++) to[i].im = part[i];
    }

    std::vector<int> place_;  // position of each frequency of z in the FFT's order
};

}  // namespace voxmill
