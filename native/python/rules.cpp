// Exit rules and token rules as Python makes them.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <cmath>
#include <map>

#include "python/bindings.h"

namespace ziggurat {

namespace {

constexpr size_t MAX_COUNT = 1 << 20;  // rungs and classes

template <class T> T lookup(const std::map<std::string, T>& known, const std::string& name, const char* what) {
    const auto entry = known.find(name);
    refuse(entry == known.end(), std::string(what) + " '" + name + "' is not known to the compiled engine");
    return entry->second;
}

const std::map<std::string, ExitScore> SCORES = {
    {"entropy", ExitScore::entropy},
    {"max-probability", ExitScore::max_probability},
    {"margin", ExitScore::margin},
    {"agreement", ExitScore::agreement},
    {"agreement-in-a-row", ExitScore::agreement_in_a_row},
    {"top-entropy", ExitScore::top_entropy},
    {"confident-in-a-row", ExitScore::confident_in_a_row},
    {"learned", ExitScore::learned},
    {"change", ExitScore::change},
    {"label-entropy", ExitScore::label_entropy},
};
const std::map<std::string, Keep> KEEPS = {
    {"threshold", Keep::threshold}, {"share", Keep::share}, {"count", Keep::count}};
const std::map<std::string, TokenScore> TOKEN_SCORES = {
    {"received", TokenScore::received},
    {"received-from-others", TokenScore::received_from_others},
    {"predicted", TokenScore::predicted},
};
const std::map<std::string, Scale> SCALES = {
    {"relative", Scale::relative}, {"paper", Scale::paper}, {"ltp-code", Scale::ltp_code}};

}  // namespace

OwnedExitRule::OwnedExitRule(const std::string& score, double parameter, const In<double>& thresholds,
                             std::optional<In<double>> temperatures, std::optional<In<double>> deferral)
    : score(lookup(SCORES, score, "exit score")), parameter(parameter) {
    n_rows = matrix_rows(thresholds, -1, "thresholds");
    refuse(n_rows < 1, "thresholds: at least one row");
    refuse(thresholds.shape(1) > MAX_COUNT, "thresholds: too many rungs");
    n_rungs = static_cast<int>(thresholds.shape(1)) + 1;
    refuse(this->score == ExitScore::top_entropy && !(parameter >= 2 && parameter <= 1 << 30),
           "top-entropy: needs at least 2");
    this->thresholds.assign(thresholds.data(), thresholds.data() + thresholds.size());
    if (temperatures) {
        check_length(*temperatures, n_rungs, "temperatures");
        this->temperatures.assign(temperatures->data(), temperatures->data() + n_rungs);
    }
    refuse((this->score == ExitScore::learned) != deferral.has_value(),
           "deferral: the learned score's, and no other's");
    if (deferral) {
        refuse(matrix_rows(*deferral, -1, "deferral") != n_rungs - 1,
               "deferral: must have one row for each rung but the last");
        refuse(deferral->shape(1) > MAX_COUNT, "deferral: too many columns");
        deferral_columns = static_cast<int>(deferral->shape(1));
        this->deferral.assign(deferral->data(), deferral->data() + deferral->size());
    }
}

ExitRule OwnedExitRule::view() const {
    return {score,
            parameter,
            n_rungs,
            thresholds.data(),
            n_rows == 1 ? 0 : n_rungs - 1,
            temperatures.empty() ? nullptr : temperatures.data(),
            deferral.data()};
}

void OwnedExitRule::check_classes(int n_classes) const {
    refuse(n_classes < 2 && score == ExitScore::margin, "margin: needs at least 2 classes");
    refuse(score == ExitScore::learned && deferral_columns != 4 + n_classes,
           "deferral: must be (n_rungs - 1, 4 + n_classes)");
}

Out<double> OwnedExitRule::values(int rung, const In<float>& history) const {
    const ExitRule rule = view();
    refuse(rung < 0 || rung >= n_rungs - 1 || !rule.active(rung), "rung: must be active, and not the last");
    std::vector<int> active_rungs;
    for (int earlier = 0; earlier <= rung; ++earlier)
        if (rule.active(earlier)) active_rungs.push_back(earlier);
    refuse(history.ndim() != 3 || history.shape(1) != active_rungs.size() || history.shape(2) < 1 ||
               history.shape(2) > MAX_COUNT,
           "history: must be (n, active rungs so far, n_classes)");
    const size_t n = history.shape(0), n_classes = history.shape(2);
    check_classes(static_cast<int>(n_classes));
    auto scores = filled<double>({n}, 0);
    for (size_t i = 0; i < n; ++i)
        scores.data()[i] = rule.value(rung, history.data() + i * active_rungs.size() * n_classes, active_rungs,
                                      static_cast<int>(n_classes));
    return scores;
}

OwnedTokenRule::OwnedTokenRule(const std::string& keep, const std::string& score, const std::string& scale,
                               const In<double>& values, std::optional<In<bool>> vocabulary)
    : keep(lookup(KEEPS, keep, "pruning rule")),
      score(lookup(TOKEN_SCORES, score, "token score")),
      scale(lookup(SCALES, scale, "scale")) {
    refuse(values.ndim() != 1, "values: must have one axis");
    this->values.assign(values.data(), values.data() + values.size());
    if (!vocabulary) return;
    refuse(vocabulary->ndim() != 1, "vocabulary: must have one axis");
    this->vocabulary.assign(vocabulary->data(), vocabulary->data() + vocabulary->size());
}

TokenRule OwnedTokenRule::view() const {
    return {keep, score, scale, values.data(), vocabulary.empty() ? nullptr : vocabulary.data()};
}

void bind_rules(nb::module_& module) {
    nb::class_<OwnedExitRule>(module, "ExitRule",
                              "At which rung inputs exit: a score and thresholds. Keeps copies of the arrays.")
        .def(nb::init<const std::string&, double, const In<double>&, std::optional<In<double>>,
                      std::optional<In<double>>>(),
             nb::arg("score"), nb::arg("parameter"), nb::arg("thresholds"), nb::arg("temperatures").none(),
             nb::arg("deferral").none() = nb::none(),
             "score: its name, with its parameter (0 = none). thresholds (1 or n_seqs, n_rungs - 1): NaN = inactive "
             "rung.\n"
             "temperatures (n_rungs) or None. deferral (n_rungs - 1, 4 + n_classes): weights of the learned score.")
        .def("values", &OwnedExitRule::values, nb::arg("rung"), exact("history"),
             "history (n, active rungs so far, n_classes) → scores (n) at an active rung before the last.");
    nb::class_<OwnedTokenRule>(module, "TokenRule", "Which tokens layers keep. Keeps copies of the arrays.")
        .def(nb::init<const std::string&, const std::string&, const std::string&, const In<double>&,
                      std::optional<In<bool>>>(),
             nb::arg("keep"), nb::arg("score"), nb::arg("scale"), nb::arg("values"), nb::arg("vocabulary").none(),
             "keep: threshold, share or count. score: received, received-from-others or predicted. scale: relative, "
             "paper or\n"
             "ltp-code. values (L): NaN = no pruning. vocabulary (vocabulary size): which entries are read; None = "
             "all.");
}

}  // namespace ziggurat
