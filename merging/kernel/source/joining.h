// The loop of a program: what becomes of the elements of all experts, held in registers from load to store. See
// program.py for what is computed.

#pragma once

#include <algorithm>

#include "lanes.h"
#include "selection.h"

namespace {

enum Join : int32_t { SUM = 0, MEAN = 1, ELECTED_SUM = 2, ELECTED_MEAN = 3 };

// What one expert brings to a stretch of elements, from the first of them on.
struct Piece {
    const void* expert;
    const uint16_t* ranks;  // RANKED: what the probabilities follow from; null: they are in `chances`
    const float* chances;
    uint32_t least, span;  // CUTS: kept are the magnitudes from `least` on, so many of them
    int32_t limit;  // EVEN: kept are the numbers below
    uint32_t k0, k1;
    float factor, weight, lowest, step;
    bool scaled, rescale;
};

// The two halves of a group.
struct Pair {
    Floats half[2];
};

// Elements that one loop merges: whole groups, all models of one type, of each expert one rule.
struct Stretch {
    const void* base;
    void* out;  // of the models' type; or, if they are bfloat16, float32 with ...
    int64_t apart;  // ... the odd elements so far behind the even ones; 0: not so
    const Piece* pieces;
    Pair* terms;  // room for one per expert
    int experts;
    float scale, divisor;
    uint32_t first;  // lower half of the first element's index
    int64_t count;
};

// Elements between those computed and those fetched: what the processor foresees on its own ends at each page.
constexpr int AHEAD = 1024;

// Calls work with the join as a type.
template <typename Work>
inline void with_join(int32_t join, Work work) {
    switch (join) {
        case SUM: return work(std::integral_constant<int, SUM>());
        case MEAN: return work(std::integral_constant<int, MEAN>());
        case ELECTED_SUM: return work(std::integral_constant<int, ELECTED_SUM>());
        case ELECTED_MEAN: return work(std::integral_constant<int, ELECTED_MEAN>());
    }
}

// The probabilities of half a group. All that is read as bfloat16 has ranks.
template <typename Number>
inline Floats chances_at(const Piece& piece, int64_t i, int half) {
    if (sizeof(Number) == 4 && !piece.ranks) return floats_at(piece.chances + i, half);
    const Floats ranks = sizeof(Number) == 4 ? widened_at(piece.ranks + i, half) : floats_at(piece.ranks + i, half);
    return ranks * piece.step + piece.lowest;
}

// v = tau [* factor] [/ p] * (kept ? weight : 0) of half a group. Also tells kept ? weight : 0.
template <int CHOICE, typename Number>
inline Floats term(const Piece& piece, Floats start, Words index, int64_t i, int half, Floats& weight) {
    const Number* expert = static_cast<const Number*>(piece.expert);
    const Floats delta = floats_at(expert + i, half) - start;
    Ints kept = Ints{} - 1;
    Floats value = delta, chance;
    if (CHOICE == CUTS) kept = (Words)magnitude(delta) - piece.least < piece.span;
    if (CHOICE >= EVEN) {
        const Ints number = (Ints)(number_of(index, piece.k0, piece.k1) >> 8);
        if (CHOICE == EVEN) kept = number < piece.limit;
        if (CHOICE == RANKED) {
            chance = chances_at<Number>(piece, i, half);
            kept = __builtin_convertvector(number, Floats) * 0x1p-24f < chance;
        }
    }
    if (piece.scaled) value *= piece.factor;
    if (CHOICE == RANKED && piece.rescale) value /= chance;
    weight = kept ? all(piece.weight) : Floats{};
    return value * weight;
}

inline Floats divided(Floats numerator, Floats denominator) {
    const Floats size = (Floats)magnitude(denominator);
    return numerator / (size < all(1e-30f) ? all(1.0f) : denominator);
}

// The sum of the terms that agree with the sign of the sum of all, divided by their weight if MEANT.
template <bool MEANT, int EXPERTS>
inline Pair elected(const Pair* terms, const Pair& sum, const Piece* pieces, int experts) {
    Words sign[2];
    Pair numerator, denominator = {};
    for (int h = 0; h < 2; ++h) {
        sign[h] = (Words)sum.half[h] & ~MAGNITUDE;  // a sum that began at 0 is never -0
        numerator.half[h] = sum.half[h] - sum.half[h];  // 0, or NaN if the sum is not finite
    }
    for (int t = 0; t < (EXPERTS ? EXPERTS : experts); ++t) {
        for (int h = 0; h < 2; ++h) {
            const Ints vote = larger((Ints)((Words)terms[t].half[h] ^ sign[h]), Ints{});  // 0 if it disagrees
            numerator.half[h] += (Floats)vote;
            if (MEANT) denominator.half[h] += vote != Ints{} ? all(pieces[t].weight) : Floats{};
        }
    }
    for (int h = 0; h < 2; ++h) {
        numerator.half[h] = (Floats)((Words)numerator.half[h] ^ sign[h]);
        if (MEANT) numerator.half[h] = divided(numerator.half[h], denominator.half[h]);
    }
    return numerator;
}

template <int CHOICE, typename Number>
inline void fetch(const Stretch& s, int experts, int64_t at) {
    __builtin_prefetch(static_cast<const Number*>(s.base) + at);
    for (int t = 0; t < experts; ++t) {
        __builtin_prefetch(static_cast<const Number*>(s.pieces[t].expert) + at);
        if (CHOICE == RANKED) __builtin_prefetch(s.pieces[t].ranks + at);
    }
}

// u of a group, before the divisor.
template <int CHOICE, int JOIN, typename Number, int EXPERTS>
inline Pair joined(const Stretch& s, const Pair& start, const Words* index, int64_t i) {
    const int experts = EXPERTS ? EXPERTS : s.experts;
    Pair sum = {}, weights = {}, here[EXPERTS ? EXPERTS : 1];
    Pair* terms = EXPERTS ? here : s.terms;
    for (int t = 0; t < experts; ++t) {
        for (int h = 0; h < 2; ++h) {
            Floats weight;
            const Floats value = term<CHOICE, Number>(s.pieces[t], start.half[h], index[h], i, h, weight);
            sum.half[h] += value;
            if (JOIN == MEAN) weights.half[h] += weight;
            if (JOIN >= ELECTED_SUM) terms[t].half[h] = value;
        }
    }
    if (JOIN >= ELECTED_SUM) return elected<JOIN == ELECTED_MEAN, EXPERTS>(terms, sum, s.pieces, experts);
    for (int h = 0; h < 2 && JOIN == MEAN; ++h) sum.half[h] = divided(sum.half[h], weights.half[h]);
    return sum;
}

// Merges a stretch; EXPERTS: how many, if it is known to the compiler, else 0. Returns the largest magnitude stored.
template <int CHOICE, int JOIN, typename Number, int EXPERTS>
int32_t merge(const Stretch& given) {
    Stretch s = given;
    Piece pieces[EXPERTS ? EXPERTS : 1];  // a copy of its own: no store can change it, so it stays in registers
    if (EXPERTS) s.pieces = std::copy_n(given.pieces, EXPERTS, pieces) - EXPERTS;
    const Number* base = static_cast<const Number*>(s.base);
    Ints worst = {};
    for (int64_t i = 0; i < s.count; i += GROUP) {
        // where memory alone sets the pace (float32, or little to compute), more requests only slow it down
        if (sizeof(Number) == 2 && (CHOICE != ALL || JOIN >= ELECTED_SUM)) {
            fetch<CHOICE, Number>(s, EXPERTS ? EXPERTS : s.experts, i + AHEAD);
        }
        const uint32_t at = s.first + static_cast<uint32_t>(i);
        const Words index[2] = {places<Number>(0) + at, places<Number>(1) + at};
        const Pair start = {{floats_at(base + i, 0), floats_at(base + i, 1)}};
        Pair update = joined<CHOICE, JOIN, Number, EXPERTS>(s, start, index, i);
        for (int h = 0; h < 2; ++h) {
            if (s.divisor != 1.0f) update.half[h] /= s.divisor;
            update.half[h] = start.half[h] + update.half[h] * s.scale;
        }
        if (sizeof(Number) == 2 && s.apart) {
            float* even = static_cast<float*>(s.out) + i / 2;
            std::memcpy(even, &update.half[0], sizeof(Floats));
            std::memcpy(even + s.apart, &update.half[1], sizeof(Floats));
        } else {
            store_group(static_cast<Number*>(s.out) + i, update.half[0], update.half[1], worst);
        }
    }
    int32_t most = 0;
    for (int i = 0; i < LANES; ++i) most = std::max(most, worst[i]);
    return most;
}

template <typename Number, int EXPERTS>
int32_t merge_by(int32_t choice, int32_t join, const Stretch& stretch) {
    int32_t worst = 0;
    with_choice(choice, [&](auto c) {
        with_join(join, [&](auto j) { worst = merge<c, j, Number, EXPERTS>(stretch); });
    });
    return worst;
}

// The same, with what is known while a program runs; usual numbers of experts have loops of their own.
template <typename Number>
int32_t merge_of(int32_t choice, int32_t join, const Stretch& stretch) {
    switch (stretch.experts) {
        case 2: return merge_by<Number, 2>(choice, join, stretch);
        case 3: return merge_by<Number, 3>(choice, join, stretch);
        case 4: return merge_by<Number, 4>(choice, join, stretch);
        default: return merge_by<Number, 0>(choice, join, stretch);
    }
}

}  // namespace
