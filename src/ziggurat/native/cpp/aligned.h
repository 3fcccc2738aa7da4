// numpy arrays whose numbers lie where numbers of their type may lie.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>

namespace ziggurat {

namespace nb = nanobind;

// As nb::ndarray, but of an array that begins in the middle of a number, a view of bytes, nothing is read: compilers rely on
// that. Where one is offered Python gets a TypeError.
template <class... Kind> struct Aligned : nb::ndarray<Kind...> {
    using Plain = nb::ndarray<Kind...>;

    Aligned() = default;
    Aligned(const Plain& array) : Plain(array) {}  // NOLINT: it is one
};

}  // namespace ziggurat

namespace nanobind::detail {

template <class... Kind> struct type_caster<ziggurat::Aligned<Kind...>> {
    using Plain = typename ziggurat::Aligned<Kind...>::Plain;

    NB_TYPE_CASTER(ziggurat::Aligned<Kind...>, make_caster<Plain>::Name)

    bool from_python(handle source, uint32_t flags, cleanup_list* cleanup) noexcept {
        make_caster<Plain> plain;
        if (!plain.from_python(source, flags, cleanup)) return false;
        value = ziggurat::Aligned<Kind...>(plain.value);
        return reinterpret_cast<uintptr_t>(plain.value.data()) % alignof(typename Plain::Scalar) == 0;
    }
};

}  // namespace nanobind::detail
