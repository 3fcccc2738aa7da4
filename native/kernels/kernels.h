// The operations of a forward pass: a table of functions per instruction set. Callers know no vector width and no
// layout.
//
// Every result for a row depends on that row alone. Each output is one chain of additions over the inputs in their
// order, however many rows are computed together and whichever thread computes them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/memory.h"

namespace ziggurat {

enum class Dtype : uint8_t { f32, bf16, i8 };

// Rows of floats: row i starts at data + stride * (index ? index[i] : i).
struct Rows {
    const float* data;
    ptrdiff_t stride;
    const int32_t* index;
    int n;

    const float* operator[](int i) const { return data + stride * (index ? index[i] : i); }
};

// The weights of a linear map y = W x + b, in the order in which the `multiply` of an instruction set reads them.
struct Packed {
    int in = 0;
    int out = 0;
    int panel = 0;  // columns of y that are computed together; a range of columns begins and ends at a multiple
    Dtype dtype = Dtype::f32;
    Buffer weights;
    std::vector<float> bias;    // (out, rounded up to panels)
    std::vector<float> scales;  // i8: (out, rounded up), weight = scale * code
    std::vector<int32_t> sums;  // i8: (out, rounded up), the value that each sum of products starts from
};

enum class Finish : uint8_t { none, gelu, gelu_tanh, tanh, relu };

// LayerNorm: (x - mean) / sqrt(variance + epsilon) * gain + shift.
struct Norm {
    const float* gain;
    const float* shift;
    float epsilon;
};

// Tokens from … to - 1.
struct Span {
    int32_t from, to;

    int size() const { return to - from; }
};

// The attention of one sequence.
struct Attention {
    const float* qkv;  // row i: queries of all heads, then keys, then values; (n, 3 * heads * width)
    ptrdiff_t stride;  // floats from row to row
    int n;             // tokens
    int heads;
    int width;         // of a head
    const Span* seen;  // (n): the tokens that each query sees; both ends never decrease. Null: all
};

struct Kernels {
    const char* name;  // "scalar", "avx2", "avx512"

    // W (out, in) row-major, b (out) or null → packed. i8: symmetric codes, rounded half to even, and a scale per row
    // of W (largest absolute value / 127, 1 for a row of zeros). bf16: rounded to nearest even.
    Packed (*pack)(const float* weight, const float* bias, int out, int in, Dtype dtype);

    // Bytes that `prepare` writes for this number of rows.
    size_t (*operand_size)(const Packed& weights, int rows);

    // Gathers rows (n, in) and converts them into the form that `multiply` reads. i8: symmetric codes, a scale per row.
    // `operand` is 64-byte aligned.
    void (*prepare)(const Packed& weights, Rows rows, void* operand);

    // y[i, from … to) = finish(W x_i + b) for all prepared rows; y has `stride` floats from row to row, y points at
    // column 0. `from` is a multiple of panel, and so is `to` unless it is `out`. Never writes beyond column `to`.
    void (*multiply)(const Packed& weights, const void* operand, int rows, int from, int to, Finish finish, float* y,
                     ptrdiff_t stride);

    // y[i] = finish(y[i]) in place, for `rows` rows of `columns` columns.
    void (*finish)(Finish how, float* y, ptrdiff_t stride, int rows, int columns);

    // y[i] = norm(y[i] + residual[i]) in place, d columns; `residual.data` null: of y alone.
    void (*add_norm)(float* y, ptrdiff_t stride, Rows residual, int rows, int d, const Norm& norm);

    // y[i] = norm(word[i] + position[i] + segment[i]), d columns.
    void (*embed)(Rows word, Rows position, Rows segment, int d, const Norm& norm, float* y, ptrdiff_t stride);

    // Rotary positions, in place. Each row holds `heads` heads of this (even) width side by side. Columns j and width /
    // 2 + j of a head are rotated by the angle whose cosine and sine are columns j and width / 2 + j of the row's
    // table.
    void (*rotate)(float* x, ptrdiff_t stride, Rows table, int heads, int width);

    // y[i, j] = finish(y[i, j]) * y[i, columns + j] in place: the product of a gated feed-forward layer.
    void (*gate)(Finish how, float* y, ptrdiff_t stride, int rows, int columns);

    // Bytes of scratch that `attend` and `attend_first` need for sequences of up to n tokens and heads of this width.
    size_t (*attend_scratch)(int n, int width);

    // Softmax attention of head `head` within one sequence: context[i * context_stride + head * width + …] for its n
    // tokens, unless `context` is null. Unless `received` is null: received[j] = Σ over queries of the probability with
    // which they attend to token j, without the query of token j itself if `from_others`. With `seen`, each probability
    // is multiplied by the number of tokens that its query sees. Queries are added in their order.
    void (*attend)(const Attention& sequence, int head, float* context, ptrdiff_t context_stride, float* received,
                   bool from_others, void* scratch);

    // The same for one query that is not among the rows: query (heads * width), keys and values side by side in rows of
    // `stride` floats, (n, 2 * heads * width) → context (heads * width).
    void (*attend_first)(const float* query, const float* key_value, ptrdiff_t stride, int n, int heads, int width,
                         float* context, void* scratch);

    // For measurements: `rounds` times some products of vectors, in registers only → the number of additions and
    // multiplications. `memory` holds 16 zeros and is written to.
    double (*peak)(Dtype dtype, int rounds, float* memory);
};

// The instruction sets that this processor can run, the fastest first. "scalar" is always there, and last.
const std::vector<const Kernels*>& kernels();

}  // namespace ziggurat
