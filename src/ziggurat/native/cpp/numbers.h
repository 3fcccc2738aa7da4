// Whole numbers out of a caller's arrays.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace ziggurat {

[[noreturn]] inline void refuse_number(int64_t number, int64_t limit, const char* name) {
    throw std::invalid_argument(std::string(name) + " " + std::to_string(number) + ": must be at least 0 and below " +
                                std::to_string(limit));
}

// The number at this place, in [0, limit). Other threads may write there meanwhile, so it is read once: what is checked is
// what is used.
inline int64_t checked(const int64_t* place, int64_t limit, const char* name) {
    const int64_t number = *static_cast<const volatile int64_t*>(place);
    if (number < 0 || number >= limit) refuse_number(number, limit, name);
    return number;
}

}  // namespace ziggurat
