// A run whose state at step k is a known function of k, for tests of saving and loading: ranks as threads, each with a
// CPU device, a compute stream that "updates" the state, and a Checkpointer.
#pragma once

#include <cstdint>
#include <cstring>
#include <exception>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "checkpoint/checkpointer.h"
#include "comm/threads/threads_world.h"
#include "runtime/device/cpu/cpu_device.h"
#include "runtime/device/cpu/cpu_memory.h"
#include "tests/support/faulty_files.h"

namespace strake::test {

// Byte `index` of tensor `name` at `step`: different for every argument, whatever the tensor's dtype is.
inline std::byte state_byte(std::uint64_t name_hash, std::int64_t step, std::uint64_t index) {
  std::uint64_t x =
      name_hash ^ (static_cast<std::uint64_t>(step) * 0x9E3779B97F4A7C15u) ^ (index / 8 * 0xD1B54A32D192ED03u);
  x = (x ^ (x >> 32)) * 0xD6E8FEB86659FD93u;
  return static_cast<std::byte>((x ^ (x >> 32)) >> (index % 8 * 8));
}

struct SyntheticTensor {
  std::string name;
  DType dtype;
  std::vector<std::int64_t> shape;
  bool partitioned = false;  // each rank holds a range of its own
  // What a rank holds if it is neither of these.
  struct Held {
    std::int64_t begin_elems, end_elems;  // equal: nothing
    bool replicated;                      // other ranks hold the same range
  };
  std::function<Held(int rank, int ranks)> held = {};

  std::int64_t elems() const {
    std::int64_t elems = 1;
    for (const std::int64_t extent : shape) elems *= extent;
    return elems;
  }
  Held held_by(int rank, int ranks) const {
    if (held) return held(rank, ranks);
    if (!partitioned) return {0, elems(), true};
    return {elems() * rank / ranks, elems() * (rank + 1) / ranks, false};
  }
};

// Uneven on purpose: nothing divides by 2, 3 or 4.
inline std::vector<SyntheticTensor> synthetic_tensors() {
  return {{"param/wte", DType::kF32, {57, 13}},
          {"param/ln.weight", DType::kF32, {7}},
          {"param/h.0.attn.weight", DType::kF32, {101, 53}},
          {"half/wte", DType::kBF16, {57, 13}},
          {"adam_m/wte", DType::kF64, {57, 13}},
          {"count", DType::kI64, {1}},
          {"zero/flat", DType::kF32, {1'003}, true}};
}

inline std::string model_text() { return R"({"layers":1,"width":13})"; }

inline checkpoint::Meta meta_at(std::int64_t step) {
  checkpoint::Meta meta;
  meta.step = step;
  meta.tokens = step * 1000;
  meta.attempt = 1;
  meta.data_cursor = "cursor of step " + std::to_string(step);
  meta.tokenizer = R"({"kind":"bytes"})";
  meta.model = model_text();
  meta.choices = "{}";
  meta.config_hash = "0123";
  return meta;
}

// One rank's memory and streams. Outlives checkpointers made over it.
class SyntheticRank {
 public:
  // Operations run on `device` if given (a wrapper), otherwise on a CPU device of this rank's own.
  SyntheticRank(int rank, int ranks, const std::vector<SyntheticTensor>& tensors = synthetic_tensors(),
                Device* device = nullptr)
      : own_device_(device == nullptr ? make_cpu_device() : nullptr),
        device_(device == nullptr ? *own_device_ : *device),
        state_("state", MemoryKind::kDevice),
        host_("staging", MemoryKind::kHost),
        snapshot_("snapshot", MemoryKind::kDevice),
        scalars_("scalars", MemoryKind::kDevice),
        updated_(device_.make_event("updated")),
        compute_(device_.make_stream("compute", StreamPriority::kNormal)),
        copy_out_(device_.make_stream("copy_out", StreamPriority::kNormal)) {
    for (const SyntheticTensor& tensor : tensors) {
      const auto [begin, end, replicated] = tensor.held_by(rank, ranks);
      if (begin == end) continue;
      const bool whole = end - begin == tensor.elems();
      const std::vector<std::int64_t> shape = whole ? tensor.shape : std::vector{end - begin};
      table_.entries.push_back(
          {tensor.name, tensor.shape, Tensor::reserve(state_, tensor.dtype, shape), begin, replicated});
    }
    for (const auto& entry : table_.entries) views_.push_back(entry.view);
    state_.allocate(device_);
  }
  ~SyntheticRank() {
    copy_out_.reset();
    compute_.reset();
  }

  // REQUIRES: once a rank; the staging arena is allocated here.
  std::unique_ptr<checkpoint::Checkpointer> make_checkpointer(Files& files, comm::Control& control,
                                                              checkpoint::Options options) {
    auto checkpointer = std::make_unique<checkpoint::Checkpointer>(files, control, device_, *copy_out_,
                                                                   checkpoint::SaveMemory{host_, &snapshot_, &scalars_},
                                                                   table_, std::move(options));
    host_.allocate(device_);
    snapshot_.allocate(device_);
    scalars_.allocate(device_);
    return checkpointer;
  }

  // Enqueues the update that makes the state that of `step`, and records it.
  void advance_to(std::int64_t step) {
    compute_->launch({.label = {"update", Phase::kOptimizer}, .kind = "update", .reads = {}, .writes = views_},
                     [this, step](NativeStream) {
                       for_each_byte([&](std::byte& byte, std::uint64_t hash, std::uint64_t index) {
                         byte = state_byte(hash, step, index);
                       });
                     });
    compute_->record(updated_);
  }
  // The same where a save may be in flight, as a training step does it.
  void advance_behind(checkpoint::Checkpointer& checkpointer, std::int64_t step) {
    checkpointer.fence(*compute_);
    advance_to(step);
  }
  void begin(checkpoint::Checkpointer& checkpointer, std::int64_t step, checkpoint::Proof proof = {}) {
    advance_behind(checkpointer, step);
    begin_here(checkpointer, meta_at(step), std::move(proof));
  }
  // Of the state as it was last advanced.
  void begin_here(checkpoint::Checkpointer& checkpointer, const checkpoint::Meta& meta, checkpoint::Proof proof = {}) {
    checkpointer.look(*compute_);
    checkpointer.begin(updated_, meta, std::move(proof));
    if (checkpointer.holds() == checkpoint::Holds::kNextStep) checkpointer.fence(*compute_);
  }
  checkpoint::SaveReport save(checkpoint::Checkpointer& checkpointer, std::int64_t step) {
    begin(checkpointer, step);
    return checkpointer.finish();
  }

  // Is every byte of the state that of `step`?
  bool holds(std::int64_t step) {
    compute_->synchronize();
    copy_out_->synchronize();
    bool equal = true;
    for_each_byte([&](std::byte& byte, std::uint64_t hash, std::uint64_t index) {
      equal = equal && byte == state_byte(hash, step, index);
    });
    return equal;
  }

  Device& device() { return device_; }
  Stream& compute() { return *compute_; }
  Stream& copy_out() { return *copy_out_; }
  Arena& host() { return host_; }
  const TensorTable& table() const { return table_; }

 private:
  template <typename Visit>
  void for_each_byte(Visit visit) {
    for (const auto& entry : table_.entries) {
      const std::uint64_t hash = std::hash<std::string>()(entry.name);
      const std::uint64_t first = static_cast<std::uint64_t>(entry.begin_elems) * size_bytes(entry.view.dtype());
      std::byte* bytes = cpu::bytes(entry.view);
      for (std::uint64_t i = 0; i < entry.view.extent_bytes(); ++i) visit(bytes[i], hash, first + i);
    }
  }

  std::unique_ptr<Device> own_device_;
  Device& device_;
  Arena state_;
  Arena host_, snapshot_, scalars_;
  TensorTable table_;
  std::vector<Tensor> views_;
  Event updated_;
  std::unique_ptr<Stream> compute_;
  std::unique_ptr<Stream> copy_out_;
};

// How each rank of a world ended.
struct RankEnd {
  enum class Kind { kDone, kError, kCrash } kind = Kind::kDone;
  ExitCode code = ExitCode::kDone;
  std::string message;
};

// Runs `body(rank, control, world)` on `ranks` threads (on the calling thread for one rank) and tells how each ended.
inline std::vector<RankEnd> run_ranks_of_world(
    int ranks, const std::function<void(int, comm::Control&, comm::ThreadsWorld&)>& body) {
  comm::ThreadsWorld world(ranks);
  std::vector<RankEnd> ends(static_cast<std::size_t>(ranks));
  const auto run = [&](int rank) {
    const auto control = world.make_control(rank);
    RankEnd& end = ends[static_cast<std::size_t>(rank)];
    try {
      body(rank, *control, world);
    } catch (const SimulatedCrash&) {
      end.kind = RankEnd::Kind::kCrash;
      world.fail(rank, "it crashed");
    } catch (const Error& error) {
      end = {RankEnd::Kind::kError, error.exit_code(), error.what()};
      if (error.exit_code() == ExitCode::kPeerOrDeviceLost) end.kind = RankEnd::Kind::kCrash;
    } catch (const std::exception& error) {
      end = {RankEnd::Kind::kCrash, ExitCode::kDone, error.what()};
      world.fail(rank, error.what());
    }
  };
  if (ranks == 1) {
    run(0);
    return ends;
  }
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank) threads.emplace_back(run, rank);
  for (std::thread& thread : threads) thread.join();
  return ends;
}

inline std::vector<RankEnd> run_ranks(int ranks, const std::function<void(int, comm::Control&)>& body) {
  return run_ranks_of_world(ranks, [&](int rank, comm::Control& control, comm::ThreadsWorld&) { body(rank, control); });
}

inline bool all_done(const std::vector<RankEnd>& ends) {
  for (const RankEnd& end : ends) {
    if (end.kind != RankEnd::Kind::kDone) return false;
  }
  return true;
}

inline std::string describe(const std::vector<RankEnd>& ends) {
  std::string text;
  for (const RankEnd& end : ends) {
    text += "[" + std::to_string(static_cast<int>(end.kind)) + " " + std::to_string(static_cast<int>(end.code)) + " " +
            end.message + "]";
  }
  return text;
}

// Collects log lines of rank 0.
struct LogLines {
  std::vector<std::string> lines;
  checkpoint::Log log() {
    return [this](std::string_view line) { lines.emplace_back(line); };
  }
  std::string all() const {
    std::string text;
    for (const std::string& line : lines) text += line + "\n";
    return text;
  }
};

inline checkpoint::Options options_in(const std::filesystem::path& directory, LogLines* lines = nullptr) {
  checkpoint::Options options;
  options.directory = directory;
  options.write.chunk_bytes = 4096;  // many chunks in small files
  options.log = lines == nullptr ? checkpoint::Log([](std::string_view) {}) : lines->log();
  return options;
}

// Saves `steps` one after the other with `ranks` ranks.
inline std::vector<RankEnd> save_steps(Files& files, int ranks, const checkpoint::Options& options,
                                       const std::vector<std::int64_t>& steps) {
  return run_ranks(ranks, [&](int rank, comm::Control& control) {
    SyntheticRank state(rank, ranks);
    auto checkpointer = state.make_checkpointer(files, control, options);
    for (const std::int64_t step : steps) state.save(*checkpointer, step);
  });
}

// What a fresh start with `ranks` ranks finds: -1 nothing, otherwise the step whose state every rank holds exactly.
struct LoadResult {
  std::vector<RankEnd> ends;
  std::int64_t step = -1;
  bool exact = true;  // state and meta are those of `step` on every rank
};
inline LoadResult load_newest(Files& files, int ranks, const checkpoint::Options& options) {
  std::vector<std::int64_t> steps(static_cast<std::size_t>(ranks), -1);
  std::vector<char> exact(static_cast<std::size_t>(ranks), 1);
  LoadResult result;
  result.ends = run_ranks(ranks, [&](int rank, comm::Control& control) {
    const auto index = static_cast<std::size_t>(rank);
    SyntheticRank state(rank, ranks);
    auto checkpointer = state.make_checkpointer(files, control, options);
    state.advance_to(999'999);
    state.compute().synchronize();
    const auto meta = checkpointer->load_newest(model_text());
    if (!meta) {
      exact[index] = state.holds(999'999);  // untouched
      return;
    }
    checkpoint::Meta expected = meta_at(meta->step);
    expected.world_size = meta->world_size;
    steps[index] = meta->step;
    exact[index] = state.holds(meta->step) && *meta == expected;
  });
  result.step = steps.front();
  for (std::size_t rank = 0; rank < steps.size(); ++rank) {
    result.exact = result.exact && exact[rank] != 0 && steps[rank] == result.step;
  }
  return result;
}

}  // namespace strake::test
