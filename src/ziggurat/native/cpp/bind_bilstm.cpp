// The BiLSTM tier as Python sees it; everything is checked here, so that nothing below has to.
#include "bind_bilstm.h"

#include <cstdint>
#include <string>
#include <vector>

#include "arrays.h"
#include "bilstm.h"
#include "process.h"

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

// Holds a tier's embedding where it is. Has no state: calls need not wait for each other.
class BoundBilstmTier {
  public:
    BoundBilstmTier(const In<int16_t>& vocabulary, In<float> embedding, In<float> segments, const In<float>& first,
                    const In<float>& second, const In<float>& hidden, const In<float>& output)
        : vocabulary_(vocabulary.data(), vocabulary.data() + vocabulary.size()),
          embedding_(std::move(embedding)),
          segments_(std::move(segments)),
          model_(table(vocabulary, first, second, hidden, output), *kernels().front()) {}

    int n_classes() const { return model_.n_classes(); }

    Out<float> logits(const In<int64_t>& tokens, const In<int64_t>& cu_seqlens) const {
        const int n_tokens = matrix_rows(tokens, 2, "tokens");
        const std::vector<int64_t> edges = check_texts(cu_seqlens, n_tokens);
        const auto n_texts = static_cast<int64_t>(edges.size()) - 1;
        auto said = filled<float>({size_t(n_texts), size_t(n_classes())}, 0);
        {
            const WithoutGil others_run;
            model_.logits(tokens.data(), edges.data(), n_texts, said.data());
        }
        return said;
    }

  private:
    // The members before the model are there already.
    BilstmTable table(const In<int16_t>& vocabulary, const In<float>& first, const In<float>& second,
                      const In<float>& hidden, const In<float>& output) const {
        const int64_t rows = size_of(embedding_, 2, 0, "embedding"), width = size_of(embedding_, 2, 1, "embedding");
        const int64_t state = size_of(first, 3, 1, "first") / 4, between = size_of(hidden, 2, 0, "hidden");
        const int64_t n_classes = size_of(output, 2, 0, "output");
        refuse(state < 1 || n_classes < 2, "first, output: must have states and at least 2 classes");
        check_shape(segments_, {2, width}, "segments");
        check_shape(first, {2, 4 * state, width + state + 1}, "first");
        check_shape(second, {2, 4 * state, 3 * state + 1}, "second");
        check_shape(hidden, {between, 2 * state + 1}, "hidden");
        check_shape(output, {n_classes, between + 1}, "output");
        refuse(vocabulary.ndim() != 1 || vocabulary_.empty(), "vocabulary: must have one axis of at least 1");
        for (const int16_t row : vocabulary_) refuse(row < 0 || row >= rows, "vocabulary: rows of the embedding");
        return {vocabulary_.data(),
                static_cast<int64_t>(vocabulary_.size()),
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

    std::vector<int16_t> vocabulary_;  // its own: these numbers are places in memory, and nobody else may change them
    In<float> embedding_, segments_;
    Bilstm model_;
};

// Nothing is converted.
auto exact(const char* name) { return nb::arg(name).noconvert(); }

}  // namespace

void bind_bilstm(nb::module_& module) {
    nb::class_<BoundBilstmTier>(module, "BilstmTier")
        .def(nb::init<const In<int16_t>&, In<float>, In<float>, const In<float>&, const In<float>&, const In<float>&,
                      const In<float>&>(),
             exact("vocabulary"), exact("embedding"), exact("segments"), exact("first"), exact("second"),
             exact("hidden"), exact("output"))
        .def_prop_ro("n_classes", &BoundBilstmTier::n_classes)
        .def("logits", &BoundBilstmTier::logits, exact("tokens"), exact("cu_seqlens"));
}

}  // namespace ziggurat
