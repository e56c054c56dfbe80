#include "launch/report/run_report.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <initializer_list>

namespace strake::launch {
namespace {

std::string types_text(const StartFacts& facts) {
  std::string out(name_of(facts.dtype));
  if (facts.gradient_dtype != facts.dtype) out += fmt::format(", gradients {}", name_of(facts.gradient_dtype));
  if (facts.ranks > 1 && facts.wire_dtype != facts.gradient_dtype) {
    out += fmt::format(", summed over ranks in {}", name_of(facts.wire_dtype));
  }
  return out;
}

std::string connection_text(const StartFacts& facts) {
  return fmt::format(", connected by {}{}", facts.communicator,
                     facts.switches.empty() ? "" : fmt::format(" ({})", facts.switches));
}

// "1 step", "2 steps".
std::string counted_text(std::int64_t count, std::string_view what) {
  return fmt::format("{} {}{}", count, what, count == 1 ? "" : "s");
}

double in_gib(std::size_t bytes) { return static_cast<double>(bytes) / (std::size_t{1} << 30); }

std::string memory_text(const StartFacts& facts) {
  const double all = in_gib(facts.device_bytes + facts.host_bytes);
  const int digits = all < 1 ? 3 : 1;
  std::string out = fmt::format("{:.{}f} GiB a rank", all, digits);
  if (facts.memory_apart && facts.device_bytes > 0 && facts.host_bytes > 0) {
    out += fmt::format(" ({:.{}f} of the device, {:.{}f} of the host)", in_gib(facts.device_bytes), digits,
                       in_gib(facts.host_bytes), digits);
  }
  if (facts.ranks > 1) out += "; gradients in " + counted_text(static_cast<std::int64_t>(facts.buckets), "bucket");
  return out;
}

std::string data_text(const StartFacts& facts) {
  const std::int64_t samples = (facts.last_step - facts.first_step) * facts.global_batch;
  std::string out = facts.last_step == facts.first_step + 1
                        ? fmt::format("step {} is", facts.last_step)
                        : fmt::format("steps {} to {} are", facts.first_step + 1, facts.last_step);
  out += fmt::format(" {:.2f} epochs of {} ({} sequence{})",
                     static_cast<double>(samples) / static_cast<double>(facts.sequences), facts.train_tokens,
                     count_text(static_cast<double>(facts.sequences)), facts.sequences == 1 ? "" : "s");
  const std::int64_t done = facts.first_sample / facts.sequences;
  const std::int64_t to_next = (done + 1) * facts.sequences - facts.first_sample;
  if (samples > to_next) {
    out += fmt::format("\nepoch {} begins in step {}: sequences are seen again from there on", done + 2,
                       facts.first_step + to_next / facts.global_batch + 1);
  }
  return out;
}

bool is_one_of(std::string_view argument, std::initializer_list<std::string_view> keys) {
  return std::any_of(keys.begin(), keys.end(), [&](std::string_view key) {
    return argument.starts_with(key) && argument.substr(key.size()).starts_with('=');
  });
}

std::string launcher_text(const EndFacts& facts) {
  switch (facts.environment.launcher) {
    case RankEnvironment::Launcher::kPlain:
      return "";
    case RankEnvironment::Launcher::kMpirun:
      return fmt::format("mpirun{}{} --bind-to none -n {} ", facts.root ? " --allow-run-as-root" : "",
                         facts.oversubscribed ? " --oversubscribe" : "", facts.environment.ranks);
    case RankEnvironment::Launcher::kSrun:
      return fmt::format("srun --mpi=pmix -n {} ", facts.environment.ranks);
  }
  return "";
}

std::string train_command(const EndFacts& facts) {
  // Behind the end only with the weights of the end: steps that are gone are done again.
  const bool done = facts.checkpoint.has_value() && *facts.checkpoint >= facts.steps;
  std::string out = launcher_text(facts);
  for (const std::string& argument : facts.command_line) {
    if (is_one_of(argument, {"run.dir", "checkpoint.resume", "train.stop_at"})) continue;
    if (done && is_one_of(argument, {"train.steps"})) continue;
    out += shell_quote(argument) + ' ';
  }
  out += shell_quote("run.dir=" + facts.run_dir);
  out += " checkpoint.resume=true";
  if (facts.stop_at > 0) out += " train.stop_at=0";
  if (done) out += fmt::format(" train.steps={}", 2 * facts.steps);
  return out;
}

std::string how_it_ended(const EndFacts& facts) {
  const TrainResult& result = facts.result;
  const std::string time = duration_text(facts.duration);
  if (result.stop_signal != 0 && result.steps_done < facts.steps) {
    const char* name = ::sigabbrev_np(result.stop_signal);
    return fmt::format("stopped by SIG{} after step {} of {}, {}", name == nullptr ? "?" : name, result.steps_done,
                       facts.steps, time);
  }
  if (result.steps_done < facts.steps) {
    return fmt::format("stopped by train.stop_at after step {} of {}, {}", result.steps_done, facts.steps, time);
  }
  return fmt::format("done: {} in {}", counted_text(result.steps_done - result.first_step, "step"), time);
}

std::string losses(const TrainResult& result) {
  std::string out;
  if (result.first_loss.has_value() && result.last_loss.has_value()) {
    out = fmt::format("loss {:.4f} in step {}, {:.4f} in step {}", *result.first_loss, result.first_step + 1,
                      *result.last_loss, result.steps_done);
  }
  if (result.last_held_out.has_value()) {
    out += fmt::format("{}held-out loss {:.4f} after step {}", out.empty() ? "" : "\n", result.last_held_out->loss,
                       result.last_held_out->step);
  }
  if (result.best_held_out.has_value()) {
    if (result.last_held_out.has_value() && result.best_held_out->step == result.last_held_out->step) {
      out += ", the best";
    } else {
      out += fmt::format(", best {:.4f} after step {}", result.best_held_out->loss, result.best_held_out->step);
    }
  }
  return out;
}

// Read once, and gone with this process: `strake train <(...)`, /dev/stdin.
bool cannot_be_read_again(std::string_view path) {
  return path.starts_with("/dev/fd/") || path == "/dev/stdin" || path.starts_with("/proc/");
}

std::string next_commands(const EndFacts& facts) {
  const std::string program = shell_quote(facts.command_line.empty() ? "strake" : facts.command_line.front());
  const std::string run = shell_quote(facts.run_dir);
  std::string out = "next:\n";
  if (facts.generates) out += fmt::format("  {} generate {}\n", program, run);
  out += fmt::format("  {} export {} --out {}", program, run,
                     shell_quote((std::filesystem::path(facts.run_dir) / "export").string()));
  const bool repeats = std::none_of(facts.command_line.begin() + (facts.command_line.empty() ? 0 : 1),
                                    facts.command_line.end(), cannot_be_read_again);
  return repeats ? fmt::format("{}\n  {}", out, train_command(facts)) : out;
}

}  // namespace

StopTarget StopTarget::detect() {
  StopTarget target;
  target.launcher = RankEnvironment::detect().launcher;
  const auto text = [](const char* variable) {
    const char* value = std::getenv(variable);
    return std::string(value == nullptr ? "" : value);
  };
  if (target.launcher == RankEnvironment::Launcher::kPlain) target.process = ::getpid();
  if (target.launcher == RankEnvironment::Launcher::kMpirun) {
    // On another host than mpirun the parent is a daemon of it, which passes no signals on.
    std::string parent;
    std::getline(std::ifstream(fmt::format("/proc/{}/comm", ::getppid())), parent);
    for (const std::string_view name : {"mpirun", "mpiexec", "orterun", "prterun"}) {
      if (parent.starts_with(name)) target.process = ::getppid();
    }
    // Travels to the ranks when it is exported; mpirun's own --mca does too.
    if (const std::string grace = text("OMPI_MCA_odls_base_sigkill_timeout"); !grace.empty()) target.grace_s = grace;
  }
  if (target.launcher == RankEnvironment::Launcher::kSrun) {
    target.slurm_step = fmt::format("{}.{}", text("SLURM_JOB_ID"), text("SLURM_STEP_ID"));
  }
  return target;
}

std::string stop_text(const StopTarget& target) {
  const std::string begin = "to stop with a checkpoint, within two steps: ";
  switch (target.launcher) {
    case RankEnvironment::Launcher::kPlain:
      return begin + fmt::format("Ctrl-C or kill -USR1 {}", target.process);
    case RankEnvironment::Launcher::kMpirun:
      return begin +
             (target.process == 0 ? "SIGUSR1 to mpirun" : fmt::format("kill -USR1 {} (mpirun)", target.process)) +
             fmt::format("; Ctrl-C leaves {} s for it", target.grace_s);
    case RankEnvironment::Launcher::kSrun:
      return begin + fmt::format("scancel --signal=USR1 {}", target.slurm_step);
  }
  return "";
}

std::string start_text(const StartFacts& facts) {
  std::string out = fmt::format("{}: {}, {}, {} parameters; {}\n", facts.model, counted_text(facts.layers, "layer"),
                                counted_text(facts.channels, "channel"),
                                count_text(static_cast<double>(facts.parameters)), types_text(facts));
  const bool several = facts.ranks > 1;
  out += fmt::format("device: {}{}{}\n", several ? fmt::format("{} ranks, rank 0 on ", facts.ranks) : "", facts.device,
                     several && !facts.communicator.empty() ? connection_text(facts) : "");
  if (several && !facts.rank_map.empty()) out += rank_map_text(facts.rank_map) + '\n';
  out += fmt::format("memory: {}\n", memory_text(facts));
  out += fmt::format("batch: {} x {} rank{} x {} accumulated = {} of {}, {} a step\n", facts.micro_batch, facts.ranks,
                     facts.ranks == 1 ? "" : "s", facts.accumulation, counted_text(facts.global_batch, "sequence"),
                     counted_text(facts.sequence, "token"), facts.tokens_per_step);
  if (facts.first_step < facts.last_step) {
    out += data_text(facts) + '\n';
    if (!facts.how_to_stop.empty()) out += facts.how_to_stop + '\n';
  }
  out += fmt::format("run folder: {}", facts.run_dir);
  if (facts.attempt > 1) out += fmt::format(", attempt {}", facts.attempt);
  return out;
}

std::optional<std::int64_t> epoch_beginning(std::int64_t first_sample, std::int64_t batch, std::int64_t sequences) {
  const std::int64_t last = (first_sample + batch - 1) / sequences;
  const std::int64_t before = first_sample == 0 ? 0 : (first_sample - 1) / sequences;
  if (last <= before) return std::nullopt;
  return last + 1;
}

std::string end_text(const EndFacts& facts) {
  std::string out = how_it_ended(facts);
  if (const std::string text = losses(facts.result); !text.empty()) out += '\n' + text;
  if (!facts.breakdown.empty()) out += '\n' + facts.breakdown;
  out += fmt::format("\nrun folder: {}", facts.run_dir);
  if (!facts.checkpoint.has_value()) {
    return out + (facts.result.steps_done == 0 ? ", without a checkpoint: no step was done"
                                               : ", without a checkpoint: the weights are gone (checkpoint.at_end)");
  }
  if (*facts.checkpoint == facts.result.steps_done) {
    out += fmt::format(", the checkpoint of step {} is durable", *facts.checkpoint);
  } else {
    out += fmt::format(", newest checkpoint: that of step {}; the steps behind it are gone (checkpoint.at_end)",
                       *facts.checkpoint);
  }
  return out + '\n' + next_commands(facts);
}

void describe_launch(EndFacts& facts) {
  facts.environment = RankEnvironment::detect();
  // What mpirun was told travels in the environment of its ranks; --allow-run-as-root does not.
  facts.oversubscribed = std::getenv("OMPI_MCA_rmaps_base_oversubscribe") != nullptr;
  facts.root = geteuid() == 0 && std::getenv("OMPI_ALLOW_RUN_AS_ROOT") == nullptr;
}

std::string shell_quote(std::string_view word) {
  const bool plain = !word.empty() && std::all_of(word.begin(), word.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("_-+=./,:@%").find(c) != std::string_view::npos;
  });
  if (plain) return std::string(word);
  std::string out = "'";
  for (const char c : word) {
    if (c == '\'') {
      out += "'\\''";
    } else {
      out += c;
    }
  }
  return out + "'";
}

}  // namespace strake::launch
