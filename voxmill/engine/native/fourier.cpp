// The C interface that Python loads: each function once for each type of number.

#include <omp.h>

#include <string>

#include "engine.hpp"

namespace {

thread_local std::string problem;

struct Settings {
    int32_t inputs, outputs, depth, width;
    voxmill::Box box;
    int32_t training;
    const int32_t* dilations;  // one for each layer
};

template <typename T, typename Item = voxmill::Complex<T>>
void* create(const Settings* settings) {
    try {
        const voxmill::Network net{
            settings->inputs, settings->outputs, settings->depth, settings->width,
            std::vector<int>(settings->dilations, settings->dilations + settings->depth)};
        return new voxmill::Engine<T, Item>(net, settings->box, settings->training != 0);
    } catch (const std::bad_alloc&) {
        problem = "out of memory";
    } catch (const std::exception& error) {
        problem = error.what();
    }
    return nullptr;
}

}  // namespace

#define VOXMILL_EXPORT(T, NAME)                                                                 \
    void* voxmill_create_##NAME(const Settings* settings) { return create<T>(settings); }       \
    void voxmill_destroy_##NAME(void* engine) {                                                 \
        delete static_cast<voxmill::Engine<T>*>(engine);                                        \
    }                                                                                           \
    void voxmill_forward_##NAME(void* engine, const T* parameters, const T* volume, T* logits,  \
                                int threads) {                                                  \
        static_cast<voxmill::Engine<T>*>(engine)->forward(parameters, volume, logits, threads); \
    }                                                                                           \
    void voxmill_backward_##NAME(void* engine, const T* parameters, const T* logits_gradient,   \
                                 T* gradient, T* volume_gradient, void* workspace,              \
                                 int threads) {                                                 \
        static_cast<voxmill::Engine<T>*>(engine)->backward(                                     \
            parameters, logits_gradient, gradient, volume_gradient,                             \
            static_cast<voxmill::Complex<T>*>(workspace), threads);                             \
    }                                                                                           \
    size_t voxmill_workspace_bytes_##NAME(void* engine) {                                       \
        return static_cast<voxmill::Engine<T>*>(engine)->spectra_size() *                       \
               sizeof(voxmill::Complex<T>);                                                     \
    }

extern "C" {
void* voxmill_allocate(size_t bytes) {
    try {
        return new voxmill::Storage<char>(bytes);
    } catch (const std::bad_alloc&) {
        return nullptr;
    }
}
void* voxmill_address(void* storage) {
    return static_cast<voxmill::Storage<char>*>(storage)->get();
}
void voxmill_free(void* storage) { delete static_cast<voxmill::Storage<char>*>(storage); }
void voxmill_release() { voxmill::Kept::clear(); }
const char* voxmill_problem() { return problem.c_str(); }
void* voxmill_create_shared16(const Settings* settings) {
    return create<float, voxmill::Shared16>(settings);
}
void voxmill_destroy_shared16(void* engine) {
    delete static_cast<voxmill::Engine<float, voxmill::Shared16>*>(engine);
}
void voxmill_forward_shared16(void* engine, const float* parameters, const float* volume,
                              float* logits, int threads) {
    static_cast<voxmill::Engine<float, voxmill::Shared16>*>(engine)->forward(
        parameters, volume, logits, threads);
}
VOXMILL_EXPORT(float, float32)
VOXMILL_EXPORT(double, float64)
}
