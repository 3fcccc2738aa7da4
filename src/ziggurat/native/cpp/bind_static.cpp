// The static tier as Python sees it; everything is checked here, so that nothing below has to.
#include "bind_static.h"

#include <cstdint>

#include "arrays.h"
#include "process.h"
#include "static_tier.h"

namespace ziggurat {
namespace {

// Holds a tier's arrays where they are. Has no state: calls need not wait for each other.
class BoundStaticTier {
  public:
    BoundStaticTier(In<int16_t> weights, In<float> scales, In<float> bias, In<uint8_t> kinds)
        : weights_(std::move(weights)), scales_(std::move(scales)), bias_(std::move(bias)), kinds_(std::move(kinds)) {
        const int n = matrix_rows(weights_, -1, "weights");
        refuse(n < 2 || (n & (n - 1)), "weights: must have a power of two of rows, at least 2");
        refuse(weights_.shape(1) < 2 || weights_.shape(1) > 1U << 20, "weights: must have 2 to 2^20 columns");
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
        auto said = filled<float>({size_t(n_texts), size_t(n_classes())}, 0);
        {
            const WithoutGil others_run;
            static_logits(view(), tokens.data(), edges.data(), n_texts, said.data());
        }
        return said;
    }

  private:
    // A Piece is what its number says; a number that is none means a piece that starts a word.
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

// Nothing is converted.
auto exact(const char* name) { return nb::arg(name).noconvert(); }

}  // namespace

void bind_static(nb::module_& module) {
    nb::class_<BoundStaticTier>(module, "StaticTier")
        .def(nb::init<In<int16_t>, In<float>, In<float>, In<uint8_t>>(), exact("weights"), exact("scales"),
             exact("bias"), exact("kinds"))
        .def_prop_ro("n_classes", &BoundStaticTier::n_classes)
        .def("logits", &BoundStaticTier::logits, exact("tokens"), exact("cu_seqlens"));
}

}  // namespace ziggurat
