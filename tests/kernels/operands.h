// One operation on the CPU in a chosen version of its code: operands between guards, outputs poisoned with NaN, and the
// comparison with the reference in double. The body runs at once on the calling thread.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <vector>

#include "kernels/cpu/code.h"
#include "runtime/device/cpu/cpu_device.h"
#include "runtime/device/cpu/cpu_memory.h"
#include "tests/kernels/arrays.h"

namespace strake::kernels::testing {

struct Operand {
  enum class Role { kValue, kSum, kToken };  // in the type under test; f64 always; i32

  std::vector<std::int64_t> shape;
  std::vector<double> values = {};  // empty: an output, NaN before
  Role role = Role::kValue;

  std::int64_t elems() const {
    std::int64_t product = 1;
    for (const std::int64_t extent : shape) product *= extent;
    return product;
  }
};
inline Operand output(std::vector<std::int64_t> shape) { return {.shape = std::move(shape)}; }
template <typename T>
Operand operand(std::vector<std::int64_t> shape, const std::vector<T>& values) {
  return {.shape = std::move(shape), .values = {values.begin(), values.end()}};
}
inline Operand tokens(std::vector<std::int64_t> shape, const std::vector<std::int32_t>& values) {
  return {.shape = std::move(shape), .values = {values.begin(), values.end()}, .role = Operand::Role::kToken};
}

// Every operand's values after the operation, widened: f32 without loss.
using Results = std::vector<std::vector<double>>;

// Memory of operands: each starts at 64 bytes, or `shift` of its elements behind, with guards on both sides.
class OperandMemory {
 public:
  OperandMemory(DType dtype, const std::vector<Operand>& operands, std::int64_t shift) : operands_(operands) {
    for (const Operand& operand : operands) {
      const DType type = operand.role == Operand::Role::kToken ? DType::kI32
                         : operand.role == Operand::Role::kSum ? DType::kF64
                                                               : dtype;
      whole_.push_back(Tensor::reserve(arena_, type, {operand.elems() + 2 * kGuard + shift}));
      tensors_.emplace_back(arena_,
                            whole_.back().offset_bytes() + static_cast<std::size_t>(kGuard + shift) * size_bytes(type),
                            type, operand.shape);
    }
    arena_.allocate(*device_);
    for (std::size_t i = 0; i < operands.size(); ++i) {
      each(whole_[i], [&](std::int64_t, auto& value) { value = guard(value); });
      each(tensors_[i], [&](std::int64_t k, auto& value) {
        const auto& given = operands[i].values;
        value = static_cast<std::remove_reference_t<decltype(value)>>(
            given.empty() ? std::numeric_limits<double>::quiet_NaN() : given[static_cast<std::size_t>(k)]);
      });
    }
  }

  const std::vector<Tensor>& tensors() const { return tensors_; }

  // A write outside an operand is a failure of the test.
  Results results() const {
    Results out;
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      std::vector<double>& values = out.emplace_back();
      each(tensors_[i], [&](std::int64_t, auto& value) { values.push_back(static_cast<double>(value)); });
      const std::int64_t begin = whole_[i].elems() - kGuard - operands_[i].elems();
      each(whole_[i], [&](std::int64_t k, auto& value) {
        if (k >= begin && k < begin + operands_[i].elems()) return;
        EXPECT_EQ(value, guard(value)) << "wrote outside operand " << i << ", at element " << k - begin << " of "
                                       << operands_[i].elems();
      });
    }
    return out;
  }

 private:
  static constexpr std::int64_t kGuard = 64;
  template <typename T>
  static T guard(T) {
    return static_cast<T>(12345.5);
  }
  template <typename F>
  static void each(const Tensor& tensor, F f) {
    const auto visit = [&](auto* values) {
      for (std::int64_t k = 0; k < tensor.elems(); ++k) f(k, values[k]);
    };
    switch (tensor.dtype()) {
      case DType::kF64:
        return visit(strake::cpu::data<double>(tensor));
      case DType::kI32:
        return visit(strake::cpu::data<std::int32_t>(tensor));
      default:
        return visit(strake::cpu::data<float>(tensor));
    }
  }

  const std::vector<Operand>& operands_;
  std::unique_ptr<Device> device_ = make_cpu_device();
  Arena arena_{"operands", MemoryKind::kDevice};
  std::vector<Tensor> whole_, tensors_;
};

// Runs the operation that `make(tensors)` returns, with `code`.
template <typename Make>
Results run(CpuCode code, DType dtype, const std::vector<Operand>& operands, const Make& make, std::int64_t shift = 0) {
  const OperandMemory memory(dtype, operands, shift);
  make(memory.tensors()).on_cpu(code)({});
  return memory.results();
}

inline bool equal_bits(const std::vector<double>& a, const std::vector<double>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(double)) == 0);
}

// ||out - ref|| / ||ref||; infinite if anything is not finite.
inline double relative_error(const std::vector<double>& out, const std::vector<double>& ref) {
  double error = 0, norm = 0;
  for (std::size_t i = 0; i < out.size(); ++i) {
    error += (out[i] - ref[i]) * (out[i] - ref[i]);
    norm += ref[i] * ref[i];
  }
  if (!std::isfinite(error)) return std::numeric_limits<double>::infinity();
  return norm > 0 ? std::sqrt(error / norm) : std::sqrt(error);
}

// What the reference in double gives.
template <typename Make>
Results in_double(const std::vector<Operand>& operands, const Make& make) {
  return run(CpuCode{}, DType::kF64, operands, make);
}

// `code` in f32 against the reference in double on the same operands: `outputs` within the tolerance and everything
// else untouched; the same bits from any address. Returns the f32 results.
template <typename Make>
Results expect_as_in_double(CpuCode code, const std::vector<Operand>& operands, const std::vector<std::size_t>& outputs,
                            const Make& make, double tolerance = kTolerance) {
  const Results ref = in_double(operands, make);
  const Results out = run(code, DType::kF32, operands, make);
  for (const std::int64_t shift : {1, 3}) {
    const Results shifted = run(code, DType::kF32, operands, make, shift);
    for (std::size_t i = 0; i < operands.size(); ++i) {
      EXPECT_TRUE(equal_bits(shifted[i], out[i])) << "operand " << i << ", " << shift << " elements behind";
    }
  }
  for (std::size_t i = 0; i < operands.size(); ++i) {
    if (std::find(outputs.begin(), outputs.end(), i) != outputs.end()) {
      EXPECT_LE(relative_error(out[i], ref[i]), tolerance) << "operand " << i;
    } else {
      EXPECT_TRUE(equal_bits(out[i], operands[i].values)) << "operand " << i << " is not to be written";
    }
  }
  return out;
}

}  // namespace strake::kernels::testing
