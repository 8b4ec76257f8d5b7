// One pass over all models in which the experts compete for every element: see competing.py for what is computed.
//
// Compiled with -ffp-contract=off: every operation is rounded on its own, in the order written here.

#include <algorithm>
#include <cstddef>
#include <vector>

#include "numbers.h"

namespace {

constexpr int BLOCK = 256;  // elements
constexpr int STRIDE = BLOCK + 16;  // between buffers: so that they do not lie at the same places of the cache
constexpr int LANES = 32;  // elements that are treated in registers; divides BLOCK

enum Rule : int32_t { FURTHEST = 0, ELECTED = 1, SHARED = 2, CLAMPED = 3, ERASED = 4, ALONE = 5 };

struct Contest {
    const void* const* experts;
    const int32_t* dtypes;
    const float* weights;
    const float* factors;  // of ALONE
    const uint8_t* mask;   // of ERASED; null: all
    float scale, bound;
    int32_t count, rule, fewest;
};

struct Buffers {
    explicit Buffers(int experts) : memory(static_cast<size_t>(3 + experts) * STRIDE) {
        start = memory.data();
        total = start + STRIDE;
        kept = total + STRIDE;
    }

    float* term(int expert) const { return kept + static_cast<std::ptrdiff_t>(expert + 1) * STRIDE; }

    std::vector<float> memory;
    float *start, *total, *kept;
};

// The terms: v_t, or tau_t where the rule looks at deltas.
void load_terms(const Contest& contest, int64_t first, int count, const Buffers& b) {
    const float* __restrict start = b.start;
    for (int t = 0; t < contest.count; ++t) {
        const float weight = contest.rule >= ERASED ? 1.0f : contest.weights[t];
        float* __restrict term = b.term(t);
        with_type(contest.experts[t], contest.dtypes[t], first, [&](const auto* __restrict from) {
            for (int i = 0; i < count; ++i) term[i] = (widened(from[i]) - start[i]) * weight;
        });
    }
}

inline float magnitude(float value) { return float_of(bits_of(value) & MAGNITUDE); }

inline float divided(float numerator, float denominator) {
    return numerator / (magnitude(denominator) < 1e-30f ? 1.0f : denominator);
}

inline void add_up(const Contest& contest, int at, const Buffers& b, float* __restrict sum) {
    for (int i = 0; i < LANES; ++i) sum[i] = 0.0f;
    for (int t = 0; t < contest.count; ++t) {
        const float* __restrict term = b.term(t) + at;
        for (int i = 0; i < LANES; ++i) sum[i] += term[i];
    }
}

template <bool BY_VOTE>
inline void extreme(const Contest& contest, int at, const Buffers& b, float* __restrict total) {
    float sum[LANES], high[LANES], low[LANES];
    for (int i = 0; i < LANES; ++i) sum[i] = high[i] = low[i] = 0.0f;
    for (int t = 0; t < contest.count; ++t) {
        const float* __restrict term = b.term(t) + at;
        for (int i = 0; i < LANES; ++i) {
            const float value = term[i];
            if (BY_VOTE) sum[i] += value;
            high[i] = value > high[i] ? value : high[i];
            low[i] = (value < low[i]) | (value != value) ? value : low[i];
        }
    }
    for (int i = 0; i < LANES; ++i) total[i] = (BY_VOTE ? sum[i] >= 0.0f : high[i] >= -low[i]) ? high[i] : low[i];
}

inline void shared(const Contest& contest, int at, const Buffers& b, float* __restrict total) {
    const float bound = contest.bound;
    int32_t users[LANES] = {0};
    float sum[LANES];
    add_up(contest, at, b, sum);
    for (int t = 0; t < contest.count; ++t) {
        const float* __restrict term = b.term(t) + at;
        for (int i = 0; i < LANES; ++i) users[i] += magnitude(term[i]) > magnitude(sum[i] - term[i]) * bound;
    }
    for (int i = 0; i < LANES; ++i) total[i] = sum[i] * (users[i] >= contest.fewest ? 1.0f : 0.0f);
}

inline void clamped(const Contest& contest, int at, const Buffers& b, float* __restrict total) {
    const float bound = contest.bound;
    float sum[LANES] = {0.0f};
    for (int t = 0; t < contest.count; ++t) {
        const float* __restrict term = b.term(t) + at;
        for (int i = 0; i < LANES; ++i) {
            const float value = term[i], raised = value < -bound ? -bound : value;
            sum[i] += (raised > bound ? bound : raised) + value * 0.0f;
        }
    }
    for (int i = 0; i < LANES; ++i) total[i] = sum[i];
}

inline void erased(const Contest& contest, int at, const Buffers& b, float* __restrict total) {
    const float* __restrict kept = b.kept + at;
    float sum[LANES], numerator[LANES], denominator[LANES];
    uint32_t sign[LANES];
    add_up(contest, at, b, sum);
    for (int i = 0; i < LANES; ++i) {
        sign[i] = sum[i] >= 0.0f ? 0u : ~MAGNITUDE;
        numerator[i] = denominator[i] = 0.0f;
    }
    for (int t = 0; t < contest.count; ++t) {
        const float weight = contest.weights[t];
        const float* __restrict term = b.term(t) + at;
        for (int i = 0; i < LANES; ++i) {
            const float vote = float_of(bits_of(term[i]) ^ sign[i]) * kept[i];  // times the sign
            numerator[i] += (vote <= 0.0f ? 0.0f : vote) * weight;
            denominator[i] += vote > 0.0f ? weight : 0.0f;
        }
    }
    for (int i = 0; i < LANES; ++i) {
        total[i] = divided(float_of(bits_of(numerator[i]) ^ sign[i]), denominator[i]);
    }
}

// Above these bits of a magnitude an expert changed an element: NaN, above all numbers, is a change.
inline int32_t unchanged(const Contest& contest, int expert) {
    return contest.weights[expert] != 0.0f ? static_cast<int32_t>(bits_of(contest.bound)) : INT32_MAX;
}

inline bool beyond(float delta, int32_t bits) { return static_cast<int32_t>(bits_of(delta) & MAGNITUDE) > bits; }

inline void alone(const Contest& contest, int at, const Buffers& b, float* __restrict total) {
    float numerator[LANES], denominator[LANES], factor[LANES];
    int32_t times[LANES] = {0};
    for (int i = 0; i < LANES; ++i) numerator[i] = denominator[i] = factor[i] = 0.0f;
    for (int t = 0; t < contest.count; ++t) {
        const float weight = contest.weights[t], own = contest.factors[t];
        const int32_t most = unchanged(contest, t);
        const float* __restrict term = b.term(t) + at;
        for (int i = 0; i < LANES; ++i) {
            const bool takes = beyond(term[i], most);
            numerator[i] += term[i] * (takes ? 1.0f : 0.0f) * weight;
            denominator[i] += takes ? weight : 0.0f;
            factor[i] = takes ? own : factor[i];  // used if it is the only one
            times[i] += takes;
        }
    }
    for (int i = 0; i < LANES; ++i) {
        total[i] = divided(numerator[i], denominator[i]) * (times[i] == 1 ? factor[i] : 1.0f);
    }
}

// Calls join(contest, at, buffers, total) for the lanes of a block; the buffers are whole lanes long.
template <typename Join>
inline void for_lanes(const Contest& contest, int count, const Buffers& b, Join join) {
    for (int at = 0; at < count; at += LANES) join(contest, at, b, b.total + at);
}

// total = u of a block.
void decide(const Contest& contest, int64_t first, int count, const Buffers& b) {
    const Contest c = contest;  // nothing that is written can be part of it
    switch (c.rule) {
        case FURTHEST: return for_lanes(c, count, b, extreme<false>);
        case ELECTED: return for_lanes(c, count, b, extreme<true>);
        case SHARED: return for_lanes(c, count, b, shared);
        case CLAMPED: return for_lanes(c, count, b, clamped);
        case ALONE: return for_lanes(c, count, b, alone);
        case ERASED: break;
    }
    if (c.mask) {
        for (int i = 0; i < count; ++i) b.kept[i] = c.mask[first + i] ? 1.0f : 0.0f;
    } else {
        std::fill_n(b.kept, count, 1.0f);
    }
    for_lanes(c, count, b, erased);
}

}  // namespace

// Executes a contest on the elements first to last - 1 and says whether what is stored is finite.
extern "C" int32_t mergesearch_compete(const Contest* contest, const void* base, int32_t base_dtype, void* out,
                                       int32_t out_dtype, int32_t stored, int64_t first, int64_t last) {
    const Buffers b(contest->count);
    const float scale = contest->scale;
    bool finite = true;
    for (int64_t at = first; at < last; at += BLOCK) {
        const int count = static_cast<int>(std::min<int64_t>(BLOCK, last - at));
        load(base, base_dtype, at, count, b.start);
        load_terms(*contest, at, count, b);
        decide(*contest, at, count, b);
        finite &= store(b.total, count, stored, out, out_dtype, at,
                        [&](float update, int i) { return b.start[i] + update * scale; });
    }
    return finite;
}

// Adds to counts[0][t] and counts[1][t] how many of the elements expert t changed, and how many it alone did.
extern "C" void mergesearch_count_changes(const Contest* contest, const void* base, int32_t base_dtype, int64_t first,
                                          int64_t last, int64_t* counts) {
    const Contest c = *contest;
    const Buffers b(c.count);  // of zeros, which nobody changed: what is left of the last block does not count
    std::vector<int32_t> tallies(static_cast<size_t>(2 * c.count) * LANES);
    for (int64_t at = first; at < last; at += BLOCK) {
        const int count = static_cast<int>(std::min<int64_t>(BLOCK, last - at));
        load(base, base_dtype, at, count, b.start);
        load_terms(c, at, count, b);
        for (int t = 0; t < c.count; ++t) std::fill(b.term(t) + count, b.term(t) + BLOCK, 0.0f);
        for (int lane = 0; lane < count; lane += LANES) {
            int32_t times[LANES] = {0}, who[LANES] = {0};
            for (int t = 0; t < c.count; ++t) {
                const int32_t most = unchanged(c, t);
                const float* __restrict term = b.term(t) + lane;
                int32_t* __restrict all = tallies.data() + t * LANES;
                for (int i = 0; i < LANES; ++i) {
                    const bool takes = beyond(term[i], most);
                    all[i] += takes;
                    times[i] += takes;
                    who[i] = takes ? t : who[i];
                }
            }
            for (int i = 0; i < LANES; ++i) who[i] = times[i] == 1 ? who[i] : -1;
            for (int t = 0; t < c.count; ++t) {
                int32_t* __restrict own = tallies.data() + (c.count + t) * LANES;
                for (int i = 0; i < LANES; ++i) own[i] += who[i] == t;
            }
        }
    }
    for (size_t i = 0; i < tallies.size(); ++i) counts[i / LANES] += tallies[i];
}
