// The static tier: rows of a table of whole numbers, chosen by hashed n-grams of word pieces and of words, summed. What
// exactly is read of a text is said in encoder/ngrams.py, the specification, which gives the same bits.
#pragma once

#include <cstdint>
#include <vector>

namespace ziggurat {

enum class Piece : uint8_t { starts, continues, special };  // what a vocabulary entry is to a word

// A tier as Python holds it: nothing is copied.
struct StaticTable {
    const int16_t* weights;  // (2^bits, n_classes)
    int bits;                // 1 … 30
    int n_classes;
    const float *scales, *bias;  // (n_classes)
    const Piece* kinds;          // (vocabulary)
    int64_t vocabulary;
};

// The rows of one text's features.
class StaticReader {
  public:
    StaticReader(const StaticTable& table, int64_t longest) : table_(table), rows_(FEATURES_PER_TOKEN * longest) {}

    // Tokens and segments (n_tokens, 2); rows are on their way to the cache when this returns. Throws std::invalid_argument
    // for what is no token or segment.
    void read(const int64_t* tokens, int64_t n_tokens);

    int64_t count() const { return count_; }
    uint32_t row(int64_t i) const { return rows_[i]; }
    const uint32_t* rows() const { return rows_.data(); }

  private:
    static constexpr int FEATURES_PER_TOKEN = 4;  // at most: the piece, the word, and each with its left neighbour

    // The word that is being read.
    struct Word {
        uint64_t code = 0;
        bool open = false, several = false;  // has pieces; has more than one
    };

    void add(uint64_t hash);
    void end_word(Word& word, Word& before);

    const StaticTable& table_;
    std::vector<uint32_t> rows_;
    int64_t count_ = 0;
};

// What the tier says of n_texts texts, one behind another in `tokens`: edges (n_texts + 1) → logits (n_texts, n_classes).
// Throws std::invalid_argument for what is no token or segment.
void static_logits(const StaticTable& table, const int64_t* tokens, const int64_t* edges, int64_t n_texts,
                   float* logits);

}  // namespace ziggurat
