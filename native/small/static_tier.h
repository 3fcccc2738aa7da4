// The static tier: hashed n-grams of word pieces and words select rows of a table of integers, whose sum gives the
// logits. The n-grams are defined by the Python specification (`ngrams.py`, `static_tier.py`), which computes the same
// bits.
#pragma once

#include <cstdint>
#include <vector>

namespace ziggurat {

enum class Piece : uint8_t { starts, continues, special };  // role of a vocabulary entry in a word

// A tier; the arrays are Python's, nothing is copied.
struct StaticTable {
    const int16_t* weights;  // (2^bits, n_classes)
    int bits;                // 1 … 30
    int n_classes;
    const float *scales, *bias;  // (n_classes)
    const Piece* kinds;          // (vocabulary)
    int64_t vocabulary;
};

// Reads texts, and holds the rows of the features of the latest one.
class StaticReader {
  public:
    StaticReader(const StaticTable& table, int64_t longest) : table_(table), rows_(FEATURES_PER_TOKEN * longest) {}

    // Tokens and segments (n_tokens, 2). Starts to load the rows into the cache. Throws std::invalid_argument for a
    // number that is no token or segment.
    void read(const int64_t* tokens, int64_t n_tokens);

    int64_t count() const { return count_; }
    uint32_t row(int64_t i) const { return rows_[i]; }
    const uint32_t* rows() const { return rows_.data(); }

  private:
    static constexpr int FEATURES_PER_TOKEN = 4;  // at most: the piece, the word, and both with their left neighbours

    // The word whose pieces are being read.
    struct Word {
        uint64_t code = 0;
        bool open = false, several = false;  // has pieces; has several pieces
    };

    void add(uint64_t hash);
    void end_word(Word& word, Word& before);

    const StaticTable& table_;
    std::vector<uint32_t> rows_;
    int64_t count_ = 0;
};

// Tokens and segments (n_tokens, 2) of packed texts with edges (n_texts + 1) → logits (n_texts, n_classes). Throws
// std::invalid_argument for a number that is no token or segment.
void static_logits(const StaticTable& table, const int64_t* tokens, const int64_t* edges, int64_t n_texts,
                   float* logits);

}  // namespace ziggurat
