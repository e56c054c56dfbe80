#include "checkpoint/checkpointer.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <exception>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include "checkpoint/agreement.h"
#include "checkpoint/compatibility.h"
#include "checkpoint/h5_file.h"
#include "checkpoint/image_proof.h"
#include "checkpoint/load_plan.h"
#include "checkpoint/manifest.h"
#include "checkpoint/retention.h"
#include "checkpoint/shard_file.h"
#include "checkpoint/shard_plan.h"
#include "checkpoint/staging.h"
#include "checkpoint/verified_reads.h"
#include "checkpoint/writer_thread.h"
#include "runtime/base/check.h"
#include "runtime/base/error.h"
#include "runtime/base/log.h"
#include "runtime/device/host_memory.h"

namespace strake::checkpoint {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using Clock = std::chrono::steady_clock;

constexpr std::string_view kLatestName = "LATEST";

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

std::string rank_file_name(int rank) { return fmt::format("rank-{:04d}.h5", rank); }

// The shape of the dataset that holds a range: the tensor's own if it is all of it, otherwise flat.
std::vector<std::int64_t> dataset_shape(const HeldRange& held, const PlannedRange& range) {
  std::int64_t elems = 1;
  for (const std::int64_t extent : held.global_shape) elems *= extent;
  return range.elems == elems ? held.global_shape : std::vector<std::int64_t>{range.elems};
}

}  // namespace

struct Checkpointer::Impl {
  // One range that this rank writes, in the order of `saved_ranges`.
  struct Shard {
    std::string tensor;
    DType dtype;
    std::vector<std::int64_t> global_shape;
    std::int64_t begin_elems;
    std::int64_t elems;
  };

  Impl(Files& files_in, comm::Control& control_in, Device& device_in, Stream& copy_out_in, SaveMemory memory,
       TensorTable table_in, Options options_in)
      : files(files_in),
        control(control_in),
        device(device_in),
        copy_out(copy_out_in),
        table(std::move(table_in)),
        options(std::move(options_in)) {
    STRAKE_CHECK(options.keep >= 1, "at least one checkpoint is kept");
    STRAKE_CHECK(options.write.chunk_bytes >= kMinChunkBytes && options.write.chunk_bytes <= kMaxChunkBytes,
                 "chunk size");
    if (!options.log) options.log = [](std::string_view line) { Logger().write(LogLevel::kWarning, line); };
    agree_on_root(control, [&] {
      use_folder(fmt::format("the checkpoint folder {}", options.directory.string()), [&] {
        files.make_directories(options.directory);
        lock = std::make_unique<FolderLock>(files, options.directory / kLockName, options.log);
        remove_leftovers(files, options.directory);
        require_writable(files, options.directory);
      });
      return std::string();
    });
    plan(memory);
    strategy = make_strategy(options.strategy, device, copy_out, saved_ranges);
    if (options.paranoid) {
      STRAKE_CHECK(memory.scalars != nullptr, "fingerprints on the device need memory there");
      image_proof.emplace(device, *memory.scalars, memory.host, saved_ranges);
    }
    if (strategy->writes_beside()) {
      votes = control.duplicate();
      writer.emplace();
    }
  }
  ~Impl() {
    if (!saving || !writer.has_value()) return;
    try {
      writer->wait();
    } catch (const std::exception& error) {  // the run ends by another one
      if (root()) options.log(fmt::format("the checkpoint of step {} was not written: {}", saving_step, error.what()));
    } catch (...) {
    }
  }

  bool root() const { return control.rank() == 0; }
  fs::path temporary(std::int64_t step) const {
    return options.directory / fmt::format("{}.tmp-{}", step_name(step), options.attempt);
  }

  // What each rank holds. Not kept: of many ranks it is much.
  std::vector<std::vector<HeldRange>> gather_held() const {
    std::vector<std::vector<HeldRange>> held_by_rank;
    for (const std::string& text : control.all_gather(to_text(held)))
      held_by_rank.push_back(held_ranges_from_text(text));
    return held_by_rank;
  }

  // Decides with all ranks who writes what, and lays out this rank's file and staging memory.
  void plan(const SaveMemory& memory) {
    for (const TensorTable::Entry& entry : table.entries) {
      STRAKE_CHECK(valid_tensor_name(entry.name), "tensor name '" + entry.name + "' cannot be stored");
      STRAKE_CHECK(entry.view.contiguous() && entry.view.elems() > 0, "tensor '" + entry.name + "' is not one range");
    }
    held = held_ranges(table);
    const std::vector<std::vector<HeldRange>> held_by_rank = gather_held();
    std::set<std::string_view> names;
    for (const std::vector<HeldRange>& ranges : held_by_rank) {
      for (const HeldRange& range : ranges) {
        if (names.insert(range.name).second) held_anywhere.push_back(range);
      }
    }
    planned = plan_shards(held_by_rank)[static_cast<std::size_t>(control.rank())];
    const Staging reserved = reserve_staging(memory.host, table, planned);
    staging = reserved.all;
    std::vector<Tensor> on_device(planned.size());
    if (options.strategy == StrategyKind::kDevice) {
      STRAKE_CHECK(memory.device != nullptr, "a snapshot on the device needs memory there");
      on_device = reserve_shard(*memory.device, table, planned);
    }
    std::vector<H5Dataset> datasets;
    for (const PlannedRange& range : planned) {
      const TensorTable::Entry& entry = table.entries[range.entry];
      saved_ranges.push_back({"snapshot " + entry.name,
                              entry.view.flat(range.begin_elems - entry.begin_elems, range.elems),
                              on_device[shards.size()], reserved.shard[shards.size()]});
      datasets.push_back({entry.name, entry.view.dtype(), dataset_shape(held[range.entry], range), entry.global_shape,
                          range.begin_elems});
      shards.push_back({entry.name, entry.view.dtype(), entry.global_shape, range.begin_elems, range.elems});
    }

    const std::pair<std::string, std::int64_t> attributes[] = {
        {"strake_format", 1}, {"rank", control.rank()}, {"world_size", control.size()}};
    image = lay_out_h5_file(datasets, attributes);
    total_bytes = 0;
    for (const std::string& text : control.all_gather(std::to_string(image.size_bytes)))
      total_bytes += std::stoull(text);
  }

  void begin(const Event& state_final, Meta meta, Proof proof) {
    STRAKE_CHECK(!saving, "one save at a time");
    STRAKE_CHECK(meta.step >= 0 && meta.tokens >= 0 && meta.attempt >= 0, "negative counts in a checkpoint");
    meta.world_size = control.size();
    called = Clock::now();
    times = {};
    saving_step = meta.step;
    if (!writer.has_value()) {
      try {
        persist(control, meta, proof, &state_final);
      } catch (...) {
        failure = std::current_exception();
      }
    } else {
      leave(state_final);
      must_fence = true;
      writer->start([this, meta = std::move(meta), proof = std::move(proof)] { persist_beside(meta, proof); });
    }
    saving = true;
    times.returned_s = seconds_since(called);
  }

  SaveReport finish() {
    STRAKE_CHECK(saving, "no save is in flight");
    saving = false;
    if (writer.has_value()) writer->wait();
    if (failure != nullptr) std::rethrow_exception(std::exchange(failure, nullptr));
    return times;
  }

  // --- the thread that writes, from here to discard(): the training thread, where the strategy holds that ---

  void persist_beside(const Meta& meta, const Proof& proof) {
    try {
      persist(*votes, meta, proof, nullptr);
    } catch (const Error& error) {
      if (error.exit_code() == ExitCode::kPeerOrDeviceLost) failed_alone.store(true, std::memory_order_relaxed);
      throw;
    } catch (...) {
      failed_alone.store(true, std::memory_order_relaxed);
      throw;
    }
  }

  // `state_final`: where the state has not left yet.
  void persist(comm::Control& ranks, Meta meta, const Proof& proof, const Event* state_final) {
    if (proof) proof(ranks, meta);
    if (agree_on_root(ranks, [&] { return prepare(meta.step); }) == "committed") return;
    bool committed = false;  // on rank 0
    try {
      const std::vector<std::string> written = agree(ranks, [&] {
        if (state_final != nullptr) leave(*state_final);
        strategy->arrive();
        hit(options.failpoints, "ckpt.snap.end");
        times.snapshot_s = seconds_since(called);
        if (image_proof) image_proof->require(meta.step, !strategy->writes_beside());
        return write(meta.step);
      });
      hit(options.failpoints, "ckpt.vote");
      agree_on_root(ranks, [&] {
        commit(meta, written);
        committed = true;
        return std::string();
      });
    } catch (const Error&) {
      // What is durable stays, also when a peer died before it heard so.
      if (root() && !committed) discard(meta.step);
      throw;
    }
    times.durable_s = seconds_since(called);
    times.bytes = image.size_bytes;
    if (root()) tidy(meta.step);
  }

  // Step 0 of the protocol: is there room, and a fresh folder to write in. "committed": nothing to do.
  std::string prepare(std::int64_t step) {
    lock->require_held();
    const fs::path target = options.directory / step_name(step);
    if (files.exists(target)) {
      try {
        verify_checkpoint(files, target);
        options.log(fmt::format("{}: is there already and whole; left as it is", target.string()));
        return "committed";
      } catch (const CorruptError& error) {
        options.log(fmt::format("{}; set aside as {}", error.what(), set_aside(files, options.directory, step)));
      }
    }
    files.remove_all(temporary(step));
    const std::uint64_t needed_bytes = total_bytes + total_bytes / 10;
    const std::uint64_t free_bytes = files.free_bytes(options.directory);
    if (free_bytes < needed_bytes) {
      throw io_error(
          fmt::format("write a checkpoint: {:.3f} MiB are needed, {:.3f} MiB are free",
                      static_cast<double>(needed_bytes) / (1 << 20), static_cast<double>(free_bytes) / (1 << 20)),
          options.directory, ENOSPC);
    }
    files.make_directory(temporary(step));
    hit(options.failpoints, "ckpt.preflight");
    return "go";
  }

  // Step 1: the state leaves device memory. By the training thread.
  void leave(const Event& state_final) {
    hit(options.failpoints, "ckpt.snap.begin");
    strategy->leave(state_final);
    hit(options.failpoints, "ckpt.snap.mid");
  }

  // Steps 2 and 3: this rank's file, durable. Returns the report of step 4.
  std::string write(std::int64_t step) {
    std::vector<std::span<const std::byte>> payloads;
    for (const SavedRange& range : saved_ranges) payloads.push_back(host_bytes(range.on_host));
    const FileRecord record = write_shard_file(files, temporary(step) / rank_file_name(control.rank()), image, payloads,
                                               options.write, options.failpoints);
    Json report = {
        {"name", record.name}, {"bytes", record.size_bytes}, {"crc32c", record.chunk_crcs}, {"shards", Json::array()}};
    for (std::size_t i = 0; i < shards.size(); ++i) {
      const Shard& shard = shards[i];
      report["shards"].push_back({shard.tensor, static_cast<int>(shard.dtype), shard.global_shape,
                                  image.payload_offsets[i], shard.begin_elems, shard.elems});
    }
    hit(options.failpoints, "ckpt.report");
    return report.dump();
  }

  Manifest assemble(const Meta& meta, const std::vector<std::string>& reports) const {
    Manifest manifest;
    manifest.meta = meta;
    std::map<std::string, TensorRecord> tensors;
    for (const std::string& text : reports) {
      const Json report = Json::parse(text);
      manifest.files.push_back({report.at("name"), report.at("bytes"), options.write.chunk_bytes, report.at("crc32c")});
      for (const Json& item : report.at("shards")) {
        TensorRecord& tensor = tensors[item.at(0)];
        tensor.name = item.at(0);
        tensor.dtype = static_cast<DType>(item.at(1).get<int>());
        tensor.shape = item.at(2).get<std::vector<std::int64_t>>();
        tensor.shards.push_back({manifest.files.size() - 1, item.at(3), item.at(4), item.at(5)});
      }
    }
    for (auto& [name, tensor] : tensors) {
      std::sort(tensor.shards.begin(), tensor.shards.end(),
                [](const ShardRecord& a, const ShardRecord& b) { return a.begin_elems < b.begin_elems; });
      manifest.tensors.push_back(std::move(tensor));
    }
    return manifest;
  }

  // Steps 6 to 9, on rank 0: everything is on disk; make it count.
  void commit(const Meta& meta, const std::vector<std::string>& reports) {
    const fs::path folder = temporary(meta.step);
    const std::string text = serialize(assemble(meta, reports));
    // The reader's own proof that every element is there once: what we would not load is not committed.
    try {
      parse_manifest(text, (folder / kManifestName).string());
    } catch (const CorruptError& error) {
      STRAKE_CHECK(false, std::string("the ranks' tables do not make a whole: ") + error.what());
    }
    hit(options.failpoints, "ckpt.cover");
    replace_file(files, folder / kManifestName, text);
    hit(options.failpoints, "ckpt.manifest.renamed");
    files.sync_directory(folder);  // the names of the ranks' files and of the manifest
    hit(options.failpoints, "ckpt.manifest.synced");
    lock->require_held();  // writing may have taken long
    files.rename(folder, options.directory / step_name(meta.step));
    hit(options.failpoints, "ckpt.rename");
    files.sync_directory(options.directory);
    hit(options.failpoints, "ckpt.durable");
  }

  // Steps 10 and 11, on rank 0. The checkpoint is durable: what fails here is said and done without, each by itself.
  void tidy(std::int64_t step) {
    const auto attempt = [&](auto work) {
      try {
        work();
      } catch (const Error& error) {
        options.log(
            fmt::format("the checkpoint of step {} is durable, tidying up behind it failed: {}", step, error.what()));
      }
    };
    attempt([&] {
      replace_file(files, options.directory / kLatestName, step_name(step) + "\n");
      hit(options.failpoints, "ckpt.latest");
    });
    attempt([&] {
      const Retention rule{options.keep, options.keep_every, options.keep_best};
      remove_retired(files, options.directory, judge(files, options.directory, rule, loaded_step), options.failpoints);
    });
  }

  // An attempt failed: nothing of it may look committed, and its space is wanted back.
  void discard(std::int64_t step) {
    try {
      const fs::path target = options.directory / step_name(step);
      if (!files.exists(temporary(step)) && files.exists(target)) files.rename(target, temporary(step));
      files.remove_all(temporary(step));
    } catch (const Error& error) {
      options.log(fmt::format("the rest of a failed checkpoint stays until the next start: {}", error.what()));
    }
  }

  std::optional<Meta> load_newest(const std::string& expected_model, const std::optional<Exchange>& exchange) {
    STRAKE_CHECK(!saving, "a save is in flight");
    const std::string listed = agree_on_root(control, [&] {
      Json list = {{"steps", committed_steps(files, options.directory)},
                   {"damaged", !set_aside_steps(files, options.directory).empty()}};
      return list.dump();
    });
    const auto steps = Json::parse(listed).at("steps").get<std::vector<std::int64_t>>();
    std::string why;
    for (std::size_t i = 0; i < steps.size(); ++i) {
      try {
        return load(steps[i], expected_model, exchange);
      } catch (const CorruptError& error) {
        why = error.what();
      }
      agree_on_root(control, [&] {
        const std::string name = set_aside(files, options.directory, steps[i]);
        options.log(fmt::format("checkpoint of step {} is damaged ({}); set aside as {}; {}", steps[i], why, name,
                                i + 1 < steps.size() ? fmt::format("trying step {}, {} steps are lost", steps[i + 1],
                                                                   steps[i] - steps[i + 1])
                                                     : std::string("there is no older one")));
        return std::string();
      });
    }
    if (steps.empty() && !Json::parse(listed).at("damaged").get<bool>()) return std::nullopt;
    throw NoCheckpointError(fmt::format("{}: no valid checkpoint is left{}; restore one, or start a new run folder",
                                        options.directory.string(), why.empty() ? "" : "; the last one: " + why));
  }

  Meta load(std::int64_t step, const std::string& expected_model, const std::optional<Exchange>& exchange) {
    const Clock::time_point begun = Clock::now();
    const fs::path folder = options.directory / step_name(step);
    // One rank reads the manifest, so that all judge the same bytes.
    const std::string text = agree_on_root(control, [&] { return serialize(read_manifest(files, folder)); });
    const Manifest manifest = parse_manifest(text, (folder / kManifestName).string());
    agree(control, [&] {
      check_compatible(manifest, held_anywhere, expected_model, ExtraTensors::kRefuse, folder.string());
      return std::string();
    });
    const auto rank = static_cast<std::size_t>(control.rank());
    const std::vector<std::vector<HeldRange>> held_by_rank = gather_held();
    const std::vector<std::vector<PlannedRange>> planned_by_rank = plan_shards(held_by_rank);
    LoadReport report;
    agree(control, [&] {
      std::vector<std::span<std::byte>> parts;
      for (const SavedRange& range : saved_ranges) parts.push_back(host_bytes(range.on_host));
      const ReadTotals totals =
          read_verified(files, folder, manifest, plan_reads(manifest, held_by_rank, planned_by_rank, rank), parts,
                        options.read_threads);
      report.read_bytes = totals.bytes;
      report.files = totals.files;
      return std::string();
    });
    report.read_s = seconds_since(begun);
    // All is proven, on every rank: only now device memory is written.
    for (const SavedRange& range : saved_ranges)
      copy_out.copy({"load checkpoint", Phase::kCheckpoint}, range.state, range.on_host);
    copy_out.synchronize();
    const SharedRanges shared = shared_ranges(held_by_rank, planned_by_rank, rank);
    report.passed_on = exchange.has_value() && !shared.holders.empty();
    if (report.passed_on) {
      pass_on(shared, table, *exchange);
    } else {
      agree(control, [&] {
        const ReadTotals totals = load_tensors(files, folder, manifest, not_planned(), copy_out, staging);
        report.read_bytes += totals.bytes;
        report.files += totals.files;
        return std::string();
      });
    }
    for (const TensorTable::Entry& entry : table.entries) report.held_bytes += entry.view.extent_bytes();
    report.seconds = seconds_since(begun);
    load_report = report;
    loaded_step = step;
    return manifest.meta;
  }

  // What this rank holds and would not write.
  TensorTable not_planned() const {
    TensorTable rest;
    const auto add = [&](const TensorTable::Entry& entry, std::int64_t begin, std::int64_t end) {
      if (begin == end) return;
      rest.entries.push_back(entry);
      rest.entries.back().view = entry.view.flat(begin - entry.begin_elems, end - begin);
      rest.entries.back().begin_elems = begin;
    };
    auto range = planned.begin();
    for (std::size_t i = 0; i < table.entries.size(); ++i) {
      const TensorTable::Entry& entry = table.entries[i];
      std::int64_t at = entry.begin_elems;
      for (; range != planned.end() && range->entry == i; ++range) {
        add(entry, at, range->begin_elems);
        at = range->begin_elems + range->elems;
      }
      add(entry, at, entry.begin_elems + entry.view.elems());
    }
    return rest;
  }

  Files& files;
  comm::Control& control;
  Device& device;
  Stream& copy_out;
  const TensorTable table;
  Options options;
  std::unique_ptr<FolderLock> lock;      // rank 0
  std::vector<HeldRange> held;           // by this rank
  std::vector<HeldRange> held_anywhere;  // a part of each tensor that any rank holds
  std::vector<PlannedRange> planned;     // what this rank writes, and reads first
  std::vector<Shard> shards;
  std::vector<SavedRange> saved_ranges;
  Tensor staging;  // of loading; may share the shards' staging memory
  H5Image image;
  std::uint64_t total_bytes = 0;  // of all ranks' files
  std::int64_t loaded_step = -1;
  LoadReport load_report;
  std::unique_ptr<Strategy> strategy;
  std::optional<ImageProof> image_proof;

  bool saving = false;  // begun and not finished
  std::int64_t saving_step = -1;
  bool must_fence = false;
  // Of the save in flight. The thread that writes fills in what it comes to, finish() reads.
  Clock::time_point called;
  SaveReport times;
  std::exception_ptr failure;             // where no thread writes beside
  std::atomic<bool> failed_alone{false};  // so that the others do not know
  std::unique_ptr<comm::Control> votes;   // of that thread; null: there is none
  std::optional<WriterThread> writer;     // last: it uses all of the above
};

Checkpointer::Checkpointer(Files& files, comm::Control& control, Device& device, Stream& copy_out, SaveMemory memory,
                           TensorTable table, Options options)
    : impl_(std::make_unique<Impl>(files, control, device, copy_out, memory, std::move(table), std::move(options))) {}

Checkpointer::~Checkpointer() = default;

void Checkpointer::begin(const Event& state_final, const Meta& meta, Proof proof) {
  impl_->begin(state_final, meta, std::move(proof));
}

void Checkpointer::look(Stream& updating) {
  if (impl_->image_proof) impl_->image_proof->look(updating);
}

Holds Checkpointer::holds() const { return impl_->strategy->holds(); }

bool Checkpointer::must_fence() const { return impl_->must_fence; }

void Checkpointer::fence(Stream& updating) {
  if (!std::exchange(impl_->must_fence, false)) return;
  updating.wait(impl_->strategy->left(), {"update waits for the snapshot", Hazard::kWriteAfterRead});
}

bool Checkpointer::in_flight() const { return impl_->saving; }

bool Checkpointer::ended() const { return !impl_->writer.has_value() || impl_->writer->idle(); }

void Checkpointer::check() {
  if (impl_->saving && impl_->failed_alone.load(std::memory_order_relaxed)) impl_->finish();
}

void Checkpointer::wait_for(std::chrono::duration<double> limit) {
  if (impl_->writer.has_value()) impl_->writer->wait_for(limit);
}

SaveReport Checkpointer::finish() { return impl_->finish(); }

std::optional<Meta> Checkpointer::load_newest(const std::string& expected_model,
                                              const std::optional<Exchange>& exchange) {
  return impl_->load_newest(expected_model, exchange);
}

const LoadReport& Checkpointer::loaded() const { return impl_->load_report; }

}  // namespace strake::checkpoint
