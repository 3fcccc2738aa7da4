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
    std::vector<double> thresholds, temperatures;

    OwnedExitRule(const std::string& score, double parameter, const In<double>& thresholds,
                  std::optional<In<double>> temperatures);
    ExitRule view() const;
};

struct OwnedTokenRule {
    Keep keep;
    TokenScore score;
    Scale scale;
    std::vector<double> values;
    std::vector<uint8_t> vocabulary;

    OwnedTokenRule(const std::string& keep, const std::string& score, const std::string& scale, const In<double>& values,
                   std::optional<In<bool>> vocabulary);
    TokenRule view() const;
};

void bind_rules(nb::module_& module);

}  // namespace ziggurat
