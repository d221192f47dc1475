// The shape of an MS-D network and the place of its numbers in one flat array of parameters: each
// layer's weights (width, channels before, 27), all biases, final weights, final biases.
//
// A "map" in this folder is a feature map: one channel of the input, a layer or the output.
#pragma once

#include "pull.hpp"

namespace voxmill {

struct Network {
    int inputs, outputs, depth, width;
    std::vector<int> dilations;  // one for each layer

    int channels() const { return inputs + depth * width; }
    int channels_before(int layer) const { return inputs + layer * width; }
    int layer_of(int map) const { return (map - inputs) / width; }
    // Number of maps that a map or an output (both by forward numbers) reads.
    int sources_of(int target) const {
        return target < channels() ? channels_before(layer_of(target)) : channels();
    }
    size_t weights_at(int layer) const {
        return size_t(27) * width *
               (size_t(layer) * inputs + size_t(width) * layer * (layer - 1) / 2);
    }
    size_t biases_at() const { return weights_at(depth); }
    size_t final_at() const { return biases_at() + size_t(depth) * width; }
    size_t final_biases_at() const { return final_at() + size_t(outputs) * channels(); }
    // First of the 27 taps from map `source` to map `target`; the inputs are the first maps.
    size_t taps_at(int target, int source) const {
        const int layer = layer_of(target);
        return weights_at(layer) +
               size_t(27) * (size_t((target - inputs) % width) * channels_before(layer) + source);
    }
    size_t final_weight_at(int output, int map) const {
        return final_at() + size_t(output) * channels() + map;
    }
};

// A step of the evaluation: maps that are computed together and do not read each other.
struct Group {
    int first, count;
};

// Forward order: inputs, layers, outputs. A map's number is its place in the order.
template <typename T>
struct ForwardKernels : Kernels<T> {
    const Network& net;
    const T* parameters;
    ForwardKernels(const Network& net, const T* parameters) : net(net), parameters(parameters) {}

    void taps(int target, int source, T* to) const override {
        if (target < net.channels()) {
            std::copy_n(parameters + net.taps_at(target, source), 27, to);
        } else {
            std::fill_n(to, 27, T(0));
            to[13] = parameters[net.final_weight_at(target - net.channels(), source)];
        }
    }
    int dilation(int target, int) const override {
        return target < net.channels() ? net.dilations[net.layer_of(target)] : 0;
    }
    bool last_is_read() const { return false; }
    std::vector<Group> groups() const {
        std::vector<Group> groups{{0, net.inputs}};
        for (int i = 0; i < net.depth; i++) groups.push_back({net.channels_before(i), net.width});
        groups.push_back({net.channels(), net.outputs});
        return groups;
    }
};

// Gradients are computed in the reverse order: outputs, layers from last to first, inputs.
template <typename T>
struct BackwardKernels : Kernels<T> {
    const ForwardKernels<T> forward;
    const bool inputs;  // whether the gradient of the inputs is wanted
    BackwardKernels(const Network& net, const T* parameters, bool inputs)
        : forward(net, parameters), inputs(inputs) {}

    const Network& net() const { return forward.net; }
    // From backward to forward number, and back: groups are reversed, the order in a group is not.
    int mirrored(int number) const {
        const Network& n = forward.net;
        if (number < n.outputs) return n.channels() + number;
        number -= n.outputs;
        if (number >= n.depth * n.width) return number - n.depth * n.width;
        return n.channels_before(n.depth - 1 - number / n.width) + number % n.width;
    }
    void taps(int target, int source, T* to) const override {
        forward.taps(mirrored(source), mirrored(target), to);
    }
    int dilation(int target, int source) const override {
        return forward.dilation(mirrored(source), mirrored(target));
    }
    // The weight gradient reads the spectra of the first layer's gradients.
    bool last_is_read() const { return !inputs; }
    std::vector<Group> groups() const {
        const Network& n = forward.net;
        std::vector<Group> groups{{0, n.outputs}};
        for (int i = 0; i < n.depth; i++) groups.push_back({n.outputs + i * n.width, n.width});
        if (inputs) groups.push_back({n.outputs + n.depth * n.width, n.inputs});
        return groups;
    }
};

}  // namespace voxmill
