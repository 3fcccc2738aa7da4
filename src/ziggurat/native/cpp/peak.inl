// What an instruction set's multipliers reach when nothing waits for memory: the roof that measurements are held against.

namespace ziggurat {
namespace {

// `rounds` times one product in each of these chains, all in registers. `product` takes the chain's last value as a factor
// too: of products that do not depend on it, the compiler would make one before the loop.
template <class S, class Product> double chained(int rounds, float* memory, const Product& product) {
    // More than the units have under way at once; AVX-512 has 32 registers, the others 16.
    constexpr int CHAINS = S::WIDTH == 16 ? 24 : 12;
    typename S::F chains[CHAINS];
    const auto factor = S::load(memory);
#pragma GCC unroll 24  // everywhere: an array with a variable index would be written to memory
    for (int i = 0; i < CHAINS; ++i) chains[i] = S::add(factor, S::set(static_cast<float>(i + 1)));
#pragma GCC unroll 1
    for (int round = 0; round < rounds; ++round)
#pragma GCC unroll 24
        for (int i = 0; i < CHAINS; ++i) chains[i] = product(chains[i], factor);
    auto sum = S::zero();
#pragma GCC unroll 24
    for (int i = 0; i < CHAINS; ++i) sum = S::add(sum, chains[i]);
    S::store(memory, sum);
    return static_cast<double>(rounds) * CHAINS * S::WIDTH;
}

// → operations, multiplications and additions. `memory`: 16 zeros, which nobody tells the compiler; with them all chains
// keep their values, and none overflows.
template <class S> double peak(Dtype dtype, int rounds, float* memory) {
    using F = typename S::F;
    if (dtype == Dtype::i8) {
        constexpr int CODES = 4 / sizeof(typename S::Code);  // in a word
        return 2 * CODES * chained<S>(rounds, memory, [](F a, F b) {
                   return S::as_float(S::dot(S::as_int(a), S::as_int(a), S::as_int(b)));
               });
    }
    if constexpr (S::HAS_DOT_BF16)
        if (dtype == Dtype::bf16)
            return 4 * chained<S>(rounds, memory, [](F a, F b) { return S::dot_bf16(a, S::as_int(a), S::as_int(b)); });
    return 2 * chained<S>(rounds, memory, [](F a, F b) { return S::fma(a, b, a); });
}

}  // namespace
}  // namespace ziggurat
