// Gradients of all 27 taps of all pairs of maps, from the spectra of maps and of their gradients.
//
// By Parseval's theorem the gradient of the tap at (a, b, c) is the sum over all frequencies of
// conj(D) S exp(i (a tz + b ty + c tx)), with S the spectrum of the map that is read and D that of
// the gradient of the sum that reads it. Sums over the basis (1, cos, i sin) are taken axis by
// axis; the taps follow from them.
#pragma once

#include "network.hpp"

namespace voxmill {

// Sums along x in one block of y, for one reader and two maps: A[map][basis of x].
template <typename T>
__attribute__((noinline)) void correlate_columns(const Complex<T>* reader,
                                                 const Complex<T>* first,
                                                 const Complex<T>* second, int length,
                                                 const T* cosine, const T* sine,
                                                 Complex<T> (*A)[3]) {
    using V = Vec<T>;
    Complex<T> a[2][3]{};
    for (int i = 0; i < length; i++) {
        const Complex<T> d = reader[i];
        const V c = splat<T>(cosine[i]), s = splat<T>(sine[i]);
#pragma GCC unroll 2
        for (int m = 0; m < 2; m++) {
            const Complex<T> v = m == 0 ? first[i] : second[i];
            const V re = d.re * v.re + d.im * v.im, im = d.re * v.im - d.im * v.re;
            a[m][0].re += re;
            a[m][0].im += im;
            a[m][1].re += c * re;
            a[m][1].im += c * im;
            a[m][2].re -= s * im;  // i sin
            a[m][2].im += s * re;
        }
    }
    for (int m = 0; m < 2; m++)
        for (int j = 0; j < 3; j++) A[m][j] = a[m][j];
}

// Sums for a tile of readers (targets whose gradients are known) and maps, [pair][27] in vectors.
template <typename T>
class TapSums {
  public:
    using V = Vec<T>;
    using C = Complex<T>;
    static constexpr int kTile = 16;

    explicit TapSums(const Grid<T>& grid)
        : grid_(grid),
          maps_(make_array<C>(size_t(kTile) * grid.box.p[2])),
          reader_(make_array<C>(grid.box.p[2])),
          plane_(make_array<V>(kTile * kTile * 18)),
          sums_(make_array<V>(kTile * kTile * 27)) {}

    // Sums of these readers (spectra and dilations) and maps (spectra) in place of the last ones.
    void add(const std::vector<const C*>& readers, const std::vector<int>& dilations,
             const std::vector<const C*>& maps) {
        std::fill_n(sums_.get(), kTile * kTile * 27, V{});
        for (int k = 0; k < grid_.planes; k++) {
            std::fill_n(plane_.get(), kTile * kTile * 18, V{});
            for (int block = 0; block < grid_.y_blocks; block++) {
                for (size_t m = 0; m < maps.size(); m++)
                    pack(maps[m], k, block, maps_.get() + m * grid_.box.p[2]);
                for (size_t t = 0; t < readers.size(); t++) {
                    pack(readers[t], k, block, reader_.get());
                    const Phases& phases = phases_of(dilations[t]);
                    for (size_t m = 0; m < maps.size(); m += 2)
                        add_block(int(t), int(m), m + 1 < maps.size(), block, phases);
                }
            }
            for (size_t t = 0; t < readers.size(); t++)
                for (size_t m = 0; m < maps.size(); m++)
                    add_plane(int(t) * kTile + int(m), k, dilations[t]);
        }
    }

    // The 27 gradients of a pair, times `scale`; those of taps beyond the box are zero.
    void taps(int reader, int map, int dilation, T scale, T* to) const {
        for (int i = 0; i < 27; i++)
            to[i] = scale * sum_lanes<T>(sums_[(reader * kTile + map) * 27 + i]);
        const int strides[3] = {9, 3, 1};
        for (int axis = 0; axis < 3; axis++) {
            const int step = strides[axis];
            const bool inside = dilation < grid_.box.n[axis];
            for (int i = 0; i < 27; i++) {
                if (i / step % 3 != 0) continue;
                const T middle = to[i], even = to[i + step], odd = to[i + 2 * step];
                to[i] = inside ? even - odd : 0;
                to[i + step] = middle;
                to[i + 2 * step] = inside ? even + odd : 0;
            }
        }
    }

  private:
    struct Phases {
        std::vector<T> z_cosine, z_sine, x_cosine, x_sine;
        Array<C> y;
    };

    const Phases& phases_of(int dilation) {
        auto found = phases_.find(dilation);
        if (found != phases_.end()) return found->second;
        Phases phases;
        Tables<T> tables(grid_, 1);
        const std::vector<int> dilations(lanes<T>, dilation);
        const C *z = tables.along(0, dilations), *x = tables.along(2, dilations);
        for (int i = 0; i < grid_.box.p[0]; i++) {
            phases.z_cosine.push_back(z[i].re[0]);
            phases.z_sine.push_back(z[i].im[0]);
        }
        for (int i = 0; i < grid_.box.p[2]; i++) {
            phases.x_cosine.push_back(x[i].re[0]);
            phases.x_sine.push_back(x[i].im[0]);
        }
        phases.y = make_array<C>(grid_.y_blocks);
        std::copy_n(tables.across(dilation), grid_.y_blocks, phases.y.get());
        return phases_.emplace(dilation, std::move(phases)).first->second;
    }

    void pack(const C* spectrum, int k, int block, C* to) const {
        const C* from = spectrum + k * grid_.plane_size() + block;
        for (int i = 0; i < grid_.box.p[2]; i++) to[i] = from[size_t(i) * grid_.y_blocks];
    }

    void add_block(int t, int m, bool both, int block, const Phases& phases) {
        C sums[2][3];
        const C* first = maps_.get() + size_t(m) * grid_.box.p[2];
        const C* second = both ? first + grid_.box.p[2] : first;
        correlate_columns<T>(reader_.get(), first, second, grid_.box.p[2],
                             phases.x_cosine.data(), phases.x_sine.data(), sums);
        const V c = phases.y[block].re, s = phases.y[block].im;
        for (int i = 0; i < (both ? 2 : 1); i++) {
            V* to = plane_.get() + (t * kTile + m + i) * 18;
#pragma GCC unroll 3
            for (int j = 0; j < 3; j++) {
                const C a = sums[i][j];
                to[2 * j] += a.re;
                to[2 * j + 1] += a.im;
                to[6 + 2 * j] += c * a.re;
                to[6 + 2 * j + 1] += c * a.im;
                to[12 + 2 * j] -= s * a.im;
                to[12 + 2 * j + 1] += s * a.re;
            }
        }
    }

    void add_plane(int pair, int k, int dilation) {
        const Phases& phases = phases_.at(dilation);
        // Planes between the first and the middle one stand for two of the whole spectrum.
        const T weight = k == 0 || 2 * k == grid_.box.p[0] ? 1 : 2;
        const T c = weight * phases.z_cosine[k], s = weight * phases.z_sine[k];
        const V* from = plane_.get() + pair * 18;
        V* to = sums_.get() + pair * 27;
        for (int j = 0; j < 9; j++) {
            to[j] += weight * from[2 * j];
            to[9 + j] += c * from[2 * j];
            to[18 + j] -= s * from[2 * j + 1];
        }
    }

    const Grid<T>& grid_;
    Array<C> maps_, reader_;
    Array<V> plane_, sums_;
    std::map<int, Phases> phases_;
};

// Gradients of all weights, from the spectra of all maps and those of the gradients of all sums (in
// backward order).
template <typename T>
void weight_gradient(const Network& net, const Grid<T>& grid, const Complex<T>* spectra,
                     const Complex<T>* gradients, T* gradient, int threads) {
    using C = Complex<T>;
    constexpr int tile = TapSums<T>::kTile;
    const BackwardKernels<T> order(net, nullptr, false);
    const int readers = net.outputs + net.depth * net.width;  // backward numbers
    std::vector<std::pair<int, int>> tiles;
    for (int reader = 0; reader < readers; reader += tile)
        for (int map = 0; map < net.channels(); map += tile)
            // The first reader of a tile is the deepest one, which reads the most maps.
            if (map < net.sources_of(order.mirrored(reader))) tiles.push_back({reader, map});
    const size_t size = grid.spectrum_size();
    const T scale = grid.scale() / 2;  // both spectra are twice as large
#pragma omp parallel num_threads(threads)
    {
        TapSums<T> sums(grid);
#pragma omp for schedule(dynamic, 1)
        for (int i = 0; i < int(tiles.size()); i++) {
            std::vector<const C*> from, maps;
            std::vector<int> dilations;
            for (int r = tiles[i].first; r < std::min(readers, tiles[i].first + tile); r++) {
                from.push_back(gradients + r * size);
                dilations.push_back(order.forward.dilation(order.mirrored(r), 0));
            }
            for (int m = tiles[i].second; m < std::min(net.channels(), tiles[i].second + tile); m++)
                maps.push_back(spectra + m * size);
            sums.add(from, dilations, maps);
            for (size_t r = 0; r < from.size(); r++)
                for (size_t m = 0; m < maps.size(); m++) {
                    const int target = order.mirrored(tiles[i].first + int(r));
                    const int map = tiles[i].second + int(m);
                    if (map >= net.sources_of(target)) continue;
                    T taps[27];
                    sums.taps(int(r), int(m), dilations[r], scale, taps);
                    if (target < net.channels())
                        std::copy_n(taps, 27, gradient + net.taps_at(target, map));
                    else
                        gradient[net.final_weight_at(target - net.channels(), map)] = taps[13];
                }
        }
    }
}

}  // namespace voxmill
