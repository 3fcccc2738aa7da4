// Integers from a caller's arrays, checked. Apart from its users because the tiers and the bindings need it.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace ziggurat {

[[noreturn]] inline void refuse_number(int64_t number, int64_t limit, const char* name) {
    throw std::invalid_argument(std::string(name) + " " + std::to_string(number) + ": must be at least 0 and below " +
                                std::to_string(limit));
}

// The integer at this address, in [0, limit). Other threads may write there meanwhile, so it is read only once: the
// value that is checked is the value that is used.
inline int64_t checked(const int64_t* address, int64_t limit, const char* name) {
    const int64_t number = *static_cast<const volatile int64_t*>(address);
    if (number < 0 || number >= limit) refuse_number(number, limit, name);
    return number;
}

}  // namespace ziggurat
