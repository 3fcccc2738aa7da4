// Memory aligned to cache lines, uninitialised.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>

namespace ziggurat {

constexpr size_t LINE = 64;

constexpr size_t round_up(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }

class Buffer {
  public:
    Buffer() = default;
    explicit Buffer(size_t bytes)
        : data_(bytes ? static_cast<std::byte*>(::operator new(round_up(bytes, LINE), std::align_val_t{LINE}))
                      : nullptr),
          bytes_(bytes) {}
    Buffer(Buffer&& other) noexcept
        : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
    Buffer& operator=(Buffer&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(bytes_, other.bytes_);
        return *this;
    }
    ~Buffer() { ::operator delete(data_, std::align_val_t{LINE}); }

    size_t bytes() const { return bytes_; }
    template <class T> T* as() { return reinterpret_cast<T*>(data_); }
    template <class T> const T* as() const { return reinterpret_cast<const T*>(data_); }

    // Makes room for at least this number of bytes; the contents may be lost.
    void reserve(size_t bytes) {
        if (bytes > bytes_) *this = Buffer(bytes);
    }

  private:
    std::byte* data_ = nullptr;
    size_t bytes_ = 0;
};

}  // namespace ziggurat
