// The tiers without layers as Python sees them. All input is checked here, so the code below need not check it.
#include <cstdint>
#include <string>
#include <vector>

#include "python/bindings.h"
#include "small/bilstm.h"
#include "small/static_tier.h"

namespace ziggurat {
namespace {

// Refers to the arrays of a tier. Calls change nothing, so they may run at the same time.
class BoundStaticTier {
  public:
    BoundStaticTier(In<int16_t> weights, In<float> scales, In<float> bias, In<uint8_t> kinds)
        : weights_(std::move(weights)), scales_(std::move(scales)), bias_(std::move(bias)), kinds_(std::move(kinds)) {
        const int n = matrix_rows(weights_, -1, "weights");
        refuse(n < 2 || (n & (n - 1)), "weights: must have a power of two of rows, at least 2");
        refuse(weights_.shape(1) < 1 || weights_.shape(1) > 1U << 20, "weights: must have 1 to 2^20 columns");
        check_length(scales_, weights_.shape(1), "scales");
        check_length(bias_, weights_.shape(1), "bias");
        refuse(kinds_.ndim() != 1 || kinds_.shape(0) == 0, "kinds: must have one axis of at least 1");
        while (1 << bits_ < n) ++bits_;
    }

    int n_classes() const { return static_cast<int>(weights_.shape(1)); }

    Out<float> logits(const In<int64_t>& tokens, const In<int64_t>& cu_seqlens) const {
        const int n_tokens = matrix_rows(tokens, 2, "tokens");
        const std::vector<int64_t> edges = check_texts(cu_seqlens, n_tokens);
        const auto n_texts = static_cast<int64_t>(edges.size()) - 1;
        auto logits = filled<float>({size_t(n_texts), size_t(n_classes())}, 0);
        {
            const WithoutGil released;
            static_logits(view(), tokens.data(), edges.data(), n_texts, logits.data());
        }
        return logits;
    }

  private:
    // Numbers that are no Piece count as pieces that start a word.
    StaticTable view() const {
        return {weights_.data(),
                bits_,
                n_classes(),
                scales_.data(),
                bias_.data(),
                reinterpret_cast<const Piece*>(kinds_.data()),
                static_cast<int64_t>(kinds_.shape(0))};
    }

    In<int16_t> weights_;
    In<float> scales_, bias_;
    In<uint8_t> kinds_;
    int bits_ = 1;
};

constexpr int64_t MAX_SIZE = 1 << 15;  // of every axis

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
    refuse(size < 1 || size > MAX_SIZE, std::string(name) + ": must have 1 to 2^15 rows and columns");
    return size;
}

// Refers to the embedding of a tier and packs its other weights. Calls change nothing, so they may run at the same
// time.
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
        auto logits = filled<float>({size_t(n_texts), size_t(n_classes())}, 0);
        {
            const WithoutGil released;
            model_.logits(tokens.data(), edges.data(), n_texts, logits.data());
        }
        return logits;
    }

  private:
    // Called while `model_` is made, when the members before it exist already.
    BilstmTable table(const In<int16_t>& vocabulary, const In<float>& first, const In<float>& second,
                      const In<float>& hidden, const In<float>& output) const {
        const int64_t rows = size_of(embedding_, 2, 0, "embedding"), width = size_of(embedding_, 2, 1, "embedding");
        const int64_t state = size_of(first, 3, 1, "first") / 4, hidden_width = size_of(hidden, 2, 0, "hidden");
        const int64_t n_classes = size_of(output, 2, 0, "output");
        refuse(state < 1 || n_classes < 1, "first, output: must have states and at least one class");
        check_shape(segments_, {2, width}, "segments");
        check_shape(first, {2, 4 * state, width + state + 1}, "first");
        check_shape(second, {2, 4 * state, 3 * state + 1}, "second");
        check_shape(hidden, {hidden_width, 2 * state + 1}, "hidden");
        check_shape(output, {n_classes, hidden_width + 1}, "output");
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
                static_cast<int>(hidden_width),
                static_cast<int>(n_classes)};
    }

    std::vector<int16_t>
        vocabulary_;  // a copy: these integers are indices into memory, which no other thread may change
    In<float> embedding_, segments_;
    Bilstm model_;
};

constexpr const char* LOGITS_OF_TEXTS =
    "tokens (n, 2): token and segment ids; cu_seqlens (n_texts + 1) → logits (n_texts, n_classes).";

}  // namespace

void bind_small(nb::module_& module) {
    nb::class_<BoundStaticTier>(module, "StaticTier",
                                "A static tier. Refers to the arrays, which are C-contiguous and not converted.")
        .def(nb::init<In<int16_t>, In<float>, In<float>, In<uint8_t>>(), exact("weights"), exact("scales"),
             exact("bias"), exact("kinds"),
             "weights (2^bits, n_classes), scales (n_classes), bias (n_classes), kinds (vocabulary): 0 = starts a "
             "word,\n"
             "1 = continues one, 2 = special.")
        .def_prop_ro("n_classes", &BoundStaticTier::n_classes)
        .def("logits", &BoundStaticTier::logits, exact("tokens"), exact("cu_seqlens"), LOGITS_OF_TEXTS);
    nb::class_<BoundBilstmTier>(module, "BilstmTier",
                                "A BiLSTM tier. Refers to embedding and segments, packs the other arrays.")
        .def(nb::init<const In<int16_t>&, In<float>, In<float>, const In<float>&, const In<float>&, const In<float>&,
                      const In<float>&>(),
             exact("vocabulary"), exact("embedding"), exact("segments"), exact("first"), exact("second"),
             exact("hidden"), exact("output"),
             "vocabulary (n): rows of embedding (rows, width); segments (2, width); first (2, 4 s, width + s + 1) and "
             "second\n"
             "(2, 4 s, 3 s + 1): both directions of a layer with state s; hidden (h, 2 s + 1); output (n_classes, h + "
             "1).\n"
             "The last column of a matrix is its bias.")
        .def_prop_ro("n_classes", &BoundBilstmTier::n_classes)
        .def("logits", &BoundBilstmTier::logits, exact("tokens"), exact("cu_seqlens"), LOGITS_OF_TEXTS);
}

}  // namespace ziggurat
