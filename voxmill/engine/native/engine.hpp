// Evaluation and gradients of an MS-D network whose maps are all kept as spectra.
//
// Each layer takes one inverse transform, bias and ReLU inside of the box, zero outside, and one
// forward transform. Layers are grouped into panels, and a panel into parts. When a panel starts,
// all its layers pull from all earlier maps at once, so that a spectrum is read once a panel; when
// a part starts, its layers pull from the earlier maps of the panel; inside of a part each layer
// pulls from the few maps before it. The slot of a map holds its sums first and its own spectrum
// later; the last sums of a plane stay in cache.
//
//   spectra  [map][kz plane][x position][y block]   see grid.hpp
#pragma once

#include <type_traits>

#include "gradient.hpp"

namespace voxmill {

// Spectra are stored as `Item`s: Complex<T>, or Shared16 for evaluation alone.
template <typename T, typename Item = Complex<T>>
class Engine {
  public:
    using V = Vec<T>;
    using C = Complex<T>;

    Engine(const Network& net, const Box& box, bool training)
        : net_(net),
          grid_(box),
          training_(training),
          spectra_(grid_.spectrum_size() * (net.channels() + (kPacked ? 0 : net.outputs))),
          sums_(kPacked ? grid_.spectrum_size() *
                              (kPanelMaps - 1 + std::max(net.width, net.outputs))
                        : 0),
          columns_(grid_.columns_size() * std::max({net.inputs, net.width, net.outputs})),
          alive_(training ? voxels() * net.depth * net.width : 0) {}

    void forward(const T* parameters, const T* volume, T* logits, int threads);
    // After `forward`. `gradient` has the parameters' layout, `volume_gradient` may be null;
    // `workspace` is scratch of `spectra_size()`: one serves all engines of a batch in turn.
    void backward(const T* parameters, const T* logits_gradient, T* gradient,
                  T* volume_gradient, C* workspace, int threads);
    size_t spectra_size() const { return grid_.spectrum_size() * (net_.channels() + net_.outputs); }

  private:
    // Whether spectra are rounded when they are stored.
    static constexpr bool kPacked = !std::is_same_v<Item, C>;
    // Voxels of the box, its rows filled up to whole vectors.
    size_t voxels() const {
        return size_t(grid_.box.n[0]) * grid_.box.n[1] * grid_.x_blocks * lanes<T>;
    }
    size_t real_at(int map, int z, int y, int block) const {
        const int32_t* n = grid_.box.n;
        return ((size_t(map) * n[0] + z) * n[1] + y) * n[2] + block * lanes<T>;
    }
    int real_count(int block) const {
        return std::min(lanes<T>, grid_.box.n[2] - block * lanes<T>);
    }
    V read(const T* volume, int map, int z, int y, int block) const {
        return load_part(volume + real_at(map, z, y, block), real_count(block));
    }
    void write(T* volume, V value, int map, int z, int y, int block) const {
        store_part(volume + real_at(map, z, y, block), value, real_count(block));
    }
    Signs<T>* alive(int map, int z, int y, int block) {
        const int32_t* n = grid_.box.n;
        return reinterpret_cast<Signs<T>*>(alive_.get()) +
               ((size_t(map) * n[0] + z) * n[1] + y) * grid_.x_blocks + block;
    }
    V inside(V value, int block) const {
        return block + 1 == grid_.x_blocks ? keep<T>(value, grid_.x_mask) : value;
    }

    template <bool kInverse, bool kForward, typename Change>
    void sweep_columns(int maps, int threads, Change change);
    template <typename Visit>
    void sweep_planes(int threads, int maps, size_t kernels_size, Visit visit);
    size_t plane_scratch() const {
        return grid_.scratch_size() + (kPacked ? grid_.plane_size() : 0);
    }
    // Transform plane k of a group's maps from columns to spectra.
    void to_spectra(Group group, Item* spectra, int k, C* scratch);
    C* plane_columns(int map, int k) {
        return columns_.get() + map * grid_.columns_size() + k * grid_.columns_stride();
    }
    template <typename Order, typename Column>
    void evaluate(const Order& order, Item* spectra, int sign, int threads, Column column);
    // Where the sums of a map are: in its own slot, or in `sums_` if that is rounded.
    C* sums_of(Item* spectra, int map, int panel_first) {
        if constexpr (kPacked) return sums_.get() + (map - panel_first) * grid_.spectrum_size();
        else return spectra + map * grid_.spectrum_size();
    }

    const Network net_;
    const Grid<T> grid_;
    const bool training_;
    Storage<Item> spectra_;  // of all maps, then sums of the outputs, in forward order
    Storage<C> sums_;        // of a panel, where spectra are rounded
    Storage<C> columns_;
    Storage<char> alive_;  // one byte a voxel and map: all bits set where the map is positive
};

// Transform columns to real values (kInverse), change these, transform them forward (kForward).
// `change(value, map, z, y, block)` takes and returns a vector of real values.
template <typename T, typename Item>
template <bool kInverse, bool kForward, typename Change>
void Engine<T, Item>::sweep_columns(int maps, int threads, Change change) {
    const int rows = grid_.box.n[1], pairs = (rows + 1) / 2;
#pragma omp parallel num_threads(threads)
    {
        C* value = thread_scratch<C>(grid_.box.p[0]);
#pragma omp for collapse(2) schedule(static)
        for (int map = 0; map < maps; map++)
            for (int pair = 0; pair < pairs; pair++) {
                C* columns = columns_.get() + map * grid_.columns_size();
                for (int block = 0; block < grid_.x_blocks; block++) {
                    if (kInverse) grid_.column_inverse(columns, 2 * pair, block, value);
                    for (int z = 0; z < grid_.box.n[0]; z++) {
                        C& at = value[z];
                        at.re = change(at.re, map, z, 2 * pair, block);
                        at.im = 2 * pair + 1 < rows ? change(at.im, map, z, 2 * pair + 1, block)
                                                    : V{};
                    }
                    if (kForward) grid_.column_forward(columns, 2 * pair, block, value);
                }
            }
    }
}

// Call `visit(k, scratch, kernels)` for each plane of one frequency along z; `scratch` has
// `plane_scratch()` numbers and behind them a plane for each of `maps` maps.
template <typename T, typename Item>
template <typename Visit>
void Engine<T, Item>::sweep_planes(int threads, int maps, size_t kernels_size, Visit visit) {
#pragma omp parallel num_threads(threads)
    {
        C* scratch = thread_scratch<C>(plane_scratch() + maps * grid_.plane_size());
        V* kernels = thread_scratch<V>(kernels_size);
#pragma omp for schedule(static)
        for (int k = 0; k < grid_.planes; k++) visit(k, scratch, kernels);
    }
}

template <typename T, typename Item>
void Engine<T, Item>::to_spectra(Group group, Item* spectra, int k, C* scratch) {
    for (int i = 0; i < group.count; i++) {
        Item* to = spectra + (group.first + i) * grid_.spectrum_size() + k * grid_.plane_size();
        if constexpr (kPacked) {
            C* full = scratch + grid_.scratch_size();
            grid_.plane_forward(plane_columns(i, k), full, scratch);
            for (size_t j = 0; j < grid_.plane_size(); j++) pack(full[j], to[j]);
        } else {
            grid_.plane_forward(plane_columns(i, k), to, scratch);
        }
    }
}

// Evaluate the groups of `order` in turn; `column(group)` sweeps the columns of a group's maps.
template <typename T, typename Item>
template <typename Order, typename Column>
void Engine<T, Item>::evaluate(const Order& order, Item* spectra, int sign, int threads,
                               Column column) {
    const std::vector<Group> groups = order.groups();
    Tables<T> tables(grid_, sign);
    column(0);
    const auto maps_until = [&](int from, int& end, int most, int last) {
        int maps = 0;
        for (end = from; end < last && maps < most; end++) maps += groups[end].count;
        return maps;
    };
    int panel_end = 1, panel_first = 0;  // group after the panel; first map of the panel
    int part_end = 1, part_first = 0;    // the same of a part of it
    for (int g = 1; g < int(groups.size()); g++) {
        const Group done = groups[g - 1], next = groups[g];
        const bool fresh = g == panel_end;
        int targets = next.count, source = part_first;
        if (fresh) {
            targets = maps_until(g, panel_end, kPanelMaps, int(groups.size()));
            panel_first = part_first = next.first;
            source = 0;
            maps_until(g, part_end, kPartMaps, panel_end);
        } else if (g == part_end) {
            targets = maps_until(g, part_end, kPartMaps, panel_end);
            part_first = next.first;
            source = panel_first;
        }
        const Pull<T> pull = make_pull(grid_, tables, order, next.first, targets, source,
                                       next.first - source);
        C* sums = sums_of(spectra, next.first, panel_first);
        sweep_planes(threads, next.count, pull.scratch_size(), [&](int k, C* scratch, V* kernels) {
            C* own = scratch + plane_scratch();
            to_spectra(done, spectra, k, scratch);
            Puller<T, Item>::plane(grid_, pull, spectra, sums, own, next.count, k, fresh, kernels);
            for (int i = 0; i < next.count; i++)
                grid_.plane_inverse(own + i * grid_.plane_size(), plane_columns(i, k), scratch);
        });
        column(g);
    }
    if (order.last_is_read())
        sweep_planes(threads, 0, 0, [&](int k, C* scratch, V*) {
            to_spectra(groups.back(), spectra, k, scratch);
        });
}

template <typename T, typename Item>
void Engine<T, Item>::forward(const T* parameters, const T* volume, T* logits, int threads) {
    const T scale = grid_.scale();
    const ForwardKernels<T> order(net_, parameters);
    evaluate(order, spectra_.get(), 1, threads, [&](int group) {
        if (group == 0) {
            sweep_columns<false, true>(
                net_.inputs, threads,
                [&](V, int map, int z, int y, int b) { return read(volume, map, z, y, b); });
        } else if (group <= net_.depth) {
            const int first = (group - 1) * net_.width;
            const T* biases = parameters + net_.biases_at() + first;
            sweep_columns<true, true>(
                net_.width, threads, [&](V sum, int map, int z, int y, int b) {
                    sum = sum * scale + biases[map];
                    const Mask<T> positive = sum > V{};
                    if (training_)
                        *alive(first + map, z, y, b) = __builtin_convertvector(positive, Signs<T>);
                    return inside(keep<T>(sum, positive), b);
                });
        } else {
            const T* biases = parameters + net_.final_biases_at();
            sweep_columns<true, false>(
                net_.outputs, threads, [&](V sum, int map, int z, int y, int b) {
                    write(logits, sum * scale + biases[map], map, z, y, b);
                    return sum;
                });
        }
    });
}

template <typename T, typename Item>
void Engine<T, Item>::backward(const T* parameters, const T* logits_gradient, T* gradient,
                               T* volume_gradient, C* workspace, int threads) {
    const T scale = grid_.scale();
    const int rows = grid_.box.n[1];
    const BackwardKernels<T> order(net_, parameters, volume_gradient != nullptr);
    std::vector<double> row_sums;  // [map][y] of a group: one thread sums one row, in one order
    const auto add_biases = [&](int maps, T* to) {
        for (int map = 0; map < maps; map++) {
            double sum = 0;
            for (int y = 0; y < rows; y++) sum += row_sums[map * rows + y];
            to[map] = T(sum);
        }
    };
    evaluate(order, workspace, -1, threads, [&](int group) {
        const int layer = net_.depth - group;
        if (group == 0) {
            row_sums.assign(net_.outputs * rows, 0.0);
            sweep_columns<false, true>(
                net_.outputs, threads, [&](V, int map, int z, int y, int b) {
                    const V value = read(logits_gradient, map, z, y, b);
                    row_sums[map * rows + y] += sum_lanes<T>(value);
                    return value;
                });
            add_biases(net_.outputs, gradient + net_.final_biases_at());
        } else if (layer >= 0) {
            row_sums.assign(net_.width * rows, 0.0);
            sweep_columns<true, true>(
                net_.width, threads, [&](V sum, int map, int z, int y, int b) {
                    const Mask<T> positive = __builtin_convertvector(
                        *alive(layer * net_.width + map, z, y, b), Mask<T>);
                    sum = inside(keep<T>(sum * scale, positive), b);
                    row_sums[map * rows + y] += sum_lanes<T>(sum);
                    return sum;
                });
            add_biases(net_.width, gradient + net_.biases_at() + layer * net_.width);
        } else {
            sweep_columns<true, false>(
                net_.inputs, threads, [&](V sum, int map, int z, int y, int b) {
                    write(volume_gradient, sum * scale, map, z, y, b);
                    return sum;
                });
        }
    });
    weight_gradient(net_, grid_, spectra_.get(), workspace, gradient, threads);
}

}  // namespace voxmill
