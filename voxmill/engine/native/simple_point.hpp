// Simple points: voxels whose change leaves the topology of an object as it is.
//
// A neighbourhood is a mask of 27 bits, bit 9z + 3y + x for the voxel at (z, y, x) of 3 x 3 x 3; bit
// 13 is the voxel itself. A voxel is simple if object and background each have exactly one component
// around it (Bertrand & Malandain, Pattern Recognition Letters 15(2), 1994). Which voxels count as
// connected is a matter of convention: objects by 26 neighbours and the background by 6, or the other
// way round. `is_simple` asks for both, so that no convention finds a piece, a handle or a hole.

#pragma once

#include <array>
#include <cstdint>

namespace voxmill {

constexpr uint32_t kCentre = 1u << 13;

struct Neighbourhoods {
    std::array<uint32_t, 27> by26{}, by6{};  // neighbours of each bit inside of 3 x 3 x 3
    uint32_t faces = 0, edges = 0;           // the 6 neighbours, and the 18, of the middle

    constexpr Neighbourhoods() {
        for (int a = 0; a < 27; a++) {
            for (int b = 0; b < 27; b++) {
                const int z = b / 9 - a / 9, y = b / 3 % 3 - a / 3 % 3, x = b % 3 - a % 3;
                const int far = z * z + y * y + x * x;
                const bool near = z * z < 2 && y * y < 2 && x * x < 2;
                if (a == b || !near) continue;
                by26[a] |= 1u << b;
                if (far == 1) by6[a] |= 1u << b;
                if (a == 13 && far == 1) faces |= 1u << b;
                if (a == 13 && far <= 2) edges |= 1u << b;
            }
        }
    }
};
constexpr Neighbourhoods kNear;

// Removes from `set` the component that holds its lowest bit of `from`.
inline uint32_t without_component(uint32_t set, uint32_t from,
                                  const std::array<uint32_t, 27>& neighbours) {
    uint32_t front = set & from;
    front &= -front;
    set &= ~front;
    while (front) {
        const uint32_t found = neighbours[__builtin_ctz(front)] & set;
        front &= front - 1;
        front |= found;
        set &= ~found;
    }
    return set;
}

// Whether `set` has exactly one component by 26 neighbours.
inline bool one_by_26(uint32_t set) {
    return set && !without_component(set, set, kNear.by26);
}

// Whether `set` has exactly one component by 6 neighbours, inside of the 18, that touches the middle.
inline bool one_by_6(uint32_t set) {
    set &= kNear.edges;
    if (!(set & kNear.faces)) return false;
    return !(without_component(set, kNear.faces, kNear.by6) & kNear.faces);
}

inline bool is_simple(uint32_t object) {
    object &= ~kCentre;
    const uint32_t background = ~object & ~kCentre & ((1u << 27) - 1);
    return one_by_6(object) && one_by_6(background) && one_by_26(object) && one_by_26(background);
}

}  // namespace voxmill
