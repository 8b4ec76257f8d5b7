// Vectors of as many numbers as the processor computes with at a time, for loops that keep everything in registers.
//
// They are the extension of GCC and clang: operators work number by number, each rounded as it is for one number,
// comparisons give -1 where they hold, and a cast between vectors keeps the bits.
//
// A group is two vectors of elements, its halves. Of 16-bit numbers one half has the even elements, the other the odd
// ones: to shift and mask words is cheaper than to widen neighbours. Of 32-bit numbers one half follows the other.

#pragma once

#include "numbers.h"

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX2__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif
constexpr int GROUP = 2 * LANES;

typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));
typedef uint32_t Words __attribute__((vector_size(4 * LANES)));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES)));

inline Floats all(float value) { return value - Floats{}; }

inline Ints magnitude(Floats value) { return (Ints)((Words)value & MAGNITUDE); }

inline Ints larger(Ints one, Ints other) { return one > other ? one : other; }

template <typename Vector>
inline Vector lanes_at(const void* from) {
    Vector vector;
    std::memcpy(&vector, from, sizeof vector);
    return vector;
}

// One half (0 or 1) of the group at `from`, as float32.
inline Floats floats_at(const float* from, int half) { return lanes_at<Floats>(from + half * LANES); }

inline Floats floats_at(const Bfloat16* from, int half) {
    const Words words = lanes_at<Words>(from);
    return (Floats)(half ? words & 0xffff0000u : words << 16);
}

inline Floats floats_at(const uint16_t* from, int half) {
    const Words words = lanes_at<Words>(from);
    return __builtin_convertvector((Ints)(half ? words >> 16 : words & 0xffffu), Floats);
}

// The same of 16-bit numbers whose other companions are 32 bits wide: one half follows the other.
inline Floats widened_at(const uint16_t* from, int half) {
    return __builtin_convertvector(lanes_at<Halves>(from + half * LANES), Floats);
}

// Where in its group each element of a half is.
template <typename Number>
inline Words places(int half) {
    Words place;
    for (int i = 0; i < LANES; ++i) {
        place[i] = static_cast<uint32_t>(sizeof(Number) == 2 ? 2 * i + half : half * LANES + i);
    }
    return place;
}

// Stores a group, rounded to the type of `into`; `worst` becomes the largest magnitude (its bits) stored so far.
inline void store_group(float* into, Floats one, Floats other, Ints& worst) {
    worst = larger(worst, larger(magnitude(one), magnitude(other)));
    std::memcpy(into, &one, sizeof one);
    std::memcpy(into + LANES, &other, sizeof other);
}

// To bfloat16, in the upper half of each word; what is in the lower half has no meaning.
inline Words rounded_words(Floats value) {
    const Words bits = (Words)value, rounded = bits + 0x7fffu + (bits >> 16 & 1u);
    return (bits & MAGNITUDE) > INFINITE ? Words{} + 0x7fc00000u : rounded;
}

inline void store_group(Bfloat16* into, Floats even, Floats odd, Ints& worst) {
    const Words low = rounded_words(even), high = rounded_words(odd);
    const Words both = low >> 16 | (high & 0xffff0000u);
    worst = larger(worst, larger((Ints)(low & 0x7fff0000u), (Ints)(high & 0x7fff0000u)));
    std::memcpy(into, &both, sizeof both);
}
