// Spread: how repeated measurements lie. Times are skewed by rare slow ones, so the middle is the median and the usual
// range the middle 80 %.
// Threads: values, pure functions.
#pragma once

#include <cstddef>
#include <vector>

namespace strake {

struct Spread {
  double median = 0;
  double low = 0, high = 0;  // of all
  double p10 = 0, p90 = 0;   // between neighbours: linear
  double mean = 0;
  std::size_t samples = 0;
};

// REQUIRES: not empty.
Spread spread_of(std::vector<double> samples);
double median_of(std::vector<double> samples);

}  // namespace strake
