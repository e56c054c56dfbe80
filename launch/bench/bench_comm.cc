#include "launch/bench/bench_comm.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <exception>
#include <iostream>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <thread>
#include <utility>

#include "comm/registered_memory.h"
#include "comm/threads/threads_world.h"
#include "launch/config.h"
#include "launch/job/agreement.h"
#include "launch/job/comm_switches.h"
#include "launch/job/devices.h"
#include "launch/job/rank_environment.h"
#include "launch/job/rank_memory.h"
#include "launch/job/same_on_all_ranks.h"
#include "launch/job/world.h"
#include "launch/machine/machine.h"
#include "launch/machine/machine_report.h"
#include "runtime/base/error.h"
#include "runtime/base/host_name.h"
#include "runtime/base/log.h"
#include "runtime/device/cpu/cpu_device.h"
#include "runtime/device/host_memory.h"
#include "runtime/telemetry/spread.h"

namespace strake::launch {
namespace {

using Json = nlohmann::ordered_json;

// Values whose sums over ranks are exact in every type: 0 and 1, of which up to 256 ranks add up in bf16 whatever is
// rounded where. They repeat after a prime number of elements, so that a part in a wrong place shows.
constexpr std::int64_t kPeriod = 4099;

float value(int rank, std::int64_t elem) {
  std::uint64_t bits =
      static_cast<std::uint64_t>(elem % kPeriod) * 0x9e3779b97f4a7c15u + static_cast<std::uint64_t>(rank);
  bits = (bits ^ (bits >> 29)) * 0xbf58476d1ce4e5b9u;
  return static_cast<float>(bits >> 63);
}

float sum_of_values(int ranks, std::int64_t elem) {
  float sum = 0;
  for (int rank = 0; rank < ranks; ++rank) sum += value(rank, elem);
  return sum;
}

template <typename T>
T rounded(float number) {
  if constexpr (std::is_same_v<T, BFloat16>) {
    return to_bfloat16(number);
  } else {
    return static_cast<T>(number);
  }
}

template <typename Visit>
auto with_type(DType dtype, Visit visit) {
  switch (dtype) {
    case DType::kF64:
      return visit(double{});
    case DType::kBF16:
      return visit(BFloat16{});
    default:
      return visit(float{});
  }
}

// The collectives of one rank.
class RankBench {
 public:
  RankBench(const BenchCommArguments& arguments, Device& device, comm::Communicator& communicator,
            comm::Control& control, RankWatch* watch)
      : arguments_(arguments),
        device_(device),
        communicator_(communicator),
        control_(control),
        watch_(watch),
        registered_(communicator),
        stream_(device.make_stream("comm", StreamPriority::kHigh)) {
    std::int64_t most_elems = 1;
    for (const Collective collective : arguments.collectives) {
      most_elems =
          std::max(most_elems, elems_of(collective, arguments.most_bytes, arguments.dtype, communicator.size()));
    }
    first_ = Tensor::reserve(memory_, arguments.dtype, {most_elems});
    second_ = Tensor::reserve(memory_, arguments.dtype, {most_elems});
    staged_ = Tensor::reserve(host_memory_, arguments.dtype, {std::min(most_elems, kStagedElems)});
    const std::uint64_t all_on_host = device_.kind() == DeviceKind::kCpu ? memory_.size_bytes() : 0;
    take_host_memory(
        control, all_on_host + host_memory_.size_bytes(),
        [&] {
          memory_.allocate(device_);
          host_memory_.allocate(device_);
          if (arguments.beside.has_value())
            product_.emplace(device_, *arguments.beside, arguments.spared_multiprocessors);
        },
        "A rank takes twice the largest size: lower --max");
    if (product_.has_value()) product_alone_us_ = product_->alone_us();
    registered_.add(memory_);
    for (std::int64_t i = 0; i <= arguments.iterations; ++i)
      marks_.push_back(device.make_mark(fmt::format("iteration {}", i)));
  }

  CommMeasurement measure(Collective collective, std::int64_t elems) {
    CommMeasurement measured;
    fill(first_, elems);
    run(collective, elems);
    finish();
    measured.wrong_elems = wrong_elems(collective, elems);
    const std::int64_t iterations = agreed_iterations(collective, elems);
    stream_->mark(marks_.front());
    for (std::int64_t begin = 0; begin < iterations; begin += kEnqueuedAtOnce) {
      const auto section = at(collective, elems, begin);  // a stream may have no room for more
      for (std::int64_t i = begin; i < std::min(begin + kEnqueuedAtOnce, iterations); ++i) {
        run(collective, elems);
        stream_->mark(marks_[static_cast<std::size_t>(i) + 1]);
      }
    }
    for (std::int64_t i = 0; i < iterations; ++i) await(collective, elems, i);
    finish();
    for (std::size_t i = 0; i < static_cast<std::size_t>(iterations); ++i) {
      measured.times_us.push_back(elapsed_us(marks_[i], marks_[i + 1]));
    }
    if (product_.has_value()) measured.beside = measure_beside(collective, elems, median_of(measured.times_us));
    return measured;
  }

 private:
  static constexpr std::int64_t kStagedElems = std::int64_t{1} << 20;
  static constexpr std::int64_t kFewestIterations = 3;
  static constexpr std::int64_t kEnqueuedAtOnce = 64;
  static constexpr double kMostBeside = 5000;  // collectives

  int rank() const { return communicator_.rank(); }
  int ranks() const { return communicator_.size(); }

  void run(Collective collective, std::int64_t elems) {
    const Label label{name_of(collective), Phase::kComm};
    const std::int64_t piece_elems = elems / ranks();
    const Tensor whole = first_.flat(0, elems);
    switch (collective) {
      case Collective::kAllReduce:
        return communicator_.all_reduce(*stream_, label, whole);
      case Collective::kReduceScatter:
        return communicator_.reduce_scatter(*stream_, label, second_.flat(0, piece_elems), whole);
      case Collective::kAllGather:
        return communicator_.all_gather(*stream_, label, second_.flat(0, elems), first_.flat(0, piece_elems));
      case Collective::kBroadcast:
        return communicator_.broadcast(*stream_, label, whole, 0);
      case Collective::kAllToAll: {
        const std::vector<std::int64_t> pieces(static_cast<std::size_t>(ranks()), piece_elems);
        return communicator_.all_to_all(*stream_, label, second_.flat(0, elems), pieces, whole, pieces);
      }
      case Collective::kBarrier:
        return communicator_.barrier(*stream_, label);
    }
  }

  // Each iteration is progress: all of them may take longer than a hang is waited for, over a slow link.
  std::optional<RankWatch::Section> at(Collective collective, std::int64_t elems, std::int64_t iteration) const {
    if (watch_ == nullptr) return std::nullopt;
    return watch_->enter(fmt::format("{} of {} elements, iteration {}", name_of(collective), elems, iteration + 1),
                         Patience::kLong);
  }

  void await(Collective collective, std::int64_t elems, std::int64_t iteration) {
    const Mark& end = marks_[static_cast<std::size_t>(iteration) + 1];
    if (device_.complete(end)) return;
    const auto section = at(collective, elems, iteration);
    while (!device_.complete(end)) {
      device_.check();
      communicator_.check();
      std::this_thread::sleep_for(std::chrono::milliseconds(2));  // seldom: it takes time from what is measured
    }
  }

  void finish() {
    stream_->synchronize();
    device_.check();
    communicator_.check();
  }

  // As many as fit into the time, by the slowest rank of a warm-up.
  std::int64_t agreed_iterations(Collective collective, std::int64_t elems) {
    finish();
    const auto begin = std::chrono::steady_clock::now();
    for (std::int64_t i = 0; i < arguments_.warmup; ++i) {
      const auto section = at(collective, elems, i);
      run(collective, elems);
      finish();
    }
    const double warmup_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    double slowest_s = 0;
    for (const std::string& text : control_.all_gather(fmt::format("{}", warmup_s)))
      slowest_s = std::max(slowest_s, std::stod(text));
    const double fit = arguments_.seconds / std::max(1e-9, slowest_s / static_cast<double>(arguments_.warmup));
    const std::int64_t fewest = std::min(kFewestIterations, arguments_.iterations);
    return fit >= static_cast<double>(arguments_.iterations) ? arguments_.iterations
                                                             : std::max(fewest, static_cast<std::int64_t>(fit));
  }

  double elapsed_us(const Mark& from, const Mark& to) const {
    return static_cast<double>(device_.elapsed(from, to).count()) / 1e3;
  }

  // Collectives for twice the time that the products take alone, a product among as many of them each, so that short
  // ones do not end before the host has enqueued the products.
  BesideTimes measure_beside(Collective collective, std::int64_t elems, double alone_us) {
    constexpr int kProducts = ProductBeside::kProducts;
    BesideTimes times{.product_alone_us = product_alone_us_, .product_us = {}, .comm_us = {}};
    double most = 0;
    for (const std::string& text : control_.all_gather(fmt::format("{}", product_alone_us_ / std::max(0.1, alone_us))))
      most = std::max(most, std::stod(text));
    const auto a_product = static_cast<std::size_t>(std::clamp(std::ceil(2 * most), 1.0, kMostBeside / kProducts));
    while (marks_.size() < a_product * kProducts + 1)
      marks_.push_back(device_.make_mark(fmt::format("iteration {}", marks_.size())));
    finish();
    stream_->mark(marks_.front());
    std::size_t done = 0;
    for (int product = 0; product < kProducts; ++product) {
      for (std::size_t i = 0; i < a_product; ++i) {
        run(collective, elems);
        stream_->mark(marks_[++done]);
      }
      product_->enqueue(product);
    }
    finish();
    product_->finish();
    // As times behind the first mark.
    const auto at = [&](const Mark& mark) { return elapsed_us(marks_.front(), mark); };
    for (int product = 0; product < kProducts; ++product) {
      const double begin = at(product_->begin(product)), end = at(product_->end(product));
      if (begin > 0 && end < at(marks_[done])) times.product_us.push_back(end - begin);
    }
    const double first = at(product_->begin(0)), last = at(product_->end(kProducts - 1));
    for (std::size_t i = 0; i < done; ++i) {
      const double begin = at(marks_[i]), end = at(marks_[i + 1]);
      if (begin > first && end < last) times.comm_us.push_back(end - begin);
    }
    return times;
  }

  void fill(const Tensor& tensor, std::int64_t elems) {
    for (std::int64_t begin = 0; begin < elems; begin += staged_.elems()) {
      const std::int64_t now = std::min(staged_.elems(), elems - begin);
      with_type(arguments_.dtype, [&]<typename T>(T) {
        const std::span<T> to = host_span<T>(staged_);
        const std::vector<T> values = period<T>([&](std::int64_t elem) { return value(rank(), elem); });
        for (std::int64_t i = 0; i < now; ++i)
          to[static_cast<std::size_t>(i)] = values[static_cast<std::size_t>((begin + i) % kPeriod)];
      });
      stream_->copy({"values"}, tensor.flat(begin, now), staged_.flat(0, now));
      stream_->synchronize();  // the staging is filled again
    }
  }

  template <typename T, typename Value>
  static std::vector<T> period(Value value_of) {
    std::vector<T> values;
    for (std::int64_t elem = 0; elem < kPeriod; ++elem) values.push_back(rounded<T>(value_of(elem)));
    return values;
  }

  // Elements [begin, begin + elems) of `tensor` that are not those from `first_elem` on of what `value_of` gives.
  template <typename Value>
  std::int64_t differing(const Tensor& tensor, std::int64_t begin, std::int64_t elems, std::int64_t first_elem,
                         Value value_of) {
    std::int64_t wrong = 0;
    for (std::int64_t done = 0; done < elems; done += staged_.elems()) {
      const std::int64_t now = std::min(staged_.elems(), elems - done);
      stream_->copy({"results"}, staged_.flat(0, now), tensor.flat(begin + done, now));
      stream_->synchronize();
      with_type(arguments_.dtype, [&]<typename T>(T) {
        const std::vector<T> expected = period<T>(value_of);
        const std::span<const T> got = host_span<T>(staged_);
        for (std::int64_t i = 0; i < now; ++i) {
          const T& right = expected[static_cast<std::size_t>((first_elem + done + i) % kPeriod)];
          if (std::memcmp(&got[static_cast<std::size_t>(i)], &right, sizeof(T)) != 0) ++wrong;
        }
      });
    }
    return wrong;
  }

  std::int64_t wrong_elems(Collective collective, std::int64_t elems) {
    const std::int64_t piece_elems = elems / ranks();
    const auto sum = [&](std::int64_t elem) { return sum_of_values(ranks(), elem); };
    std::int64_t wrong = 0;
    switch (collective) {
      case Collective::kAllReduce:
        return differing(first_, 0, elems, 0, sum);
      case Collective::kReduceScatter:
        return differing(second_, 0, piece_elems, rank() * piece_elems, sum);
      case Collective::kBroadcast:
        return differing(first_, 0, elems, 0, [](std::int64_t elem) { return value(0, elem); });
      case Collective::kAllGather:
      case Collective::kAllToAll:
        for (int peer = 0; peer < ranks(); ++peer) {
          // Of its first piece; of that for this rank.
          const std::int64_t first_elem = collective == Collective::kAllGather ? 0 : rank() * piece_elems;
          wrong += differing(second_, peer * piece_elems, piece_elems, first_elem,
                             [&](std::int64_t elem) { return value(peer, elem); });
        }
        return wrong;
      case Collective::kBarrier:
        return 0;
    }
    return wrong;
  }

  const BenchCommArguments& arguments_;
  Device& device_;
  comm::Communicator& communicator_;
  comm::Control& control_;
  RankWatch* const watch_;  // null: nobody notices hangs
  Arena memory_{"operands", MemoryKind::kDevice};
  Arena host_memory_{"values and results", MemoryKind::kHost};
  comm::RegisteredMemory registered_;
  std::optional<ProductBeside> product_;
  double product_alone_us_ = 0;
  Tensor first_, second_, staged_;
  std::vector<Mark> marks_;
  std::unique_ptr<Stream> stream_;  // drains before the memory goes
};

std::string as_text(const CommMeasurement& measured) {
  Json beside;
  if (measured.beside.has_value())
    beside = {measured.beside->product_alone_us, measured.beside->product_us, measured.beside->comm_us};
  return Json{measured.times_us, measured.wrong_elems, beside}.dump();
}

CommMeasurement measurement_from(const std::string& text) {
  const Json told = Json::parse(text);
  CommMeasurement measured{told.at(0), told.at(1)};
  if (const Json& beside = told.at(2); !beside.is_null())
    measured.beside = {.product_alone_us = beside.at(0), .product_us = beside.at(1), .comm_us = beside.at(2)};
  return measured;
}

struct Results {
  std::vector<CommFigure> figures;
  Connection connection;
  std::string device;
};

Results measure(BenchCommArguments arguments, const Config& config, Device& device, comm::Communicator& communicator,
                comm::Control& control, RankWatch* watch) {
  std::set<std::string> hosts;
  for (const std::string& host : control.all_gather(host_name())) hosts.insert(host);
  Results results{.figures = {},
                  .connection = {.backend = communicator.backend(),
                                 .device = device.target(),
                                 .ranks = control.size(),
                                 .hosts = static_cast<int>(hosts.size())},
                  .device = device.description()};
  if (const std::string idle = idle_switches(config.comm, results.connection); control.rank() == 0 && !idle.empty())
    Logger().warning("{}", idle);
  if (control.size() > 1) arguments.spared_multiprocessors = static_cast<int>(config.comm.spare_sms);
  results.figures = measure_collectives(arguments, device, communicator, control, watch);
  return results;
}

void say(const BenchCommArguments& arguments, const Config& config, const Results& results) {
  if (arguments.json) {
    Json out{{"format", "strake-bench-comm-1"},
             {"measured", utc_now()},
             {"command_line", arguments.command_line},
             {"launcher", arguments.threads > 0 ? "threads" : RankEnvironment::detect().launcher_name()},
             {"config", Json::parse(config_to_json(config))},
             {"backend", results.connection.backend},
             {"switches", switches_json(config.comm, results.connection)},
             {"ranks", results.connection.ranks},
             {"hosts", results.connection.hosts},
             {"device", results.device},
             {"dtype", strake::name_of(arguments.dtype)},
             {"warmup", arguments.warmup},
             {"product", arguments.beside.has_value() ? Json(arguments.beside->to_text()) : Json()},
             {"results", Json::array()}};
    for (const CommFigure& figure : results.figures) out["results"].push_back(to_json(figure));
    out["build"] = build_json();
    out["hardware"] = hardware_json(read_gpus());
    out["libraries"] = libraries_json();
    std::cout << out.dump(2, ' ', false, Json::error_handler_t::replace) << '\n';
    return;
  }
  const Connection& connection = results.connection;
  const std::string switches = switches_text(config.comm, connection);
  std::cout << fmt::format("bench comm: {} rank{} on {} host{}, backend {}{}, rank 0 on {}\n", connection.ranks,
                           connection.ranks == 1 ? "" : "s", connection.hosts, connection.hosts == 1 ? "" : "s",
                           connection.backend, switches.empty() ? "" : fmt::format(" ({})", switches), results.device);
  if (arguments.beside.has_value()) std::cout << "beside a product of " << arguments.beside->to_text() << '\n';
  std::cout << table_of(results.figures, arguments.dtype) << '\n';
}

// Known to all ranks: each has all figures.
void require_right(const Results& results) {
  std::int64_t wrong = 0;
  for (const CommFigure& figure : results.figures) wrong += figure.wrong_elems;
  if (wrong == 0) return;
  throw AgreedError(ExitCode::kFailure,
                    fmt::format("{} elements of results are wrong: collectives of backend {} cannot be trusted here",
                                wrong, results.connection.backend));
}

Config load(const BenchCommArguments& arguments) {
  Config defaults;
  defaults.data.train = {"none"};  // which no key may lack
  return load_config("", arguments.overrides, defaults);
}

Facts option_facts(const BenchCommArguments& arguments) {
  std::vector<std::string_view> collectives;
  for (const Collective collective : arguments.collectives) collectives.push_back(name_of(collective));
  return {{"--only", fmt::format("{}", fmt::join(collectives, ","))},
          {"--min", fmt::format("{} bytes", arguments.least_bytes)},
          {"--max", fmt::format("{} bytes", arguments.most_bytes)},
          {"--factor", fmt::format("{}", arguments.factor)},
          {"--warmup", fmt::format("{}", arguments.warmup)},
          {"--iterations", fmt::format("{}", arguments.iterations)},
          {"--seconds", fmt::format("{}", arguments.seconds)},
          {"--dtype", std::string(strake::name_of(arguments.dtype))},
          {"--beside", arguments.beside.has_value() ? fmt::format("{}x{}x{}", arguments.beside->rows,
                                                                  arguments.beside->outs, arguments.beside->ins)
                                                    : "nothing"}};
}

int bench_ranks(const BenchCommArguments& arguments, JobRank& job) {
  comm::Control& control = job.control;
  Config config;
  agree(control, [&] { config = load(arguments); });
  require_same_on_all_ranks(control, program_facts("bench comm"), kSameProgram);
  require_same_on_all_ranks(control, option_facts(arguments), kSameOptions);
  require_same_on_all_ranks(control, config_facts(config), kSameConfig);
  job.watch.set_limit(hang_limit(config));
  RankDevice device(config, control);
  const std::unique_ptr<comm::Communicator> communicator =
      make_communicator(device.base(), control, std::move(job.host), config.comm);
  const RankWatch::Communication communication(job.watch, *communicator);
  const Results results = measure(arguments, config, device.outer(), *communicator, control, &job.watch);
  if (control.rank() == 0) say(arguments, config, results);
  require_right(results);
  return 0;
}

// Ranks as threads of this process, each with a CPU device of its own.
int bench_threads(const BenchCommArguments& arguments) {
  const Config config = load(arguments);
  if (RankEnvironment::detect().under_launcher()) {
    throw ConfigError("--threads: the ranks are threads of one process; start it without mpirun or srun");
  }
  if (config.run.device == DeviceChoice::kCuda)
    throw ConfigError("--threads: threads compute on the CPU; start a process for each GPU");
  require_backend_for(config.comm.backend, {DeviceKind::kCpu, "--threads"});
  comm::ThreadsWorld world(static_cast<int>(arguments.threads));
  std::mutex mutex;
  std::exception_ptr first;
  Results results;
  std::vector<std::thread> threads;
  for (int rank = 0; rank < world.size(); ++rank) {
    threads.emplace_back([&, rank] {
      try {
        const auto device = make_cpu_device();
        const auto control = world.make_control(rank);
        const auto communicator = make_communicator(*device, *control, world.make_communicator(rank), config.comm);
        Results own = measure(arguments, config, *device, *communicator, *control, nullptr);
        if (rank == 0) results = std::move(own);
      } catch (const std::exception& error) {
        world.fail(rank, error.what());
        const std::lock_guard lock(mutex);
        if (first == nullptr) first = std::current_exception();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  if (first != nullptr) std::rethrow_exception(first);
  say(arguments, config, results);
  require_right(results);
  return 0;
}

}  // namespace

std::vector<CommFigure> measure_collectives(const BenchCommArguments& arguments, Device& device,
                                            comm::Communicator& communicator, comm::Control& control,
                                            RankWatch* watch) {
  RankBench bench(arguments, device, communicator, control, watch);
  std::vector<CommFigure> figures;
  for (const Collective collective : arguments.collectives) {
    std::vector<std::int64_t> sizes = sizes_between(arguments.least_bytes, arguments.most_bytes, arguments.factor);
    if (collective == Collective::kBarrier) sizes = {0};
    for (const std::int64_t size : sizes) {
      std::optional<RankWatch::Section> section;
      if (watch != nullptr) {
        section.emplace(watch->enter(fmt::format("{} of {} bytes", name_of(collective), size), Patience::kLong));
      }
      const std::int64_t elems = elems_of(collective, size, arguments.dtype, control.size());
      const CommMeasurement own = bench.measure(collective, elems);
      std::vector<CommMeasurement> all;
      const int asked = watch != nullptr ? watch->asked_to_stop() : 0;
      int stopped_by = 0;
      for (const std::string& text : control.all_gather(Json{as_text(own), asked}.dump())) {
        const Json told = Json::parse(text);
        if (stopped_by == 0) stopped_by = told.at(1);
        all.push_back(measurement_from(told.at(0).get<std::string>()));
      }
      if (stopped_by != 0) {
        throw AgreedError(ExitCode::kInterrupted, fmt::format("stopped by {}", name_of_signal(stopped_by)));
      }
      figures.push_back(figure_of(collective, elems, arguments.dtype, all));
    }
  }
  return figures;
}

int run_bench_comm(const BenchCommArguments& arguments) {
  if (arguments.least_bytes > arguments.most_bytes) {
    throw ConfigError(fmt::format("--min: {} bytes are more than --max: {} bytes; raise --max, or lower --min",
                                  arguments.least_bytes, arguments.most_bytes));
  }
  if (arguments.threads > 0) return bench_threads(arguments);
  return run_as_rank([&](JobRank& job) { return bench_ranks(arguments, job); });
}

}  // namespace strake::launch
