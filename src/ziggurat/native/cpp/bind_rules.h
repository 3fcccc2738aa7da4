// Rules as Python makes them: they own their numbers.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "arrays.h"
#include "rules.h"

namespace ziggurat {

struct OwnedExitRule {
    ExitScore score;
    double parameter;
    int n_rows, n_rungs;
    std::vector<double> thresholds, temperatures, deferral;  // the last (n_rungs - 1, deferral_columns)
    int deferral_columns = 0;

    OwnedExitRule(const std::string& score, double parameter, const In<double>& thresholds,
                  std::optional<In<double>> temperatures, std::optional<In<double>> deferral);
    ExitRule view() const;

    // The score of a history (n, asked rungs so far, n_classes) at an asked rung before the last: (n). For tests.
    Out<double> values(int rung, const In<float>& history) const;

    void check_classes(int n_classes) const;
};

struct OwnedTokenRule {
    Keep keep;
    TokenScore score;
    Scale scale;
    std::vector<double> values;
    std::vector<uint8_t> vocabulary;

    OwnedTokenRule(const std::string& keep, const std::string& score, const std::string& scale,
                   const In<double>& values, std::optional<In<bool>> vocabulary);
    TokenRule view() const;
};

void bind_rules(nb::module_& module);

}  // namespace ziggurat
