// The kernels of one instruction set. Its file includes this once, after the struct with its instructions.

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace ziggurat {
namespace {

template <int N> struct Number {
    static constexpr int value = N;
};

// How many of `remaining` to take at once, at most `most`, so that the pieces are about equal: 20 in pieces of up to 6
// are four fives and not three sixes and a two, because the processor waits in short pieces.
inline int even_share(int remaining, int most) {
    const int pieces = (remaining + most - 1) / most;
    return (remaining + pieces - 1) / pieces;
}

}  // namespace
}  // namespace ziggurat

#include "kernels/math.inl"
#include "kernels/products.inl"
#include "kernels/linear.inl"
#include "kernels/attention.inl"

namespace ziggurat {
namespace {

template <bool, class A, class B> struct Either {
    using type = A;
};
template <class A, class B> struct Either<false, A, B> {
    using type = B;
};

template <class S> struct Set {
    using F32 = Linear<S, FloatProduct<S>>;
    using Bf16 = Linear<S, typename Either<S::HAS_DOT_BF16, PairProduct<S>, WideProduct<S>>::type>;
    using I8 = Linear<S, CodeProduct<S>>;

    static size_t operand_size(const Packed& weights, int rows) {
        if (weights.dtype == Dtype::f32) return F32::operand_size(weights, rows);
        if (weights.dtype == Dtype::bf16) return Bf16::operand_size(weights, rows);
        return I8::operand_size(weights, rows);
    }

    static void prepare(const Packed& weights, Rows rows, void* operand) {
        if (weights.dtype == Dtype::f32) return F32::prepare(weights, rows, operand);
        if (weights.dtype == Dtype::bf16) return Bf16::prepare(weights, rows, operand);
        return I8::prepare(weights, rows, operand);
    }

    static void multiply(const Packed& weights, const void* operand, int rows, int from, int to, Finish how, float* y,
                         ptrdiff_t stride) {
        if (weights.dtype == Dtype::f32) return F32::multiply(weights, operand, rows, from, to, how, y, stride);
        if (weights.dtype == Dtype::bf16) return Bf16::multiply(weights, operand, rows, from, to, how, y, stride);
        return I8::multiply(weights, operand, rows, from, to, how, y, stride);
    }

    static constexpr Kernels table(const char* name, decltype(Kernels::pack) pack) {
        return {name,
                pack,
                operand_size,
                prepare,
                multiply,
                ziggurat::finish<S>,
                add_norm<S>,
                embed<S>,
                rotate<S>,
                gate<S>,
                Attend<S>::scratch,
                Attend<S>::attend,
                Attend<S>::attend_first,
                peak<S>};
    }
};

}  // namespace
}  // namespace ziggurat
