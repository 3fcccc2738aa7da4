// numpy arrays in and out, checked.
#pragma once

#include <initializer_list>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "aligned.h"
#include "numbers.h"
#include "pass.h"

namespace ziggurat {

template <class T> using In = Aligned<const T, nb::c_contig, nb::device::cpu>;
template <class T> using Out = nb::ndarray<nb::numpy, T>;

// A new array that Python owns, every entry `value`.
template <class T> Out<T> filled(std::initializer_list<size_t> shape, T value) {
    size_t n = 1;
    for (const size_t size : shape) n *= size;
    auto memory = std::make_unique<T[]>(n ? n : 1);
    std::fill_n(memory.get(), n, value);
    T* data = memory.get();
    nb::capsule owner(memory.release(), [](void* p) noexcept { delete[] static_cast<T*>(p); });
    return Out<T>(data, shape.size(), shape.begin(), owner);
}

inline void refuse(bool wrong, const std::string& what) {
    if (wrong) throw std::invalid_argument(what);
}

// Where nothing is wrong this makes no string: it is asked for every token.
inline void refuse(bool wrong, const char* what) {
    if (wrong) throw std::invalid_argument(what);
}

// (n, columns), where n may be anything and -1 columns too.
template <class T> int matrix_rows(const In<T>& array, int64_t columns, const char* name) {
    refuse(array.ndim() != 2 || (columns >= 0 && static_cast<int64_t>(array.shape(1)) != columns),
           std::string(name) + ": must have two axes, the second of " + std::to_string(columns));
    refuse(array.shape(0) > (1U << 30), std::string(name) + ": too many rows");
    return static_cast<int>(array.shape(0));
}

template <class T> void check_length(const In<T>& array, int64_t n, const char* name) {
    refuse(array.ndim() != 1 || static_cast<int64_t>(array.shape(0)) != n,
           std::string(name) + ": must have one axis of " + std::to_string(n));
}

// All numbers of an array, in their order. Other threads may write into a caller's array at any time: what nothing checks
// again is copied first, and checked then.
inline std::vector<int64_t> copy_of(const In<int64_t>& array) { return {array.data(), array.data() + array.size()}; }

// cu_seqlens (n_seqs + 1) of n tokens, or whatever else parts n things in order: from 0 to n, at least one in each part.
inline Edges edges_of(const In<int64_t>& given, int n, const std::string& name = "cu_seqlens",
                      const std::string& thing = "token") {
    refuse(given.ndim() != 1 || given.shape(0) < 2, name + ": must have one axis of at least 2");
    const std::vector<int64_t> edges = copy_of(given);
    refuse(edges.front() != 0 || edges.back() != n, name + ": must go from 0 to the number of " + thing + "s");
    for (size_t i = 1; i < edges.size(); ++i)
        if (edges[i] <= edges[i - 1] || edges[i] > n)
            refuse(true, name + ": no part may be empty, each needs at least one " + thing);
    return {edges.begin(), edges.end()};
}

// cu_seqlens (n_texts + 1) of n tokens, a copy: from 0 to n, never falling. A text may be empty.
inline std::vector<int64_t> check_texts(const In<int64_t>& cu_seqlens, int n_tokens) {
    refuse(cu_seqlens.ndim() != 1 || cu_seqlens.shape(0) < 1, "cu_seqlens: must have one axis of at least 1");
    std::vector<int64_t> edges = copy_of(cu_seqlens);
    refuse(edges.front() != 0 || edges.back() != n_tokens, "cu_seqlens: must go from 0 to the number of tokens");
    for (size_t i = 1; i < edges.size(); ++i) refuse(edges[i] < edges[i - 1], "cu_seqlens: must not fall");
    return edges;
}

// Every number in [0, limit).
inline void check_range(const int64_t* numbers, int64_t n, int64_t step, int64_t limit, const char* name) {
    for (int64_t i = 0; i < n; ++i) checked(numbers + i * step, limit, name);
}

}  // namespace ziggurat
