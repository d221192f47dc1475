// Direct evaluation of an MS-D network, for shallow networks and small boxes: no transform, and no
// margin along z and y.
//
//   feature map  [z][y][ zeros (margin) | x | zeros up to a whole vector ]
//
// Rows along x follow each other with zeros between them, so that a tap that reaches beyond the end
// of a row reads zeros without a test; rows outside of the box are skipped. A few vectors of a row
// of all maps of a layer stay in registers while the loop runs over all earlier maps.

#include <omp.h>

#include <algorithm>
#include <vector>

#include "network.hpp"
#include "storage.hpp"

namespace {

using voxmill::Vec;
using V = Vec<float>;
constexpr int L = voxmill::lanes<float>;
constexpr int kMostTargets = 4, kVectors = voxmill::kRegisters >= 32 ? 4 : 2;

struct Settings {
    int32_t inputs, outputs, depth, width;
    int32_t box[3];
    const int32_t* dilations;  // one for each layer
};

int rounded(int n) { return (n + L - 1) / L * L; }

struct Rows {
    int n[3];
    int margin;     // zeros before each row, for the largest dilation that is less than a row
    size_t stride;  // from row to row
    size_t size;    // of a map; the next map begins with zeros too

    explicit Rows(const Settings& s) : n{s.box[0], s.box[1], s.box[2]}, margin(0) {
        for (int i = 0; i < s.depth; i++)
            if (s.dilations[i] < n[2]) margin = std::max(margin, s.dilations[i]);
        margin = rounded(margin);
        stride = size_t(margin) + rounded(n[2]);
        size = stride * n[0] * n[1];
    }
    size_t total(int maps) const { return size * maps + margin + L; }
    float* row(float* maps, int map, int z, int y) const {
        return maps + map * size + (size_t(z) * n[1] + y) * stride + margin;
    }
};

inline V load(const float* from) {
    V value;
    std::memcpy(&value, from, sizeof(V));
    return value;
}

// Taps of one row of one source, B vectors from `x` on, T targets; `weights` [target * step + tap].
template <int T, int B>
inline void add_row(V (*sum)[B], const float* row, int reach, const float* weights, size_t step) {
    for (int c = reach ? -1 : 0; c <= (reach ? 1 : 0); c++) {
        const float* from = row + c * reach;
#pragma GCC unroll 4
        for (int b = 0; b < B; b++) {
            const V value = load(from + b * L);
#pragma GCC unroll 4
            for (int t = 0; t < T; t++)
                sum[t][b] += voxmill::splat(weights[t * step + c + 1]) * value;
        }
    }
}

// B vectors of a row, for T maps of a layer that reads `sources` maps.
template <int T, int B>
void evaluate(const Rows& rows, float* maps, int sources, int target, int dilation,
              const float* weights, const float* biases, int z, int y, int x) {
    V sum[T][B];
    const size_t step = size_t(27) * sources;
    for (int t = 0; t < T; t++)
        for (int b = 0; b < B; b++) sum[t][b] = voxmill::splat(biases[t]);
    const int reach = dilation < rows.n[2] ? dilation : 0;
    for (int a = -1; a <= 1; a++) {
        const int zz = z + a * dilation;
        if (zz < 0 || zz >= rows.n[0]) continue;
        for (int c = -1; c <= 1; c++) {
            const int yy = y + c * dilation;
            if (yy < 0 || yy >= rows.n[1]) continue;
            const float* row = rows.row(maps, 0, zz, yy) + x;
            const float* own = weights + 9 * (a + 1) + 3 * (c + 1);
            for (int s = 0; s < sources; s++, row += rows.size, own += 27)
                add_row<T, B>(sum, row, reach, own, step);
        }
    }
    for (int t = 0; t < T; t++)
        for (int b = 0; b < B; b++) {
            const V value = voxmill::keep<float>(sum[t][b], sum[t][b] > V{});
            float* to = rows.row(maps, target + t, z, y) + x + b * L;
            voxmill::store_part(to, value, std::min(L, rows.n[2] - x - b * L));
        }
}

template <int T, int B = kVectors>
void evaluate_part(int vectors, const Rows& rows, float* maps, int sources, int target,
                   int dilation, const float* weights, const float* biases, int z, int y, int x) {
    if (vectors == B)
        return evaluate<T, B>(rows, maps, sources, target, dilation, weights, biases, z, y, x);
    if constexpr (B > 1)
        evaluate_part<T, B - 1>(vectors, rows, maps, sources, target, dilation, weights, biases, z,
                                y, x);
}

template <int T = kMostTargets, typename... Rest>
void evaluate_row(int targets, int n, Rest... rest) {
    if (targets == T) {
        const int vectors = rounded(n) / L;
        for (int v = 0; v < vectors; v += kVectors)
            evaluate_part<T>(std::min(kVectors, vectors - v), rest..., v * L);
    } else if constexpr (T > 1) {
        evaluate_row<T - 1>(targets, n, rest...);
    }
}

void forward(const Settings& s, const float* parameters, const float* volume, float* logits,
             int threads) {
    const voxmill::Network net{s.inputs, s.outputs, s.depth, s.width,
                               std::vector<int>(s.dilations, s.dilations + s.depth)};
    const Rows rows(s);
    const int n = s.box[0] * s.box[1];
    const voxmill::Storage<float> storage(rows.total(net.channels()));
    float* maps = storage.get();
    std::memset(maps, 0, rows.total(net.channels()) * sizeof(float));
#pragma omp parallel num_threads(threads)
    {
#pragma omp for collapse(2) schedule(static)
        for (int map = 0; map < s.inputs; map++)
            for (int i = 0; i < n; i++)
                std::copy_n(volume + (size_t(map) * n + i) * s.box[2], s.box[2],
                            rows.row(maps, map, i / s.box[1], i % s.box[1]));
        for (int layer = 0; layer < s.depth; layer++) {
            const int sources = net.channels_before(layer);
            const float* weights = parameters + net.weights_at(layer);
            const float* biases = parameters + net.biases_at() + size_t(layer) * s.width;
#pragma omp for schedule(static)
            for (int i = 0; i < n; i++)
                for (int t = 0; t < s.width; t += kMostTargets)
                    evaluate_row(std::min(kMostTargets, s.width - t), s.box[2], rows, maps,
                                 sources, sources + t, s.dilations[layer],
                                 weights + size_t(27) * sources * t, biases + t, i / s.box[1],
                                 i % s.box[1]);
        }
#pragma omp for collapse(2) schedule(static)
        for (int output = 0; output < s.outputs; output++)
            for (int i = 0; i < n; i++) {
                float* to = logits + (size_t(output) * n + i) * s.box[2];
                std::fill_n(to, s.box[2], parameters[net.final_biases_at() + output]);
                for (int map = 0; map < net.channels(); map++) {
                    const float weight = parameters[net.final_weight_at(output, map)];
                    const float* from = rows.row(maps, map, i / s.box[1], i % s.box[1]);
                    for (int x = 0; x < s.box[2]; x++) to[x] += weight * from[x];
                }
            }
    }
}

}  // namespace

extern "C" {
int voxmill_vector_bytes() { return voxmill::kVectorBytes; }
// Returns 0, or 1 if the system does not give the memory.
int voxmill_stencil(const Settings* settings, const float* parameters, const float* volume,
                    float* logits, int threads) {
    try {
        forward(*settings, parameters, volume, logits, threads);
    } catch (const std::bad_alloc&) {
        return 1;
    }
    return 0;
}
}
