// Cells as objects: labels by a bounded geodesic distance, and outlines by a flow that keeps the
// topology. All arithmetic is in whole numbers: the same input gives the same voxels on any machine.
// See voxmill/cells/labels.py and voxmill/cells/outlines.py for what is computed, and why blocks
// don't show.

#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "simple_point.hpp"

namespace {

struct Grid {
    int32_t n[3];
    size_t size() const { return size_t(n[0]) * n[1] * n[2]; }
    size_t at(int z, int y, int x) const { return (size_t(z) * n[1] + y) * n[2] + x; }
    bool holds(int z, int y, int x) const {
        return unsigned(z) < unsigned(n[0]) && unsigned(y) < unsigned(n[1]) &&
               unsigned(x) < unsigned(n[2]);
    }
};

struct Labelling {
    int32_t n[3];
    int32_t seeds;             // their number
    int32_t limit;             // largest distance
    int32_t rise;              // for each step of probability that a path climbs
    int32_t lengths[27];       // of the steps to the 3 x 3 x 3 neighbours
    int32_t fade[256];         // 256ths of the length that a step into this probability costs more
    int32_t least;             // least probability of a voxel that a path may enter
};

struct Flow {
    int32_t n[3];
    int32_t volume[6];         // first voxel and end of the whole volume, in the window's voxels
    int32_t block[6];          // objects that have no voxel in this box are left out
    int32_t reach[3];          // of an object's box around its seed
    int32_t kernel;            // offsets in the ball that measures curvature
    int32_t passes;            // of the smoothing of the territories
    int32_t iterations;        // most sweeps of the flow
    int32_t least;             // least probability of an object's voxel at the start
    int64_t curvature;         // force of one voxel of the ball
    double voxel;              // volume of a voxel, in balls of that radius
    int64_t force[256];        // force of each probability
};

// Breadth-first by whole distances (Dial, Comm. ACM 12(11), 1969). A step costs 1 or more, so that
// distance and label of a voxel are final when its distance is reached.
void label(const Labelling& s, const uint8_t* probability, const int64_t* starts, int32_t* labels,
           int32_t* distances) {
    const Grid grid{{s.n[0], s.n[1], s.n[2]}};
    std::vector<std::vector<int64_t>> waiting(size_t(s.limit) + 1);
    std::fill_n(labels, grid.size(), 0);
    std::fill_n(distances, grid.size(), s.limit + 1);
    for (int32_t k = 0; k < s.seeds; k++) {
        if (labels[starts[k]]) continue;  // the earlier of two seeds in one voxel has it
        labels[starts[k]] = k + 1;
        distances[starts[k]] = 0;
        waiting[0].push_back(starts[k]);
    }
    for (int32_t distance = 0; distance <= s.limit; distance++) {
        for (const int64_t from : waiting[distance]) {
            if (distances[from] != distance) continue;  // reached by a shorter path since
            const int z = from / (int64_t(s.n[1]) * s.n[2]), y = from / s.n[2] % s.n[1],
                      x = from % s.n[2];
            for (int k = 0; k < 27; k++) {
                const int zz = z + k / 9 - 1, yy = y + k / 3 % 3 - 1, xx = x + k % 3 - 1;
                if (k == 13 || !grid.holds(zz, yy, xx)) continue;
                const size_t to = grid.at(zz, yy, xx);
                const int32_t value = probability[to];
                if (value < s.least) continue;
                const int64_t cost = s.lengths[k] + ((int64_t(s.lengths[k]) * s.fade[value]) >> 8) +
                                     int64_t(s.rise) * std::max(0, value - probability[from]);
                const int64_t far = distance + cost;
                if (far > distances[to] || far > s.limit) continue;
                if (far == distances[to]) {
                    labels[to] = std::min(labels[to], labels[from]);
                } else {
                    distances[to] = int32_t(far);
                    labels[to] = labels[from];
                    waiting[far].push_back(int64_t(to));
                }
            }
        }
        std::vector<int64_t>().swap(waiting[distance]);
    }
}

// Gives each voxel between territories to the one that has most of the ball around it.
void smooth_territories(const Flow& s, const int32_t* kernel, std::vector<int32_t>& labels,
                        int threads) {
    const Grid grid{{s.n[0], s.n[1], s.n[2]}};
    const std::vector<int32_t> before = labels;
#pragma omp parallel for num_threads(threads) schedule(dynamic, 4)
    for (int z = 0; z < s.n[0]; z++) {
        std::vector<std::pair<int32_t, int32_t>> counts;
        for (int y = 0; y < s.n[1]; y++)
            for (int x = 0; x < s.n[2]; x++) {
                const int32_t own = before[grid.at(z, y, x)];
                if (!own) continue;
                bool between = false;
                for (int k = 0; k < 27 && !between; k++) {
                    const int zz = z + k / 9 - 1, yy = y + k / 3 % 3 - 1, xx = x + k % 3 - 1;
                    if (!grid.holds(zz, yy, xx)) continue;
                    const int32_t other = before[grid.at(zz, yy, xx)];
                    between = other && other != own;
                }
                if (!between) continue;
                counts.assign(1, {own, 0});
                for (int k = 0; k < s.kernel; k++) {
                    const int32_t* step = kernel + 3 * k;
                    const int zz = z + step[0], yy = y + step[1], xx = x + step[2];
                    if (!grid.holds(zz, yy, xx)) continue;
                    const int32_t label = before[grid.at(zz, yy, xx)];
                    if (!label) continue;
                    auto found = std::find_if(counts.begin(), counts.end(),
                                              [&](const auto& c) { return c.first == label; });
                    if (found == counts.end()) found = counts.insert(found, {label, 0});
                    found->second++;
                }
                auto best = counts.front();
                for (const auto& c : counts)
                    if (c.second > best.second ||
                        (c.second == best.second && best.first != own && c.first < best.first))
                        best = c;
                labels[grid.at(z, y, x)] = best.first;
            }
    }
}

// One object in its own box, with a margin that the ball and the neighbourhoods reach into.
class Object {
public:
    Object(const Flow& s, const int32_t* kernel, const uint8_t* probability,
           const std::vector<int32_t>& territories, int32_t label, const int32_t* seed)
        : s_(s), label_(label) {
        int reach[3] = {1, 1, 1};
        for (int k = 0; k < 3 * s.kernel; k++)
            reach[k % 3] = std::max(reach[k % 3], std::abs(kernel[k]));
        for (int a = 0; a < 3; a++) {
            const int low = std::max(0, seed[a] - s.reach[a]),
                      high = std::min(s.n[a], seed[a] + s.reach[a] + 1);
            first_[a] = low - reach[a];
            box_.n[a] = high - low + 2 * reach[a];
            seed_[a] = seed[a] - first_[a];
            low_[a] = reach[a];
            high_[a] = box_.n[a] - reach[a];
        }
        side_.assign(box_.size(), 0);
        force_.assign(box_.size(), 0);
        may_.assign(box_.size(), kNever);
        for (int k = 0; k < s.kernel; k++)
            if (kernel[3 * k] || kernel[3 * k + 1] || kernel[3 * k + 2])
                steps_.push_back(offset(kernel[3 * k], kernel[3 * k + 1], kernel[3 * k + 2]));
        fill(probability, territories);
    }

    void grow_and_flow() {
        const size_t seed = box_.at(seed_[0], seed_[1], seed_[2]);
        side_[seed] = 1;
        may_[seed] = kNever;  // it is the object's for good: no object vanishes
        while (sweep([&](size_t at) { return side_[at] < 0 && may_[at] == kStart; })) {
        }
        balance_ = balance();
        for (int k = 0; k < s_.iterations; k++)
            if (!sweep([&](size_t at) { return may_[at] && wants_change(at); })) break;
    }

    void write(int32_t* labels) const {
        const Grid grid{{s_.n[0], s_.n[1], s_.n[2]}};
        each([&](int z, int y, int x, size_t at) {
            if (side_[at] > 0)
                labels[grid.at(z + first_[0], y + first_[1], x + first_[2])] = label_;
        });
    }

private:
    enum : uint8_t { kNever = 0, kFlow = 1, kStart = 2 };

    int64_t offset(int z, int y, int x) const {
        return (int64_t(z) * box_.n[1] + y) * box_.n[2] + x;
    }

    template <typename Work>
    void each(Work work) const {
        for (int z = low_[0]; z < high_[0]; z++)
            for (int y = low_[1]; y < high_[1]; y++)
                for (int x = low_[2]; x < high_[2]; x++) work(z, y, x, box_.at(z, y, x));
    }

    void fill(const uint8_t* probability, const std::vector<int32_t>& territories) {
        const Grid grid{{s_.n[0], s_.n[1], s_.n[2]}};
        // Inside of the volume a voxel pulls for the object (1) or against it (-1), outside neither.
        for (int z = 0; z < box_.n[0]; z++)
            for (int y = 0; y < box_.n[1]; y++)
                for (int x = 0; x < box_.n[2]; x++) {
                    const int p[3] = {z + first_[0], y + first_[1], x + first_[2]};
                    bool inside = true;
                    for (int a = 0; a < 3; a++)
                        inside = inside && p[a] >= s_.volume[a] && p[a] < s_.volume[a + 3];
                    side_[box_.at(z, y, x)] = inside ? -1 : 0;
                }
        std::vector<uint8_t> other(box_.size(), 0);
        each([&](int z, int y, int x, size_t at) {
            const size_t from = grid.at(z + first_[0], y + first_[1], x + first_[2]);
            force_[at] = s_.force[probability[from]];
            if (territories[from] == label_)
                may_[at] = probability[from] >= s_.least ? kStart : kFlow;
            other[at] = territories[from] && territories[from] != label_;
        });
        fill_holes(other);
    }

    // What the object encloses on all sides is part of it: cells with a dark nucleus.
    void fill_holes(const std::vector<uint8_t>& other) {
        std::vector<uint8_t> outside(box_.size(), 0);
        std::vector<size_t> waiting{0};
        outside[0] = 1;
        const int64_t steps[3] = {offset(1, 0, 0), offset(0, 1, 0), 1};
        while (!waiting.empty()) {
            const size_t at = waiting.back();
            waiting.pop_back();
            const int place[3] = {int(at / (size_t(box_.n[1]) * box_.n[2])),
                                  int(at / box_.n[2] % box_.n[1]), int(at % box_.n[2])};
            for (int a = 0; a < 3; a++)
                for (int sign = -1; sign <= 1; sign += 2) {
                    if (unsigned(place[a] + sign) >= unsigned(box_.n[a])) continue;
                    const size_t to = at + sign * steps[a];
                    if (outside[to] || may_[to] == kStart) continue;
                    outside[to] = 1;
                    waiting.push_back(to);
                }
        }
        bool alone = true;
        each([&](int, int, int, size_t at) { alone = alone && (outside[at] || !other[at]); });
        if (!alone) return;  // it encloses another object, which may have holes as well
        each([&](int, int, int, size_t at) {
            if (outside[at] || may_[at] == kStart) return;
            may_[at] = kStart;
            force_[at] = s_.force[255];
        });
    }

    // Force against which a ball of the object's volume stands still. Of a small ball around a point
    // of a ball of r radii, the share 1/2 - 3/16r lies in the latter, r^3 where it holds the latter.
    int64_t balance() const {
        const double volume = s_.voxel * double(std::count(side_.begin(), side_.end(), int8_t(1)));
        const double r = root3(volume);
        const double share = r > 0.5 ? 0.5 - 3 / (16 * r) : volume;
        return int64_t((1 - 2 * share) * double(s_.curvature) * double(steps_.size()));
    }

    // By Newton's method, in the four operations alone: they are the same on every machine.
    static double root3(double volume) {
        double r = std::max(1.0, volume);
        for (int k = 0; k < 100; k++) r -= (r - volume / (r * r)) / 3;
        return r;
    }

    bool wants_change(size_t at) const {
        int64_t sum = 0;
        for (const int64_t step : steps_) sum += side_[at + step];
        const int64_t total = force_[at] + balance_ + s_.curvature * sum;
        return side_[at] > 0 ? total < 0 : total > 0;
    }

    bool on_border(size_t at) const {
        const int64_t steps[3] = {offset(1, 0, 0), offset(0, 1, 0), 1};
        const bool in = side_[at] > 0;
        for (const int64_t step : steps)
            if ((side_[at + step] > 0) != in || (side_[at - step] > 0) != in) return true;
        return false;
    }

    uint32_t neighbourhood(size_t at) const {
        uint32_t mask = 0;
        for (int k = 0; k < 27; k++)
            mask |= uint32_t(side_[at + offset(k / 9 - 1, k / 3 % 3 - 1, k % 3 - 1)] > 0) << k;
        return mask;
    }

    // Changes the side of voxels at the object's border, each at most once, in the order of their
    // places; returns how many have changed.
    template <typename Wants>
    int sweep(Wants wants) {
        border_.clear();
        each([&](int, int, int, size_t at) {
            if (may_[at] && on_border(at)) border_.push_back(at);
        });
        int changed = 0;
        for (const size_t at : border_)
            if (wants(at) && voxmill::is_simple(neighbourhood(at))) {
                side_[at] = int8_t(-side_[at]);
                changed++;
            }
        return changed;
    }

    const Flow& s_;
    const int32_t label_;
    int64_t balance_ = 0;
    Grid box_{};
    int first_[3], seed_[3], low_[3], high_[3];
    std::vector<int8_t> side_;
    std::vector<int64_t> force_, steps_;
    std::vector<uint8_t> may_;
    std::vector<size_t> border_;
};

// Whether the box of an object around its seed has a voxel in the block.
bool reaches_block(const Flow& s, const int32_t* seed) {
    for (int a = 0; a < 3; a++)
        if (seed[a] + s.reach[a] < s.block[a] || seed[a] - s.reach[a] >= s.block[a + 3])
            return false;
    return true;
}

void outline(const Flow& s, const int32_t* kernel, const uint8_t* probability, int32_t seeds,
             const int32_t* places, int32_t* labels, int threads) {
    const Grid grid{{s.n[0], s.n[1], s.n[2]}};
    std::vector<int32_t> territories(labels, labels + grid.size());
    for (int k = 0; k < s.passes; k++) smooth_territories(s, kernel, territories, threads);
    std::vector<int32_t> objects;
    for (int32_t k = 0; k < seeds; k++) {
        const int32_t* p = places + 3 * k;
        const size_t at = grid.at(p[0], p[1], p[2]);
        // Of two seeds in one voxel the later has no territory, and no object.
        if (labels[at] != k + 1) continue;
        territories[at] = k + 1;
        if (reaches_block(s, p)) objects.push_back(k);
    }
    std::fill_n(labels, grid.size(), 0);
    bool failed = false;
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (size_t i = 0; i < objects.size(); i++) {
        const int32_t k = objects[i];
        try {
            Object object(s, kernel, probability, territories, k + 1, places + 3 * k);
            object.grow_and_flow();
            object.write(labels);
        } catch (const std::bad_alloc&) {
#pragma omp atomic write
            failed = true;
        }
    }
    if (failed) throw std::bad_alloc();
}

template <typename Work>
int guarded(Work work) {
    try {
        work();
        return 0;
    } catch (const std::bad_alloc&) {
        return 1;
    }
}

}  // namespace

extern "C" {
int voxmill_label(const Labelling* s, const uint8_t* probability, const int64_t* starts,
                  int32_t* labels, int32_t* distances) {
    return guarded([&] { label(*s, probability, starts, labels, distances); });
}
int voxmill_outline(const Flow* s, const int32_t* kernel, const uint8_t* probability, int32_t seeds,
                    const int32_t* places, int32_t* labels, int threads) {
    return guarded([&] { outline(*s, kernel, probability, seeds, places, labels, threads); });
}
int voxmill_is_simple(uint32_t neighbourhood) { return voxmill::is_simple(neighbourhood); }
}
