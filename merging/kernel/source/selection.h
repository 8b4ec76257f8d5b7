// Which elements of a delta are kept: cuts in the order of magnitudes, and draws. See program.py and draws.py.

#pragma once

#include <algorithm>
#include <cmath>

#include "numbers.h"

struct Cut {
    const int32_t* value;  // bits of a magnitude per row; null: no cut
    const int64_t* index;
    int64_t width;
};

struct Keep {
    const void* expert;
    Cut above, below;
    const void* ranks;  // null: one probability for all
    uint64_t key;
    float weight, factor, lowest, step;
    int32_t dtype, drawn, rescale, rank_bytes;
};

// A chance that every draw is below, for what is not drawn.
constexpr float SURELY = 2.0f;

// The number of an index (or of a vector of them), see draws.py; its upper 24 bits are used.
template <typename Words>
inline Words number_of(Words index, uint32_t k0, uint32_t k1) {
    Words x = index ^ k0;
    x = (x ^ x >> 17) * 0xed5ad4bbu;
    x = (x ^ x >> 11 ^ k1) * 0xac4c1b51u;
    return (x ^ x >> 15) * 0x31848babu;
}

// A cut within a run of elements is one comparison: magnitude > threshold. The runs end where a row ends, and at the
// row's index: up to there equal magnitudes count, so the threshold is one less.
struct Run {
    int32_t threshold;
    int64_t end;
};

inline Run run_of(const Cut& cut, int64_t at, int32_t without) {
    if (!cut.value) return {without, INT64_MAX};
    const int64_t row = at / cut.width, begin = row * cut.width, last = begin + cut.index[row];
    if (at <= last) return {cut.value[row] - 1, std::min(last + 1, begin + cut.width)};
    return {cut.value[row], begin + cut.width};
}

// How elements are chosen: all; by cuts; drawn with one probability, or with one each.
enum Choice { ALL, CUTS, EVEN, RANKED };

inline bool cuts(const Keep& keep) { return keep.above.value || keep.below.value; }

inline Choice choice_of(const Keep& keep) {
    if (!keep.drawn) return cuts(keep) ? CUTS : ALL;
    return keep.ranks || cuts(keep) ? RANKED : EVEN;
}

// Calls work with the choice as a type, so that its loops are compiled for it alone.
template <typename Work>
inline void with_choice(int32_t choice, Work work) {
    switch (choice) {
        case ALL: return work(std::integral_constant<int, ALL>());
        case CUTS: return work(std::integral_constant<int, CUTS>());
        case EVEN: return work(std::integral_constant<int, EVEN>());
        case RANKED: return work(std::integral_constant<int, RANKED>());
    }
}

// The numbers that choose within one run, element `at + i` of the tensor being i.
struct Selector {
    int32_t above, below, limit;
    uint32_t at, k0, k1;

    template <int CHOICE>
    bool keeps(float delta, int i, const float* chances) const {
        if (CHOICE == ALL) return true;
        if (CHOICE == CUTS) {
            const int32_t magnitude = static_cast<int32_t>(bits_of(delta) & MAGNITUDE);
            return (magnitude > above) & (magnitude <= below);
        }
        const int32_t number = static_cast<int32_t>(number_of(at + static_cast<uint32_t>(i), k0, k1) >> 8);
        if (CHOICE == EVEN) return number < limit;
        return static_cast<float>(number) * 0x1p-24f < chances[i];
    }
};

// The key's second half: an index beyond 2^32 changes it.
inline uint32_t second_key(const Keep& keep, int64_t index) {
    return static_cast<uint32_t>(keep.key) ^ number_of(static_cast<uint32_t>(index >> 32), 0u, 0u);
}

// number / 2^24 < p is number < limit.
inline int32_t limit_of(const Keep& keep) { return static_cast<int32_t>(std::ceil(keep.lowest * 0x1p24f)); }

// Calls each(selector, from, to) for the runs of the block of elements first to first + count - 1.
template <typename Each>
inline void for_runs(const Keep& keep, int64_t first, int count, Each each) {
    const uint32_t k0 = static_cast<uint32_t>(keep.key >> 32), k1 = second_key(keep, first);
    const int32_t limit = limit_of(keep);
    for (int64_t at = first; at < first + count;) {
        const Run above = run_of(keep.above, at, -1), below = run_of(keep.below, at, INT32_MAX);
        const int64_t end = std::min({above.end, below.end, first + count});
        each(Selector{above.threshold, below.threshold, limit, static_cast<uint32_t>(first), k0, k1},
             static_cast<int>(at - first), static_cast<int>(end - first));
        at = end;
    }
}

// chances[i] = the probability of element first + i, for RANKED; of what the cuts drop its negative, so that no draw is
// below it.
inline void load_chances(const Keep& keep, const float* __restrict delta, int64_t first, int count,
                         float* __restrict chances) {
    const float step = keep.step, lowest = keep.drawn ? keep.lowest : SURELY;
    if (!keep.ranks) {
        std::fill_n(chances, count, lowest);
    } else if (keep.rank_bytes == 2) {
        const uint16_t* __restrict ranks = static_cast<const uint16_t*>(keep.ranks) + first;
        for (int i = 0; i < count; ++i) chances[i] = static_cast<float>(ranks[i]) * step + lowest;
    } else {
        const int32_t* __restrict ranks = static_cast<const int32_t*>(keep.ranks) + first;
        for (int i = 0; i < count; ++i) chances[i] = static_cast<float>(ranks[i]) * step + lowest;
    }
    if (!cuts(keep)) return;
    for_runs(keep, first, count, [&](const Selector& select, int from, int to) {
        for (int i = from; i < to; ++i) {
            chances[i] = select.keeps<CUTS>(delta[i], i, chances) ? chances[i] : -chances[i];
        }
    });
}
