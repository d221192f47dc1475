// The limits of a machine: fused multiply-adds a second and bytes read a second, all threads.

#include <omp.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "simd.hpp"

using V = voxmill::Vec<float>;

// Keeps the compiler from removing the computation of `value`.
inline void use(V value) {
#if defined(__x86_64__)
    asm volatile("" : : "v"(value));
#else
    asm volatile("" : : "w"(value));
#endif
}

// Billions of multiply-adds a second: 12 independent chains hide the latency. The best of a few short
// runs, because other programs can only slow one down.
double multiply_adds(int threads) {
    constexpr int chains = 12;
    const long turns = 2000000;
    double best = 1e9;
    for (int run = 0; run < 10; run++) {
        double slowest = 0;
#pragma omp parallel num_threads(threads) reduction(max : slowest)
        {
            V sum[chains];
            for (int j = 0; j < chains; j++) sum[j] = voxmill::splat(1.0f + j);
            const V factor = voxmill::splat(0.999f), term = voxmill::splat(0.001f);
            const double start = omp_get_wtime();
            for (long i = 0; i < turns; i++) {
#pragma GCC unroll 12
                for (int j = 0; j < chains; j++) sum[j] = sum[j] * factor + term;
            }
            for (int j = 0; j < chains; j++) use(sum[j]);
            slowest = omp_get_wtime() - start;
        }
        best = std::min(best, slowest);
    }
    return double(chains) * voxmill::lanes<float> * turns * threads / best / 1e9;
}

// Billions of bytes read a second from an array that few caches hold.
double bytes_read(int threads, size_t bytes) {
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return 0;
    madvise(memory, bytes, MADV_HUGEPAGE);
    V* numbers = static_cast<V*>(memory);
    const long count = bytes / sizeof(V);
    double best = 1e9;
    for (int run = 0; run < 6; run++) {
        const double start = omp_get_wtime();
#pragma omp parallel for num_threads(threads) schedule(static)
        for (long block = 0; block < count / 64; block++) {
            V sum[4] = {};
            V* at = numbers + block * 64;
            for (int i = 0; i < 64; i += 4)
                for (int j = 0; j < 4; j++) {
                    if (run == 0)
                        at[i + j] = voxmill::splat(1.0f);
                    else
                        sum[j] += at[i + j];
                }
            for (int j = 0; j < 4; j++) use(sum[j]);
        }
        if (run > 0) best = std::min(best, omp_get_wtime() - start);
    }
    munmap(memory, bytes);
    return bytes / best / 1e9;
}

int main(int, char** arguments) {
    const int threads = std::atoi(arguments[1]);
    std::printf("{\"gfma_per_s\": %.2f, \"read_gb_per_s\": %.2f}\n", multiply_adds(threads),
                bytes_read(threads, size_t(2) << 30));
}
