// numpy arrays in and out, checked.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "engine/pass.h"
#include "small/checked.h"

namespace ziggurat {

namespace nb = nanobind;

// Like nb::ndarray, but refuses arrays that are not aligned for their type (views of bytes), because compilers rely on
// alignment. Python gets a TypeError.
template <class... Kind> struct Aligned : nb::ndarray<Kind...> {
    using Plain = nb::ndarray<Kind...>;

    Aligned() = default;
    Aligned(const Plain& array) : Plain(array) {}  // NOLINT: implicit on purpose
};

// An argument that is never converted: a float array is no array of token ids.
inline auto exact(const char* name) { return nb::arg(name).noconvert(); }

}  // namespace ziggurat

namespace nanobind::detail {

template <class... Kind> struct type_caster<ziggurat::Aligned<Kind...>> {
    using Plain = typename ziggurat::Aligned<Kind...>::Plain;

    // Short, for signatures and stubs: docstrings give shapes, and all arrays are C-contiguous.
    NB_TYPE_CASTER(ziggurat::Aligned<Kind...>,
                   const_name("numpy.ndarray[dtype=") + dtype_traits<typename Plain::Scalar>::name + const_name("]"))

    bool from_python(handle source, uint32_t flags, cleanup_list* cleanup) noexcept {
        make_caster<Plain> plain;
        if (!plain.from_python(source, flags, cleanup)) return false;
        value = ziggurat::Aligned<Kind...>(plain.value);
        return reinterpret_cast<uintptr_t>(plain.value.data()) % alignof(typename Plain::Scalar) == 0;
    }
};

}  // namespace nanobind::detail

namespace ziggurat {

template <class T> using In = Aligned<const T, nb::c_contig, nb::device::cpu>;
template <class T> using Out = nb::ndarray<nb::numpy, T>;

// A new array that Python owns, filled with `value`.
template <class T> Out<T> filled(std::initializer_list<size_t> shape, T value) {
    size_t n = 1;
    for (const size_t size : shape) n *= size;
    auto memory = std::make_unique<T[]>(n ? n : 1);
    std::fill_n(memory.get(), n, value);
    T* data = memory.get();
    nb::capsule owner(memory.release(), [](void* p) noexcept { delete[] static_cast<T*>(p); });
    return Out<T>(data, shape.size(), shape.begin(), owner);
}

inline void refuse(bool wrong, const std::string& message) {
    if (wrong) throw std::invalid_argument(message);
}

// Makes no string unless something is wrong: this runs for every token.
inline void refuse(bool wrong, const char* message) {
    if (wrong) throw std::invalid_argument(message);
}

// Checks for the shape (n, columns), any number of columns if -1; returns n.
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

// A copy of an array. Other threads may write into a caller's array at any time, so values that are checked only once
// are copied first and checked then.
inline std::vector<int64_t> copy_of(const In<int64_t>& array) { return {array.data(), array.data() + array.size()}; }

// Checks and copies boundaries of n things, such as cu_seqlens (n_seqs + 1) of n tokens: from 0 to n, no part empty.
inline Edges edges_of(const In<int64_t>& array, int n, const std::string& name = "cu_seqlens",
                      const std::string& thing = "token") {
    refuse(array.ndim() != 1 || array.shape(0) < 2, name + ": must have one axis of at least 2");
    const std::vector<int64_t> edges = copy_of(array);
    refuse(edges.front() != 0 || edges.back() != n, name + ": must go from 0 to the number of " + thing + "s");
    for (size_t i = 1; i < edges.size(); ++i)
        if (edges[i] <= edges[i - 1] || edges[i] > n)
            refuse(true, name + ": no part may be empty, each needs at least one " + thing);
    return {edges.begin(), edges.end()};
}

// Checks and copies cu_seqlens (n_texts + 1) of n tokens: from 0 to n, never falling. A text may be empty.
inline std::vector<int64_t> check_texts(const In<int64_t>& cu_seqlens, int n_tokens) {
    refuse(cu_seqlens.ndim() != 1 || cu_seqlens.shape(0) < 1, "cu_seqlens: must have one axis of at least 1");
    std::vector<int64_t> edges = copy_of(cu_seqlens);
    refuse(edges.front() != 0 || edges.back() != n_tokens, "cu_seqlens: must go from 0 to the number of tokens");
    for (size_t i = 1; i < edges.size(); ++i) refuse(edges[i] < edges[i - 1], "cu_seqlens: must not fall");
    return edges;
}

// Checks that every `stride`th integer is in [0, limit).
inline void check_range(const int64_t* numbers, int64_t n, int64_t stride, int64_t limit, const char* name) {
    for (int64_t i = 0; i < n; ++i) checked(numbers + i * stride, limit, name);
}

}  // namespace ziggurat
