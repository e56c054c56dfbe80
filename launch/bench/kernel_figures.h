// KernelFigures: what `strake bench kernels` says of each operation of a step, computed from times that were measured
// in place (runtime/device/timed_device.h). Pure functions of values; the JSON is documented in docs/formats.md.
//
// Operations that declare the same (kind, operands, so the same work) are one row. A row's time in a step is the sum
// over its operations of each one's median over steps, without what a mark takes; so what disturbs single steps is left
// out, and rows add up to what the operations take.
//
// The floor of an operation is the larger of its FLOPs at the device's rate and its bytes at the memory's. What was
// written just before may come out of a cache, so less time is possible where a cache holds a good part of the
// operands. Less time than the FLOPs need, or the bytes that no cache can have held, is an error of measurement (or of
// what the operation declares, or of the rate); where a rate is itself a measurement, others may just be faster.
// Threads: values.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "launch/job/devices.h"
#include "launch/report/breakdown.h"
#include "runtime/device/timed_device.h"

namespace strake::launch {

// "bf16 65536x2304x768": rows and columns of a matrix product's result and the size that is summed over; of any other
// operation its largest operand.
std::string shape_of(const DeclaredOperation& operation);
// "bf16[65536, 2304] <- bf16[65536, 768], bf16[2304, 768]"
std::string operands_of(const DeclaredOperation& operation);
// "h11.mlp.fc" -> "h*.mlp.fc"
std::string place_of(const std::string& name);

struct DeviceRates {
  double flops = 0;  // 0: not known
  bool flops_are_measured = false;
  std::string flops_name;
  MemoryRates memory;
};

// Steps that were measured, the same number of each kind, in this order: as they are, with every operation timed, as
// they are again.
struct KernelJob {
  std::int64_t warmup = 0;
  std::string device;
  int ranks = 1;
  DeviceRates rates;
  std::vector<RankStep> before, timed, after;  // of this rank; in timed ones what they were held is left out
};

struct TimedSteps {
  std::vector<DeclaredOperation> operations;  // of a step, in order
  std::vector<std::vector<double>> times_ms;  // by step and operation; marks included
  double mark_ms = 0;                         // of each that a mark takes
};

struct KernelRow {
  enum class Above : std::uint8_t { kNone, kByCache, kByMeasuredRate, kByMistake };

  std::string operation, shape, operands;
  std::vector<std::string> places, phases;  // each once
  std::int64_t calls = 0;                   // a step
  double step_ms = 0;                       // of all calls
  double flops = 0, bytes = 0;              // likewise
  double floor_ms = 0;                      // likewise; 0: no rate is known
  bool bound_by_flops = false;
  double step_share = 0;
  Above above_floor = Above::kNone;

  double call_us() const { return 1e3 * step_ms / static_cast<double>(calls); }
  std::optional<double> tflops() const;
  std::optional<double> gb_per_s() const;
  std::optional<double> floor_share() const;
};

struct KernelFigures {
  KernelJob job;
  std::vector<KernelRow> rows;  // longest first
  double mark_us = 0;

  double step_ms = 0;  // median of the steps as they are, before and after
  double before_ms = 0, timed_ms = 0, after_ms = 0;
  std::array<double, kStepClasses> class_ms{};  // medians of the steps as they are
  double operations_ms = 0, floor_ms = 0;       // sums of rows
  std::map<std::string, double> phase_ms;       // operations_ms by phase
  // Of forward, backward and optimizer of the timed steps, the part that lies within operations: the rest is gaps.
  double covered_share = 0;
};

// REQUIRES: steps were measured, and every timed one has a time of each operation.
KernelFigures figures_of(KernelJob job, const TimedSteps& steps);

nlohmann::ordered_json to_json(const KernelFigures& figures);
// For people; no newline at the end.
std::string table(const KernelFigures& figures);

}  // namespace strake::launch
