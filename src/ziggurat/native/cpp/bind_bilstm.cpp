// The BiLSTM tier as Python sees it; everything is checked here, so that nothing below has to.
#include "bind_bilstm.h"

#include <cstdint>
#include <string>

#include "arrays.h"
#include "bilstm.h"

namespace ziggurat {
namespace {

constexpr int64_t LARGEST = 1 << 15;  // of all sizes

void check_shape(const In<float>& array, std::initializer_list<int64_t> shape, const char* name) {
    bool fits = array.ndim() == shape.size();
    size_t axis = 0;
    for (const int64_t size : shape) {
        fits = fits && static_cast<int64_t>(array.shape(axis)) == size;
        ++axis;
    }
    refuse(!fits, std::string(name) + ": its shape does not fit the others'");
}

int64_t size_of(const In<float>& array, size_t n_axes, size_t axis, const char* name) {
    refuse(array.ndim() != n_axes, std::string(name) + ": must have " + std::to_string(n_axes) + " axes");
    const auto size = static_cast<int64_t>(array.shape(axis));
    refuse(size < 1 || size > LARGEST, std::string(name) + ": must have 1 to 2^15 rows and columns");
    return size;
}

// Holds a tier's embedding where it is, in a mapped file for instance. Has no state: calls need not wait for each other.
class BoundBilstmTier {
  public:
    BoundBilstmTier(In<int16_t> vocabulary, In<float> embedding, In<float> segments, const In<float>& first,
                    const In<float>& second, const In<float>& hidden, const In<float>& output)
        : vocabulary_(std::move(vocabulary)),
          embedding_(std::move(embedding)),
          segments_(std::move(segments)),
          model_(checked(first, second, hidden, output), *kernels().front()) {}

    int n_classes() const { return model_.n_classes(); }

    Out<float> logits(const In<int64_t>& tokens, const In<int64_t>& cu_seqlens) const {
        const int n_tokens = matrix_rows(tokens, 2, "tokens");
        const int64_t n_texts = check_texts(cu_seqlens, n_tokens);
        auto said = filled<float>({size_t(n_texts), size_t(n_classes())}, 0);
        {
            const nb::gil_scoped_release without_gil;
            check_range(tokens.data(), n_tokens, 2, static_cast<int64_t>(vocabulary_.shape(0)), "token id");
            check_range(tokens.data() + 1, n_tokens, 2, 2, "segment id");
            model_.logits(tokens.data(), cu_seqlens.data(), n_texts, said.data());
        }
        return said;
    }

  private:
    // The members before the model are there already.
    BilstmTable checked(const In<float>& first, const In<float>& second, const In<float>& hidden,
                        const In<float>& output) const {
        const int64_t rows = size_of(embedding_, 2, 0, "embedding"), width = size_of(embedding_, 2, 1, "embedding");
        const int64_t state = size_of(first, 3, 1, "first") / 4, between = size_of(hidden, 2, 0, "hidden");
        const int64_t n_classes = size_of(output, 2, 0, "output");
        refuse(state < 1 || n_classes < 2, "first, output: must have states and at least 2 classes");
        check_shape(segments_, {2, width}, "segments");
        check_shape(first, {2, 4 * state, width + state + 1}, "first");
        check_shape(second, {2, 4 * state, 3 * state + 1}, "second");
        check_shape(hidden, {between, 2 * state + 1}, "hidden");
        check_shape(output, {n_classes, between + 1}, "output");
        refuse(vocabulary_.ndim() != 1 || vocabulary_.shape(0) == 0, "vocabulary: must have one axis of at least 1");
        for (size_t i = 0; i < vocabulary_.shape(0); ++i)
            refuse(vocabulary_.data()[i] < 0 || vocabulary_.data()[i] >= rows, "vocabulary: rows of the embedding");
        return {vocabulary_.data(),
                embedding_.data(),
                segments_.data(),
                first.data(),
                second.data(),
                hidden.data(),
                output.data(),
                static_cast<int>(width),
                static_cast<int>(state),
                static_cast<int>(between),
                static_cast<int>(n_classes)};
    }

    In<int16_t> vocabulary_;
    In<float> embedding_, segments_;
    Bilstm model_;
};

// Nothing is converted.
auto exact(const char* name) { return nb::arg(name).noconvert(); }

}  // namespace

void bind_bilstm(nb::module_& module) {
    nb::class_<BoundBilstmTier>(module, "BilstmTier")
        .def(nb::init<In<int16_t>, In<float>, In<float>, const In<float>&, const In<float>&, const In<float>&,
                      const In<float>&>(),
             exact("vocabulary"), exact("embedding"), exact("segments"), exact("first"), exact("second"),
             exact("hidden"), exact("output"))
        .def_prop_ro("n_classes", &BoundBilstmTier::n_classes)
        .def("logits", &BoundBilstmTier::logits, exact("tokens"), exact("cu_seqlens"));
}

}  // namespace ziggurat
