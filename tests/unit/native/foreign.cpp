// Runs the engine as a program of its own, for a CPU that Python does not run on here.
//   foreign INPUT OUTPUT: int32 inputs, outputs, depth, width, box (3), lengths (3), parameters,
//   dilations (depth); then float32 parameters and volume. Out: logits in float32, logits with
//   spectra in shared16, and the parameters' gradient for a logits' gradient of ones (float32).
#include <cstdio>
#include <numeric>

#include "fourier.cpp"

template <typename T>
std::vector<T> read(std::FILE* file, size_t count) {
    std::vector<T> values(count);
    if (std::fread(values.data(), sizeof(T), count, file) != count) std::abort();
    return values;
}

void write(std::FILE* file, const std::vector<float>& values) {
    std::fwrite(values.data(), sizeof(float), values.size(), file);
}

int main(int, char** paths) {
    std::FILE* in = std::fopen(paths[1], "rb");
    const auto head = read<int32_t>(in, 11);
    const auto dilations = read<int32_t>(in, head[2]);
    const auto parameters = read<float>(in, head[10]);
    const size_t voxels = size_t(head[4]) * head[5] * head[6];
    const auto volume = read<float>(in, head[0] * voxels);
    Settings settings{head[0], head[1], head[2], head[3], {}, 0, dilations.data()};
    std::memcpy(&settings.box, &head[4], 6 * sizeof(int32_t));

    std::vector<float> logits(head[1] * voxels), shared(logits), gradient(parameters);
    void* engine = voxmill_create_shared16(&settings);
    voxmill_forward_shared16(engine, parameters.data(), volume.data(), shared.data(), 2);
    voxmill_destroy_shared16(engine);
    settings.training = 1;
    engine = voxmill_create_float32(&settings);
    voxmill_forward_float32(engine, parameters.data(), volume.data(), logits.data(), 2);
    void* workspace = voxmill_allocate(voxmill_workspace_bytes_float32(engine));
    const std::vector<float> ones(logits.size(), 1.0f);
    voxmill_backward_float32(engine, parameters.data(), ones.data(), gradient.data(), nullptr,
                             voxmill_address(workspace), 2);
    voxmill_free(workspace);
    voxmill_destroy_float32(engine);

    std::FILE* out = std::fopen(paths[2], "wb");
    write(out, logits);
    write(out, shared);
    write(out, gradient);
    return std::fclose(out);
}
