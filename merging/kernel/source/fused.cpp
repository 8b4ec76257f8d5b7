// One pass over all models of a tensor: see program.py for what is computed, joining.h for the loop.
//
// Compiled with -ffp-contract=off: every operation is rounded on its own, in the order written. A tensor is cut into
// stretches in which each expert has one rule, which nearly all of it is in; where a rule changes, where models are not
// all of one type and at the end, blocks are first converted into the first-level cache.

#include <memory>
#include <vector>

#include "joining.h"

namespace {

constexpr int BLOCK = 512;  // elements converted at a time
constexpr int STRIDE = BLOCK + 128;  // between buffers: a load right after a store 4096 bytes away would wait for it
constexpr int64_t NARROW = 2048;  // rows shorter than this change their rules too often to stop at each change
constexpr int32_t MIXED = -1;

struct Program {
    const Keep* keeps;
    int32_t experts, join;
    float scale, divisor;
};

struct Tensor {
    const void* base;
    void* out;
    int32_t base_dtype, out_dtype, stored;
};

constexpr auto as_it_is = [](float value, int) { return value; };  // a function's address would not be inlined

// The program at work on one tensor.
class Merge {
  public:
    Merge(const Program& given, const Tensor& of)
        : program(given), tensor(of), pieces(given.experts), terms(given.experts) {
        memory.resize(static_cast<size_t>(4 + 2 * given.experts) * STRIDE);
        void* data = memory.data();
        size_t space = memory.size() * sizeof(float);
        base = static_cast<float*>(std::align(64, space - 64, data, space));
        dtype = tensor.base_dtype == FLOAT16 ? MIXED : tensor.base_dtype;
        in_place = tensor.base_dtype == tensor.stored && tensor.stored == tensor.out_dtype;
        choice = program.experts ? choice_of(program.keeps[0]) : ALL;
        for (int t = 0; t < program.experts; ++t) {
            const Keep& keep = program.keeps[t];
            if (choice_of(keep) != choice) choice = MIXED;
            if (keep.dtype != dtype) dtype = MIXED;
            if (choice == RANKED && !by_ranks(keep)) dtype = MIXED;
            for (const Cut& cut : {keep.above, keep.below}) narrow |= cut.value && cut.width < NARROW;
        }
        if (choice == MIXED) dtype = MIXED;
    }

    // Merges the elements first to last - 1; whether what is stored is finite.
    bool run(int64_t first, int64_t last) {
        bool finite = true;
        while (first < last) {
            const int64_t border = std::min(last, ((first >> 32) + 1) << 32);  // beyond it the keys are others
            const int64_t alike = std::min(border, change(first)) - first;
            if (dtype != MIXED && alike >= GROUP) {
                const int64_t count = in_place ? alike : std::min<int64_t>(alike, BLOCK);
                finite &= run_direct(first, count - count % GROUP);
                first += count - count % GROUP;
                continue;
            }
            const bool one_rule = choice != MIXED && alike >= std::min<int64_t>(BLOCK, border - first);
            const int most = one_rule || dtype == MIXED || narrow ? BLOCK : GROUP;
            const int count = static_cast<int>(std::min<int64_t>(most, border - first));
            finite &= run_converted(first, count, one_rule ? choice : RANKED);  // chances can say what all rules say
            first += count;
        }
        return finite;
    }

  private:
    float* result() const { return base + STRIDE; }
    float* spare() const { return base + 2 * STRIDE; }
    float* expert(int t) const { return base + static_cast<ptrdiff_t>(3 + 2 * t) * STRIDE; }
    float* chances(int t) const { return expert(t) + STRIDE; }

    static bool by_ranks(const Keep& keep) { return keep.ranks && keep.rank_bytes == 2 && !cuts(keep); }

    // Merges whole groups from the models as they are, at most a block of them if the result is of another type.
    bool run_direct(int64_t at, int64_t count) {
        Stretch models = direct(at, count);
        if (!in_place) models.out = result(), models.apart = BLOCK / 2;
        const int32_t worst = dtype == BFLOAT16 ? merge_of<Bfloat16>(choice, program.join, models)
                                                : merge_of<float>(choice, program.join, models);
        if (in_place) return worst < static_cast<int32_t>(INFINITE);
        if (dtype == FLOAT32) return store_floats(result(), at, count);
        for (int64_t i = 0; i < count / 2; ++i) {
            spare()[2 * i] = result()[i];
            spare()[2 * i + 1] = result()[BLOCK / 2 + i];
        }
        return store_floats(spare(), at, count);
    }

    bool run_converted(int64_t at, int count, int by) {
        merge_of<float>(by, program.join, converted(at, count, by));
        return store_floats(result(), at, count);
    }

    bool store_floats(const float* values, int64_t at, int64_t count) const {
        return store(values, static_cast<int>(count), tensor.stored, tensor.out, tensor.out_dtype, at, as_it_is);
    }

    // The first element after `at` for which an expert has another rule.
    int64_t change(int64_t at) const {
        int64_t end = INT64_MAX;
        for (int t = 0; t < program.experts; ++t) {
            const Keep& keep = program.keeps[t];
            end = std::min({end, run_of(keep.above, at, 0).end, run_of(keep.below, at, 0).end});
        }
        return end;
    }

    // The rules that hold at an element, and the loop's arguments but for where numbers lie.
    Stretch stretch(int64_t at, int64_t count) {
        for (int t = 0; t < program.experts; ++t) {
            const Keep& keep = program.keeps[t];
            const int64_t above = run_of(keep.above, at, -1).threshold;
            const int64_t below = run_of(keep.below, at, INT32_MAX).threshold;
            Piece& piece = pieces[t];
            piece.least = static_cast<uint32_t>(above + 1);
            piece.span = static_cast<uint32_t>(std::max<int64_t>(below - above, 0));
            piece.limit = limit_of(keep);
            piece.k0 = static_cast<uint32_t>(keep.key >> 32);
            piece.k1 = second_key(keep, at);
            piece.factor = keep.factor, piece.weight = keep.weight;
            piece.lowest = keep.lowest, piece.step = keep.step;
            piece.scaled = keep.factor != 1.0f, piece.rescale = keep.rescale;
        }
        return {nullptr, nullptr, 0, pieces.data(), terms.data(), program.experts, program.scale, program.divisor,
                static_cast<uint32_t>(at), count};
    }

    // A stretch that reads the models as they are.
    Stretch direct(int64_t at, int64_t count) {
        Stretch made = stretch(at, count);
        const int64_t skipped = at * (dtype == BFLOAT16 ? 2 : 4);
        for (int t = 0; t < program.experts; ++t) {
            const Keep& keep = program.keeps[t];
            pieces[t].expert = static_cast<const char*>(keep.expert) + skipped;
            pieces[t].ranks = by_ranks(keep) ? static_cast<const uint16_t*>(keep.ranks) + at : nullptr;
        }
        made.base = static_cast<const char*>(tensor.base) + skipped;
        made.out = static_cast<char*>(tensor.out) + skipped;
        return made;
    }

    // A stretch of float32 copies, in whole groups: what follows the last element is computed and not used.
    Stretch converted(int64_t at, int count, int by) {
        Stretch made = stretch(at, (count + GROUP - 1) / GROUP * GROUP);
        load(tensor.base, tensor.base_dtype, at, count, base);
        for (int t = 0; t < program.experts; ++t) {
            const Keep& keep = program.keeps[t];
            load(keep.expert, keep.dtype, at, count, expert(t));
            pieces[t].expert = expert(t);
            if (by != RANKED) continue;
            const bool ranked = by_ranks(keep) && count % GROUP == 0;
            pieces[t].ranks = ranked ? static_cast<const uint16_t*>(keep.ranks) + at : nullptr;
            pieces[t].chances = chances(t);
            if (cuts(keep)) load_delta(keep.expert, keep.dtype, at, count, base, spare());
            if (!ranked) load_chances(keep, spare(), at, count, chances(t));
        }
        made.base = base;
        made.out = result();
        return made;
    }

    const Program& program;
    const Tensor tensor;
    std::vector<Piece> pieces;
    std::vector<Pair> terms;
    std::vector<float> memory;
    float* base;
    int32_t dtype, choice;  // of all models and experts, or MIXED
    bool in_place, narrow = false;
};

}  // namespace

// Executes a program on the elements first to last - 1 and says whether what is stored is finite.
extern "C" int32_t mergesearch_run(const Program* program, const void* base, int32_t base_dtype, void* out,
                                   int32_t out_dtype, int32_t stored, int64_t first, int64_t last) {
    return Merge(*program, {base, out, base_dtype, out_dtype, stored}).run(first, last);
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
        finite &= store(total, size, stored, out, out_dtype, at, as_it_is);
        at += size;
    }
    return finite;
}
