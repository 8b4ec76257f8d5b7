// One pass over all models of a tensor, block by block in the first-level cache: see program.py for what is computed.
//
// Compiled with -ffp-contract=off: every operation is rounded on its own, in the order written here.

#include <memory>
#include <vector>

#include "selection.h"

namespace {

constexpr int BLOCK = 1024;  // elements; divides 2^32, so that a block's indices share their upper half
constexpr int STRIDE = BLOCK + 256;  // between buffers: a load right after a store 4096 bytes away would wait for it
constexpr int LANES = 32;  // elements whose votes are counted in registers

enum Join : int32_t { SUM = 0, MEAN = 1, ELECTED_SUM = 2, ELECTED_MEAN = 3 };

struct Program {
    const Keep* keeps;
    int32_t experts, join;
    float scale, divisor;
};

struct Buffers {
    explicit Buffers(int terms) : memory(static_cast<size_t>(6 + terms) * STRIDE) {
        void* data = memory.data();
        size_t space = memory.size() * sizeof(float);
        start = static_cast<float*>(std::align(64, static_cast<size_t>(5 + terms) * STRIDE, data, space));
        total = start + STRIDE;
        denominator = total + STRIDE;
        chances = denominator + STRIDE;
        staged = chances + STRIDE;
    }

    float* term(int expert) const { return staged + static_cast<ptrdiff_t>(expert + 1) * STRIDE; }

    std::vector<float> memory;
    float *start, *total, *denominator, *chances, *staged;
};

// What becomes of a term: it is added to the total, so is the weight of what it kept, or it waits for the election.
enum Use { ADD, COUNT, KEEP };

// v = tau * (kept ? factor : 0) [/ p] * weight, on one run of a block.
template <int CHOICE, int USE, bool RESCALE, typename Number>
void add_run(const Keep& keep, const Selector& select, const Number* __restrict expert, int from, int to,
             float* __restrict term, const Buffers& b) {
    const float factor = keep.factor, weight = keep.weight;
    const float* __restrict start = b.start;
    const float* __restrict chances = b.chances;
    float* __restrict total = b.total;
    float* __restrict denominator = b.denominator;
    for (int i = from; i < to; ++i) {
        const float delta = widened(expert[i]) - start[i];
        const bool kept = select.keeps<CHOICE>(delta, i, chances);
        float value = delta * (kept ? factor : 0.0f);
        if (RESCALE) value /= chances[i];
        value *= weight;
        if (USE == KEEP) term[i] = value;
        if (USE != KEEP) total[i] += value;
        if (USE == COUNT) denominator[i] += kept ? weight : 0.0f;
    }
}

template <int USE, typename Number>
void add_term(const Keep& keep, const Number* expert, int64_t first, int count, float* term, const Buffers& b) {
    with_choice(choice_of(keep), [&](auto choice) {
        for_runs(keep, first, count, [&](const Selector& select, int from, int to) {
            if (choice == RANKED && keep.rescale) {
                add_run<RANKED, USE, true>(keep, select, expert, from, to, term, b);
            } else {
                add_run<choice, USE, false>(keep, select, expert, from, to, term, b);
            }
        });
    });
}

template <int USE>
void add_expert(const Keep& keep, int64_t first, int count, float* term, const Buffers& b) {
    if (choice_of(keep) == RANKED) {
        if (cuts(keep)) load_delta(keep.expert, keep.dtype, first, count, b.start, b.staged);
        load_chances(keep, b.staged, first, count, b.chances);
    }
    if (keep.dtype == BFLOAT16) {
        add_term<USE>(keep, static_cast<const Bfloat16*>(keep.expert) + first, first, count, term, b);
    } else if (keep.dtype == FLOAT32) {
        add_term<USE>(keep, static_cast<const float*>(keep.expert) + first, first, count, term, b);
    } else {
        load(keep.expert, keep.dtype, first, count, b.staged);
        add_term<USE>(keep, b.staged, first, count, term, b);
    }
}

inline float divided(float numerator, float denominator) {
    const float size = float_of(bits_of(denominator) & MAGNITUDE);
    return numerator / (size < 1e-30f ? 1.0f : denominator);
}

// total = the sum of the terms that agree with the sign of the sum of all, divided by their weight if MEANT.
template <bool MEANT>
void elect(const Program& program, int count, const Buffers& b) {
    for (int at = 0; at < count; at += LANES) {  // the buffers are whole lanes long
        uint32_t sign[LANES];
        float sum[LANES], numerator[LANES], denominator[LANES];
        for (int i = 0; i < LANES; ++i) sum[i] = numerator[i] = denominator[i] = 0.0f;
        for (int t = 0; t < program.experts; ++t) {
            const float* __restrict term = b.term(t) + at;
            for (int i = 0; i < LANES; ++i) sum[i] += term[i];
        }
        for (int i = 0; i < LANES; ++i) sign[i] = sum[i] >= 0.0f ? 0u : ~MAGNITUDE;
        for (int t = 0; t < program.experts; ++t) {
            const float weight = program.keeps[t].weight;
            const float* __restrict term = b.term(t) + at;
            for (int i = 0; i < LANES; ++i) {
                const float vote = float_of(bits_of(term[i]) ^ sign[i]);  // times the sign
                numerator[i] += vote < 0.0f ? 0.0f : vote;  // keeps NaN
                if (MEANT) denominator[i] += vote > 0.0f ? weight : 0.0f;
            }
        }
        for (int i = 0; i < LANES; ++i) {
            const float elected = float_of(bits_of(numerator[i]) ^ sign[i]);
            b.total[at + i] = MEANT ? divided(elected, denominator[i]) : elected;
        }
    }
}

// total = u of a block, before the divisor.
void join(const Program& program, int64_t first, int count, const Buffers& b) {
    if (program.join <= MEAN) std::fill_n(b.total, count, 0.0f);
    if (program.join == MEAN) std::fill_n(b.denominator, count, 0.0f);
    for (int t = 0; t < program.experts; ++t) {
        const Keep& keep = program.keeps[t];
        if (program.join == SUM) {
            add_expert<ADD>(keep, first, count, nullptr, b);
        } else if (program.join == MEAN) {
            add_expert<COUNT>(keep, first, count, nullptr, b);
        } else {
            add_expert<KEEP>(keep, first, count, b.term(t), b);
        }
    }
    if (program.join == MEAN) {
        for (int i = 0; i < count; ++i) b.total[i] = divided(b.total[i], b.denominator[i]);
    } else if (program.join == ELECTED_SUM) {
        elect<false>(program, count, b);
    } else if (program.join == ELECTED_MEAN) {
        elect<true>(program, count, b);
    }
}

}  // namespace

// Executes a program on the elements first to last - 1 and says whether what is stored is finite.
extern "C" int32_t mergesearch_run(const Program* program, const void* base, int32_t base_dtype, void* out,
                                   int32_t out_dtype, int32_t stored, int64_t first, int64_t last) {
    const Buffers b(program->join >= ELECTED_SUM ? program->experts : 0);
    const float scale = program->scale, divisor = program->divisor;
    bool finite = true;
    for (int64_t at = first; at < last; at += BLOCK) {
        const int count = static_cast<int>(std::min<int64_t>(BLOCK, last - at));
        load(base, base_dtype, at, count, b.start);
        join(*program, at, count, b);
        if (divisor != 1.0f) {
            for (int i = 0; i < count; ++i) b.total[i] /= divisor;
        }
        finite &= store(b.total, count, stored, out, out_dtype, at,
                        [&](float update, int i) { return b.start[i] + update * scale; });
    }
    return finite;
}

// out = sum of c_i X_i on the elements first to last - 1; coefficients [models, rows], rows of `width` elements.
extern "C" int32_t mergesearch_weighted_sum(const void* const* models, const int32_t* dtypes, int32_t count,
                                            const float* coefficients, int64_t rows, int64_t width, void* out,
                                            int32_t out_dtype, int32_t stored, int64_t first, int64_t last) {
    float total[BLOCK];
    bool finite = true;
    for (int64_t at = first; at < last;) {
        const int64_t row = at / width;
        const int size = static_cast<int>(std::min({static_cast<int64_t>(BLOCK), last - at, (row + 1) * width - at}));
        for (int m = 0; m < count; ++m) {
            const float c = coefficients[m * rows + row];
            with_type(models[m], dtypes[m], at, [&](const auto* __restrict from) {
                if (m == 0) {
                    for (int i = 0; i < size; ++i) total[i] = widened(from[i]) * c;
                } else {
                    for (int i = 0; i < size; ++i) total[i] += widened(from[i]) * c;
                }
            });
        }
        finite &= store(total, size, stored, out, out_dtype, at, [](float sum, int) { return sum; });
        at += size;
    }
    return finite;
}
