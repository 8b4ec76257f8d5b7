// Numbers as bits: the three dtypes a model is stored in, widened to float32 and rounded back to nearest even.
//
// Everything is branch-free integer arithmetic on arrays, which compilers turn into vector instructions on any machine.

#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

enum Dtype : int32_t { FLOAT32 = 0, BFLOAT16 = 1, FLOAT16 = 2 };

constexpr uint32_t MAGNITUDE = 0x7fffffffu;  // all but the sign
constexpr uint32_t INFINITE = 0x7f800000u;

inline uint32_t bits_of(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    return bits;
}

inline float float_of(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

inline float widened(float value) { return value; }

enum class Bfloat16 : uint16_t {};

inline float widened(Bfloat16 number) { return float_of(static_cast<uint32_t>(number) << 16); }

inline Bfloat16 to_bfloat16(float value) {
    const uint32_t bits = bits_of(value);
    const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
    return static_cast<Bfloat16>((bits & MAGNITUDE) > INFINITE ? 0x7fc0u : rounded);
}

enum class Float16 : uint16_t {};

// The exponents of the two formats differ by 112: one exact multiplication moves normal and subnormal numbers alike.
inline float widened(Float16 number) {
    const uint32_t bits = static_cast<uint32_t>(number), shifted = (bits & 0x7fffu) << 13;
    const uint32_t moved = bits_of(float_of(shifted) * 0x1p112f);
    const uint32_t magnitude = shifted >= 0x0f800000u ? shifted | INFINITE : moved;  // infinity and NaN stay
    return float_of(magnitude | (bits & 0x8000u) << 16);
}

inline Float16 to_float16(float value) {
    const uint32_t bits = bits_of(value), magnitude = bits & MAGNITUDE;
    const uint32_t normal = (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
    const uint32_t subnormal = bits_of(float_of(magnitude) + 0.5f) - 0x3f000000u;  // the addition rounds to 2^-24
    const uint32_t special = magnitude > INFINITE ? 0x7e00u : 0x7c00u;
    const uint32_t finite = magnitude < 0x38800000u ? subnormal : normal;
    const uint32_t rounded = magnitude >= 0x47800000u ? special : finite;
    return static_cast<Float16>(rounded | (bits >> 16 & 0x8000u));
}

// Calls work(pointer to the first element) with the type that `dtype` says.
template <typename Work>
inline void with_type(const void* data, int32_t dtype, int64_t first, Work work) {
    if (dtype == FLOAT32) {
        work(static_cast<const float*>(data) + first);
    } else if (dtype == BFLOAT16) {
        work(static_cast<const Bfloat16*>(data) + first);
    } else {
        work(static_cast<const Float16*>(data) + first);
    }
}

// into[i] = float32 of element first + i.
inline void load(const void* data, int32_t dtype, int64_t first, int count, float* __restrict into) {
    with_type(data, dtype, first, [&](const auto* __restrict from) {
        for (int i = 0; i < count; ++i) into[i] = widened(from[i]);
    });
}

// into[i] = float32 of element first + i, minus start[i].
inline void load_delta(const void* data, int32_t dtype, int64_t first, int count, const float* __restrict start,
                       float* __restrict into) {
    with_type(data, dtype, first, [&](const auto* __restrict from) {
        for (int i = 0; i < count; ++i) into[i] = widened(from[i]) - start[i];
    });
}

// A float32 rounded to a dtype.
template <typename Number>
inline Number rounded(float value);

template <>
inline float rounded<float>(float value) {
    return value;
}

template <>
inline Bfloat16 rounded<Bfloat16>(float value) {
    return to_bfloat16(value);
}

template <>
inline Float16 rounded<Float16>(float value) {
    return to_float16(value);
}

// into[i] = finish(values[i], i), rounded to Number and then to the type of `into`. Says whether all that is stored
// is finite.
template <typename Number, typename Into, typename Finish>
inline bool store_as(const float* __restrict values, int count, Into* __restrict into, Finish finish) {
    uint32_t worst = 0;
    for (int i = 0; i < count; ++i) {
        const Number number = rounded<Number>(finish(values[i], i));
        const uint32_t magnitude = bits_of(widened(number)) & MAGNITUDE;
        worst = magnitude > worst ? magnitude : worst;
        if constexpr (std::is_same_v<Number, Into>) {
            into[i] = number;
        } else {
            into[i] = rounded<Into>(widened(number));
        }
    }
    return worst < INFINITE;
}

// The same with the types that `stored` and `dtype` say.
template <typename Finish>
inline bool store(const float* values, int count, int32_t stored, void* data, int32_t dtype, int64_t first,
                  Finish finish) {
    bool finite = true;
    with_type(data, dtype, first, [&](const auto* from) {
        auto* into = const_cast<std::remove_const_t<std::remove_pointer_t<decltype(from)>>*>(from);
        if (stored == FLOAT32) {
            finite = store_as<float>(values, count, into, finish);
        } else if (stored == BFLOAT16) {
            finite = store_as<Bfloat16>(values, count, into, finish);
        } else {
            finite = store_as<Float16>(values, count, into, finish);
        }
    });
    return finite;
}
