#include "small/static_tier.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "small/checked.h"

namespace ziggurat {

namespace {

constexpr uint64_t GOLDEN = 0x9E3779B97F4A7C15, PI = 0x243F6A8885A308D3, E = 0xB7E151628AED2A6B;

// A hash; its upper bits are the good ones.
inline uint64_t mixed(uint64_t number) {
    const uint64_t spread = number * GOLDEN;
    return (spread ^ (spread >> 32)) * PI;
}

inline void fetch(const void* address) {
#if defined(__GNUC__)
    __builtin_prefetch(address);
#else
    (void)address;
#endif
}

constexpr int64_t SEGMENTS = int64_t{1} << 31;
constexpr int64_t BLOCK = 1 << 15;  // the sum of this number of rows fits 32 bits

// Adds the rows to `sums` (n_classes). N is known when this is compiled, so the sums stay in registers.
template <int N> void add_rows(const StaticTable& table, const uint32_t* rows, int64_t n, int64_t* sums) {
    for (int64_t start = 0; start < n; start += BLOCK) {
        int32_t block[N] = {};
        for (int64_t i = start; i < std::min(n, start + BLOCK); ++i) {
            const int16_t* row = table.weights + static_cast<size_t>(rows[i]) * N;
            for (int c = 0; c < N; ++c) block[c] += row[c];
        }
        for (int c = 0; c < N; ++c) sums[c] += block[c];
    }
}

void add_rows_of_any_width(const StaticTable& table, const uint32_t* rows, int64_t n, int64_t* sums) {
    const int width = table.n_classes;
    for (int64_t i = 0; i < n; ++i) {
        const int16_t* row = table.weights + static_cast<size_t>(rows[i]) * width;
        for (int c = 0; c < width; ++c) sums[c] += row[c];
    }
}

using AddRows = void (*)(const StaticTable&, const uint32_t*, int64_t, int64_t*);

AddRows add_rows_for(int n_classes) {
    switch (n_classes) {
        case 2:
            return add_rows<2>;
        case 3:
            return add_rows<3>;
        case 4:
            return add_rows<4>;
        case 5:
            return add_rows<5>;
        case 6:
            return add_rows<6>;
        default:
            return add_rows_of_any_width;
    }
}

// In the order and precision of the specification, so that every bit is the same.
void finish(const StaticTable& table, const int64_t* sums, int64_t count, float* logits) {
    const double divisor = std::sqrt(static_cast<double>(std::max<int64_t>(count, 1)));
    for (int c = 0; c < table.n_classes; ++c) {
        const double total = static_cast<double>(sums[c]) * static_cast<double>(table.scales[c]);
        logits[c] = static_cast<float>(total / divisor + static_cast<double>(table.bias[c]));
    }
}

}  // namespace

inline void StaticReader::add(uint64_t hash) {
    const auto row = static_cast<uint32_t>(hash >> (64 - table_.bits));
    fetch(table_.weights + static_cast<size_t>(row) * table_.n_classes);
    rows_[count_++] = row;
}

inline void StaticReader::end_word(Word& word, Word& before) {
    if (!word.open) return;
    const uint64_t hash = mixed(word.code);
    if (word.several) add(hash);
    if (before.open && (word.several || before.several)) add(mixed(before.code + word.code));
    before = {hash, true, word.several};  // of a finished word only the hash is needed
    word = {};
}

void StaticReader::read(const int64_t* tokens, int64_t n_tokens) {
    count_ = 0;
    Word word, before;
    bool no_neighbour = true;  // the piece has no left neighbour
    uint64_t left = 0;         // hash of the left neighbour
    int64_t segment = 0;
    for (int64_t i = 0; i < n_tokens; ++i) {
        const int64_t id = checked(tokens + 2 * i, table_.vocabulary, "token id");
        const int64_t token_segment = checked(tokens + 2 * i + 1, SEGMENTS, "segment id");
        const Piece kind = table_.kinds[id];
        if (kind == Piece::special) {
            no_neighbour = true;
            continue;
        }
        no_neighbour = no_neighbour || token_segment != segment;
        segment = token_segment;
        const uint64_t piece = (static_cast<uint64_t>(segment) << 32) + static_cast<uint64_t>(id);
        const uint64_t hash = mixed(piece);
        add(hash);
        if (!no_neighbour) add(mixed(left + piece));
        if (no_neighbour || kind != Piece::continues) {
            end_word(word, before);
            if (no_neighbour) before = {};
            word = {piece + E, true, false};
        } else {
            word = {mixed(word.code) + piece, true, true};
        }
        left = hash;
        no_neighbour = false;
    }
    end_word(word, before);
}

void static_logits(const StaticTable& table, const int64_t* tokens, const int64_t* edges, int64_t n_texts,
                   float* logits) {
    int64_t longest = 0;
    for (int64_t i = 0; i < n_texts; ++i) longest = std::max(longest, edges[i + 1] - edges[i]);
    // Reads the next text while the rows of the current one are loaded from memory.
    StaticReader first(table, longest), second(table, longest);
    StaticReader *current = &first, *next = &second;
    std::vector<int64_t> sums(table.n_classes);
    const AddRows add_rows = add_rows_for(table.n_classes);
    if (n_texts) current->read(tokens, edges[1]);
    for (int64_t i = 0; i < n_texts; ++i) {
        if (i + 1 < n_texts) next->read(tokens + 2 * edges[i + 1], edges[i + 2] - edges[i + 1]);
        std::fill(sums.begin(), sums.end(), 0);
        add_rows(table, current->rows(), current->count(), sums.data());
        finish(table, sums.data(), current->count(), logits + i * table.n_classes);
        std::swap(current, next);
    }
}

}  // namespace ziggurat
