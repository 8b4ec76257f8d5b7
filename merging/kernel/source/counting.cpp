// The passes that selections are made of: counts of magnitudes, places of equal ones, k-th largest and ranks of rows.

#include <vector>

#include "selection.h"

namespace {

constexpr int BLOCK = 2048;  // elements; also what is summed as one by `mergesearch_block_sums`

constexpr uint32_t NOT_A_NUMBER = 0x7fc00000u;  // what all NaN count as: which one results is the compiler's choice

struct Pair {
    const void *base, *expert;
    int32_t base_dtype, expert_dtype;
};

void load_deltas(const Pair& pair, int64_t first, int count, float* delta) {
    float start[BLOCK];
    load(pair.base, pair.base_dtype, first, count, start);
    load_delta(pair.expert, pair.expert_dtype, first, count, start, delta);
}

void load_magnitudes(const Pair& pair, int64_t first, int64_t count, uint32_t* into) {
    float delta[BLOCK];
    for (int64_t done = 0; done < count; done += BLOCK) {
        const int size = static_cast<int>(std::min<int64_t>(BLOCK, count - done));
        load_deltas(pair, first + done, size, delta);
        for (int i = 0; i < size; ++i) into[done + i] = std::min(bits_of(delta[i]) & MAGNITUDE, NOT_A_NUMBER);
    }
}

// How many of the values equal one.
int64_t equal_to(const uint32_t* __restrict values, int64_t count, uint32_t wanted) {
    int64_t found = 0;
    for (int64_t i = 0; i < count; ++i) found += values[i] == wanted;
    return found;
}

// The index of the nth (from 1) value that equals `wanted`, or -1.
int64_t nth_equal(const uint32_t* values, int64_t count, uint32_t wanted, int64_t nth) {
    for (int64_t i = 0; i < count; ++i) {
        if (values[i] == wanted && --nth == 0) return i;
    }
    return -1;
}

struct Item {
    uint32_t bits;
    int32_t index;
};

// Sorts items by their bits, stable: four passes of counting, those skipped in which all items are alike.
void radix_sort(std::vector<Item>& items, std::vector<Item>& scratch) {
    for (int shift = 0; shift < 32; shift += 8) {
        int64_t places[257] = {0};
        for (const Item& item : items) ++places[(item.bits >> shift & 255u) + 1];
        if (*std::max_element(places, places + 257) == static_cast<int64_t>(items.size())) continue;
        for (int digit = 0; digit < 256; ++digit) places[digit + 1] += places[digit];
        for (const Item& item : items) scratch[places[item.bits >> shift & 255u]++] = item;
        items.swap(scratch);
    }
}

}  // namespace

// Adds to table: counts of the upper bits, or (prefix >= 0) of the lower bits where the upper ones are the prefix.
extern "C" void mergesearch_tally(const Pair* pair, int64_t first, int64_t last, int32_t shift, int64_t prefix,
                                  int64_t* table) {
    constexpr int GROUP = 32;
    uint32_t bits[BLOCK];
    const uint32_t lower = (1u << shift) - 1, wanted = static_cast<uint32_t>(prefix);
    for (int64_t at = first; at < last; at += BLOCK) {
        const int count = static_cast<int>(std::min<int64_t>(BLOCK, last - at));
        load_magnitudes(*pair, at, count, bits);
        if (prefix < 0) {
            for (int i = 0; i < count; ++i) ++table[bits[i] >> shift];
            continue;
        }
        for (int group = 0; group < count; group += GROUP) {  // members are rare: look at many at a time
            const int end = std::min(group + GROUP, count);
            uint32_t any = 0;
            for (int i = group; i < end; ++i) any |= bits[i] >> shift == wanted;
            for (int i = group; any && i < end; ++i) {
                if (bits[i] >> shift == wanted) ++table[bits[i] & lower];
            }
        }
    }
}

// The index of the nth (from 1) element whose magnitude has these bits; -1 if there are fewer.
extern "C" int64_t mergesearch_place(const Pair* pair, int64_t size, uint32_t pattern, int64_t nth) {
    uint32_t bits[BLOCK];
    for (int64_t at = 0; at < size; at += BLOCK) {
        const int64_t count = std::min<int64_t>(BLOCK, size - at), found = (load_magnitudes(*pair, at, count, bits),
                                                                          equal_to(bits, count, pattern));
        if (found >= nth) return at + nth_equal(bits, count, pattern, nth);
        nth -= found;
    }
    return -1;
}

// For each row: the magnitude of the count-th largest element, and the last index of its equals among the largest; the
// row's last index if they all are.
extern "C" void mergesearch_row_cuts(const Pair* pair, int64_t first_row, int64_t last_row, int64_t width,
                                     int64_t count, int32_t* values, int64_t* indices) {
    std::vector<uint32_t> bits(width), order(width);
    for (int64_t row = first_row; row < last_row; ++row) {
        load_magnitudes(*pair, row * width, width, bits.data());
        order = bits;
        std::nth_element(order.begin(), order.begin() + (count - 1), order.end(), std::greater<uint32_t>());
        const uint32_t value = order[count - 1];
        // all that is larger stands before it, so what is left of the count are its equals
        const int64_t missing = equal_to(order.data(), count, value);
        const bool all = missing == equal_to(bits.data(), width, value);
        values[row] = static_cast<int32_t>(value);
        indices[row] = all ? width - 1 : nth_equal(bits.data(), width, value, missing);
    }
}

// The rank of each magnitude in its row, ascending, equal ones by index; as uint16 or int32.
extern "C" void mergesearch_ranks(const Pair* pair, int64_t first_row, int64_t last_row, int64_t width,
                                  int32_t rank_bytes, void* ranks) {
    std::vector<uint32_t> bits(width);
    std::vector<Item> items(width), scratch(width);
    for (int64_t row = first_row; row < last_row; ++row) {
        load_magnitudes(*pair, row * width, width, bits.data());
        for (int64_t i = 0; i < width; ++i) items[i] = {bits[i], static_cast<int32_t>(i)};
        radix_sort(items, scratch);
        for (int64_t i = 0; i < width; ++i) {
            const int64_t at = row * width + items[i].index;
            if (rank_bytes == 2) {
                static_cast<uint16_t*>(ranks)[at] = static_cast<uint16_t>(i);
            } else {
                static_cast<int32_t*>(ranks)[at] = static_cast<int32_t>(i);
            }
        }
    }
}

// sums[0][b], sums[1][b]: the magnitudes of block b of all elements and of the kept ones, added by halves in float64.
extern "C" void mergesearch_block_sums(const Keep* keep, const Pair* pair, int64_t size, int64_t first, int64_t last,
                                       double* sums) {
    float delta[BLOCK], chances[BLOCK];
    double added[2][BLOCK];
    const int64_t blocks = (size + BLOCK - 1) / BLOCK;
    for (int64_t at = first; at < last; at += BLOCK) {
        const int count = static_cast<int>(std::min<int64_t>(BLOCK, last - at));
        load_deltas(*pair, at, count, delta);
        if (choice_of(*keep) == RANKED) load_chances(*keep, delta, at, count, chances);
        std::fill_n(added[0], 2 * BLOCK, 0.0);
        with_choice(choice_of(*keep), [&](auto choice) {
            for_runs(*keep, at, count, [&](const Selector& select, int from, int to) {
                for (int i = from; i < to; ++i) {
                    const bool kept = select.keeps<choice>(delta[i], i, chances);
                    added[0][i] = std::fabs(static_cast<double>(delta[i]));
                    added[1][i] = std::fabs(static_cast<double>(delta[i] * (kept ? 1.0f : 0.0f)));
                }
            });
        });
        for (auto& side : added) {
            for (int half = BLOCK / 2; half > 0; half /= 2) {
                for (int i = 0; i < half; ++i) side[i] += side[i + half];
            }
        }
        sums[at / BLOCK] = added[0][0];
        sums[blocks + at / BLOCK] = added[1][0];
    }
}
