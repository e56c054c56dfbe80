#include "launch/commands/command_line.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <iostream>
#include <string>
#include <system_error>
#include <type_traits>
#include <vector>

#include "launch/bench/bench_checkpoint.h"
#include "launch/bench/bench_comm.h"
#include "launch/bench/bench_kernels.h"
#include "launch/bench/bench_step.h"
#include "launch/commands/command_help.h"
#include "launch/commands/commands.h"
#include "launch/commands/completion.h"
#include "launch/commands/generate.h"
#include "launch/machine/machine.h"
#include "launch/plan/memory_size.h"
#include "launch/plan/plan.h"
#include "launch/train/train.h"
#include "launch/verify/verify_overlap.h"
#include "runtime/base/error.h"
#include "runtime/base/home_path.h"
#include "runtime/base/text.h"

namespace strake::launch {
namespace {

std::vector<std::string> words(int argc, char** argv) { return {argv, argv + argc}; }

// Checks that say what to write, in the words of ConfigReader.
template <typename Number>
CLI::Validator number_from(Number least, Number most) {
  return CLI::Validator(
      [=](const std::string& text) {
        Number value{};
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
        const bool whole = error == std::errc() && end == text.data() + text.size();
        if (whole && value >= least && value <= most) return std::string();  // NaN is neither
        return fmt::format("{} is not accepted; write {} from {} to {}", json_quote(text),
                           std::is_integral_v<Number> ? "an integer" : "a number", least, most);
      },
      "");
}
// Between 0 and 1; whether 0 makes sense depends on other options, which prepare() knows.
CLI::Validator fraction() {
  return CLI::Validator(
      [](const std::string& text) {
        double value = 0;
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
        const bool whole = error == std::errc() && end == text.data() + text.size();
        if (whole && value >= 0 && value < 1) return std::string();  // NaN is neither
        return fmt::format("{} is not accepted; write a number from 0 to below 1", json_quote(text));
      },
      "");
}
CLI::Validator memory_size() {
  return CLI::Validator(
      [](const std::string& text) {
        if (memory_size_from(text).has_value()) return std::string();
        return fmt::format("{} is not accepted; write a number and KiB, MiB, GiB, TiB, KB, MB, GB or TB, as in 80GiB",
                           json_quote(text));
      },
      "");
}
CLI::Validator one_of(const std::vector<std::string>& words) {
  return CLI::Validator(
      [=](const std::string& text) {
        if (std::find(words.begin(), words.end(), text) != words.end()) return std::string();
        // All of them: to "gpu" the nearest is "cpu".
        return fmt::format("{} is not accepted; write {}", json_quote(text), either(words));
      },
      "");
}

// A result that did not arrive is no success: `strake bench step --json > FILE` on a full disk.
void require_printed() {
  std::cout.flush();
  errno = 0;
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0 && std::cout.good()) return;
  throw IoError(
      fmt::format("standard output cannot be written{}", errno != 0 ? fmt::format(": {}", std::strerror(errno)) : ""),
      "standard output", errno);
}

// `~` where no shell has expanded it: --out=~/weights, in quotes. No path is empty.
void expand_home_in_paths(CLI::App& command) {
  for (CLI::Option* option : command.get_options([](const CLI::Option* each) { return takes_path(*each); })) {
    option->transform(CLI::Validator(
        [](std::string& path) {
          path = expand_home(path);
          return std::string(path.empty() ? "\"\" is not accepted; write a path" : "");
        },
        ""));
  }
  for (CLI::App* inner : command.get_subcommands([](CLI::App*) { return true; })) expand_home_in_paths(*inner);
}

}  // namespace

int run_command_line(int argc, char** argv) {
  CLI::App app("Trains transformers on many ranks and tells where every millisecond went.", "strake");
  app.require_subcommand(1);
  app.set_version_flag(
      "--version", [] { return fmt::format("strake {}", build_description().version); }, "Print the version and stop");
  app.set_help_flag("--help,-h", "Print this and stop");
  std::function<int()> run;

  TrainArguments train;
  CLI::App* train_command = app.add_subcommand("train", "Train a model, alone or as a rank under mpirun");
  train_command->add_option("config", train.config_path, "TOML file")->required()->type_name("CONFIG.toml");
  train_command->add_option("overrides", train.overrides, "Keys that replace those of the file")
      ->type_name("key=value");
  train_command->add_flag("--print-schedule", train.print_schedule,
                          "Print the operations, streams, waits and memory of a step, and stop");
  train_command->callback([&] {
    train.command_line = words(argc, argv);
    run = [&] { return run_train(train); };
  });

  PlanArguments plan;
  std::string plan_device, plan_memory;
  CLI::App* plan_command = app.add_subcommand("plan", "Say what a run would take, and what fits, without taking it");
  plan_command->add_option("config", plan.config_path, "TOML file")->required()->type_name("CONFIG.toml");
  plan_command->add_option("overrides", plan.overrides, "Keys that replace those of the file")->type_name("key=value");
  plan_command->add_option("--ranks", plan.ranks, "How many would train")
      ->check(number_from(1, 4096))
      ->capture_default_str();
  plan_command->add_option("--device", plan_device, "What they would compute on, here or not; else as run.device says")
      ->check(one_of({"cpu", "cuda"}))
      ->type_name("cpu|cuda");
  plan_command->add_option("--memory", plan_memory, "What each has, \"80GiB\"; else what the device has, if it is here")
      ->check(memory_size())
      ->type_name("SIZE");
  CLI::Option* const plan_json = plan_command->add_flag("--json", plan.json, "Print one JSON object (docs/formats.md)");
  plan_command
      ->add_flag("--print-schedule", plan.print_schedule,
                 "Print streams, operations and waits of a rank's step too; of many micro-batches the first ones")
      ->excludes(plan_json);
  plan_command->callback([&] {
    if (!plan_device.empty()) plan.device = plan_device == "cpu" ? DeviceChoice::kCpu : DeviceChoice::kCuda;
    if (!plan_memory.empty()) plan.memory_bytes = *memory_size_from(plan_memory);
    run = [&] { return run_plan(plan); };
  });

  BenchStepArguments bench;
  CLI::App* bench_command = app.add_subcommand("bench", "Measure speed");
  bench_command->require_subcommand(1);
  CLI::App* step_command =
      bench_command->add_subcommand("step", "Measure the training step of a config, alone or as a rank under mpirun");
  step_command->add_option("config", bench.config_path, "TOML file")->required()->type_name("CONFIG.toml");
  step_command->add_option("overrides", bench.overrides, "Keys that replace those of the file")->type_name("key=value");
  const auto add_number = [&](const char* name, std::int64_t& value, const char* text) {
    step_command->add_option(name, value, text)
        ->check(number_from(std::int64_t{1}, std::int64_t{1'000'000}))
        ->capture_default_str();
  };
  add_number("--warmup", bench.warmup, "Steps before the first that counts");
  add_number("--steps", bench.steps, "Steps of each repeat");
  add_number("--repeats", bench.repeats, "Blocks of steps that are compared with each other");
  bool stub_comm = false, calibrate = false;
  CLI::Option* stub_option = step_command->add_flag(
      "--stub-comm", stub_comm, "Send nothing between ranks: a step's time if communication were free; trains nothing");
  step_command
      ->add_flag("--calibrate", calibrate, "Blocks of steps as they are and with --stub-comm in turn: what it costs")
      ->excludes(stub_option);
  step_command->add_flag("--random-data", bench.random_data, "Random tokens, also if the config names a token file");
  step_command->add_flag("--json", bench.json, "Print one JSON object (docs/formats.md)");
  step_command->callback([&] {
    bench.command_line = words(argc, argv);
    if (stub_comm) bench.communication = Communication::kStubbed;
    if (calibrate) bench.communication = Communication::kCalibrated;
    run = [&] { return run_bench_step(bench); };
  });

  BenchKernelsArguments kernels;
  CLI::App* kernels_command = bench_command->add_subcommand(
      "kernels", "Measure each operation of a config's training step where it runs, alone or as a rank under mpirun");
  kernels_command->add_option("config", kernels.config_path, "TOML file")->required()->type_name("CONFIG.toml");
  kernels_command->add_option("overrides", kernels.overrides, "Keys that replace those of the file")
      ->type_name("key=value");
  kernels_command->add_option("--warmup", kernels.warmup, "Steps before the first that counts")
      ->check(number_from(std::int64_t{1}, std::int64_t{1'000'000}))
      ->capture_default_str();
  kernels_command
      ->add_option("--steps", kernels.steps, "Steps in which operations are timed; so many before and behind are not")
      ->check(number_from(std::int64_t{1}, std::int64_t{1'000'000}))
      ->capture_default_str();
  kernels_command->add_option("--against", kernels.against, "What this command printed before, with --json")
      ->type_name("FILE");
  kernels_command->add_flag("--random-data", kernels.random_data,
                            "Random tokens, also if the config names a token file");
  kernels_command->add_flag("--json", kernels.json, "Print one JSON object (docs/formats.md)");
  kernels_command->callback([&] {
    kernels.command_line = words(argc, argv);
    run = [&] { return run_bench_kernels(kernels); };
  });

  BenchCommArguments comm;
  std::string comm_least, comm_most, comm_beside, comm_dtype = "f32";
  std::vector<std::string> comm_only, comm_names;
  for (const Collective collective : kCollectives) comm_names.emplace_back(name_of(collective));
  CLI::App* comm_command = bench_command->add_subcommand(
      "comm", "Measure the collectives between ranks, under mpirun or as threads of one process");
  comm_command->add_option("overrides", comm.overrides, "Keys that say what connects which devices")
      ->type_name("key=value");
  comm_command->add_option("--only", comm_only, "Collectives to measure; else all")
      ->check(one_of(comm_names))
      ->delimiter(',')
      ->type_name("NAMES");
  comm_command->add_option("--min", comm_least, "Smallest size")
      ->check(memory_size())
      ->type_name("SIZE")
      ->default_str("1KiB");
  comm_command->add_option("--max", comm_most, "Largest size")
      ->check(memory_size())
      ->type_name("SIZE")
      ->default_str("1GiB");
  comm_command->add_option("--factor", comm.factor, "Of each size to the one before")
      ->check(number_from(std::int64_t{2}, std::int64_t{1'000'000}))
      ->capture_default_str();
  comm_command->add_option("--warmup", comm.warmup, "Iterations before the first that counts")
      ->check(number_from(std::int64_t{1}, std::int64_t{1'000'000}))
      ->capture_default_str();
  comm_command->add_option("--iterations", comm.iterations, "Iterations of each size, at most")
      ->check(number_from(std::int64_t{1}, std::int64_t{1'000'000}))
      ->capture_default_str();
  comm_command
      ->add_option("--seconds", comm.seconds, "Time for the iterations of a size, of which three are made at least")
      ->check(number_from(1e-3, 1e6))
      ->capture_default_str();
  comm_command->add_option("--dtype", comm_dtype, "Type of the elements")
      ->check(one_of({"f32", "f64", "bf16"}))
      ->type_name("f32|f64|bf16")
      ->capture_default_str();
  comm_command
      ->add_option("--beside", comm_beside,
                   "A product of so many rows, outputs and inputs, timed beside the collectives")
      ->check([](const std::string& text) {
        return product_shape_from(text).has_value() ? "" : "write ROWSxOUTSxINS, as 8192x16384x2048";
      })
      ->type_name("MxNxK");
  comm_command->add_option("--threads", comm.threads, "Ranks that are threads of this process, on the CPU")
      ->check(number_from(std::int64_t{1}, std::int64_t{256}));
  comm_command->add_flag("--json", comm.json, "Print one JSON object (docs/formats.md)");
  comm_command->callback([&] {
    comm.command_line = words(argc, argv);
    if (!comm_least.empty()) comm.least_bytes = static_cast<std::int64_t>(*memory_size_from(comm_least));
    if (!comm_most.empty()) comm.most_bytes = static_cast<std::int64_t>(*memory_size_from(comm_most));
    comm.beside = product_shape_from(comm_beside);
    comm.dtype = comm_dtype == "f64" ? DType::kF64 : comm_dtype == "bf16" ? DType::kBF16 : DType::kF32;
    if (!comm_only.empty()) {
      std::erase_if(comm.collectives, [&](Collective collective) {
        return std::find(comm_only.begin(), comm_only.end(), name_of(collective)) == comm_only.end();
      });
    }
    run = [&] { return run_bench_comm(comm); };
  });

  BenchCheckpointArguments checkpoints;
  std::vector<std::string> checkpoint_strategies, checkpoint_folders;
  std::vector<double> checkpoint_mtbf;
  CLI::App* checkpoint_command = bench_command->add_subcommand(
      "checkpoint",
      "Measure what checkpoints cost a config's training, and how long they take, by strategy and folder");
  checkpoint_command->add_option("config", checkpoints.config_path, "TOML file")->required()->type_name("CONFIG.toml");
  checkpoint_command->add_option("overrides", checkpoints.overrides, "Keys that replace those of the file")
      ->type_name("key=value");
  checkpoint_command
      ->add_option("--strategies", checkpoint_strategies, "Those of checkpoint.strategy to measure; else all")
      ->check(one_of({"sync", "pinned", "lazy", "device", "auto"}))
      ->delimiter(',')
      ->type_name("NAMES");
  checkpoint_command
      ->add_option("--folder", checkpoint_folders,
                   "Where runs write, on the storage to measure; may be repeated; else beside run.dir")
      ->type_name("FOLDER")
      ->expected(1)
      ->allow_extra_args(false)
      ->take_all();
  checkpoint_command->add_option("--every", checkpoints.blocks.every, "Steps between checkpoints")
      ->check(number_from(std::int64_t{2}, std::int64_t{1'000'000}))
      ->capture_default_str();
  checkpoint_command->add_option("--saves", checkpoints.blocks.saves, "Checkpoints of each run that count")
      ->check(number_from(std::int64_t{1}, std::int64_t{1'000'000}))
      ->capture_default_str();
  checkpoint_command->add_option("--repeats", checkpoints.repeats, "Runs of each strategy in each folder")
      ->check(number_from(std::int64_t{1}, std::int64_t{1'000'000}))
      ->capture_default_str();
  checkpoint_command
      ->add_option("--failure-hours", checkpoint_mtbf, "Hours between failures of the machine to advise for")
      ->check(number_from(1e-3, 1e6))
      ->delimiter(',')
      ->type_name("NUMBERS")
      ->default_str("1,24,168");
  checkpoint_command
      ->add_option("--restart-seconds", checkpoints.restart_s, "What a start takes besides loading the checkpoint")
      ->check(number_from(0.0, 1e6))
      ->capture_default_str();
  checkpoint_command->add_flag("--random-data", checkpoints.random_data,
                               "Random tokens, also if the config names a token file");
  checkpoint_command->add_flag("--json", checkpoints.json, "Print one JSON object (docs/formats.md)");
  checkpoint_command->callback([&] {
    checkpoints.command_line = words(argc, argv);
    if (!checkpoint_strategies.empty()) checkpoints.strategies = checkpoint_strategies;
    if (!checkpoint_mtbf.empty()) checkpoints.mtbf_hours = checkpoint_mtbf;
    checkpoints.folders = checkpoint_folders;
    run = [&] { return run_bench_checkpoint(checkpoints); };
  });

  VerifyOverlapArguments verify_overlap;
  CLI::App* verify_overlap_command = app.add_subcommand(
      "verify-overlap", "Show that overlap, buckets, sharding and delays change no bit of a config's results");
  verify_overlap_command->add_option("config", verify_overlap.config_path, "TOML file")
      ->required()
      ->type_name("CONFIG.toml");
  verify_overlap_command->add_option("overrides", verify_overlap.overrides, "Keys that replace those of the file")
      ->type_name("key=value");
  verify_overlap_command
      ->add_option("--ranks", verify_overlap.ranks, "Ranks that are threads of this process; not under mpirun or srun")
      ->check(number_from(std::int64_t{1}, std::int64_t{256}))
      ->default_str(fmt::format("{}", VerifyOverlapArguments::kThreads));
  verify_overlap_command->add_option("--steps", verify_overlap.steps, "Steps of each variant")
      ->check(number_from(std::int64_t{1}, std::int64_t{1'000'000}))
      ->capture_default_str();
  verify_overlap_command
      ->add_option("--variants", verify_overlap.only, "Only those whose names have this in them; may be repeated")
      ->type_name("TEXT")
      ->expected(1)
      ->allow_extra_args(false)
      ->take_all();
  verify_overlap_command->add_flag("--random-data", verify_overlap.random_data,
                                   "Random tokens, also if the config names a token file");
  verify_overlap_command->add_flag("--json", verify_overlap.json, "Print one JSON object (docs/formats.md)");
  verify_overlap_command->callback([&] {
    verify_overlap.command_line = words(argc, argv);
    run = [&] { return run_verify_overlap(verify_overlap); };
  });

  data::PrepareOptions prepare;
  CLI::App* data_command = app.add_subcommand("data", "Make token files");
  data_command->require_subcommand(1);
  CLI::App* prepare_command = data_command->add_subcommand("prepare", "Make token files from text, a byte a token");
  prepare_command->add_option("inputs", prepare.inputs, "Text files, read as one; -: standard input")
      ->required()
      ->type_name("TEXT");
  prepare_command->add_option("--train", prepare.train, "Token file to write; its folder must exist")
      ->required()
      ->type_name("FILE");
  prepare_command->add_option("--val", prepare.val, "Held-out token file to write; without it nothing is held out")
      ->type_name("FILE");
  prepare_command
      ->add_option("--val-fraction", prepare.val_fraction, "Part of the text that is held out, its end; with --val")
      ->check(fraction())
      ->type_name("FRACTION")
      ->default_str(fmt::format("{}", data::PrepareOptions::kValFraction));
  prepare_command->add_option("--source", prepare.source, "Description kept beside the token files");
  prepare_command->callback([&] { run = [&] { return prepare_data(prepare); }; });

  GenerateArguments generate;
  CLI::App* generate_command = app.add_subcommand("generate", "Write text with trained weights");
  generate_command->add_option("path", generate.path, "Run folder (its newest checkpoint), or one checkpoint")
      ->required()
      ->type_name("RUN|CHECKPOINT");
  generate_command->add_option("--prompt", generate.prompt, "Text to continue");
  generate_command->add_option("--tokens", generate.tokens, "How many to write")
      ->check(number_from(std::int64_t{1}, std::int64_t{1} << 40))
      ->capture_default_str();
  generate_command->add_option("--temperature", generate.temperature, "0: always the likeliest; 1: as the model says")
      ->check(number_from(0.0, 100.0))
      ->capture_default_str();
  generate_command->add_option("--seed", generate.seed, "The same seed gives the same text")
      ->check(number_from(std::uint64_t{0}, ~std::uint64_t{0}))
      ->capture_default_str();
  std::string device = "auto";
  generate_command->add_option("--device", device, "Where to compute; auto: on a GPU if there is one")
      ->check(one_of({"auto", "cpu", "cuda"}))
      ->type_name("auto|cpu|cuda")
      ->capture_default_str();
  generate_command->callback([&] {
    generate.device = device == "cpu"    ? DeviceChoice::kCpu
                      : device == "cuda" ? DeviceChoice::kCuda
                                         : DeviceChoice::kAuto;
    run = [&] { return run_generate(generate); };
  });

  ImportArguments import;
  CLI::App* import_command = app.add_subcommand("import", "Start a run from weights of Hugging Face");
  import_command->add_option("source", import.source, "Folder with model.safetensors and config.json, or the file")
      ->required()
      ->type_name("FOLDER|FILE");
  import_command->add_option("--run", import.run, "Run folder to make")->required()->type_name("RUN");
  import_command->add_option("--tokenizer", import.tokenizer, "Which tokenizer the weights were trained with")
      ->capture_default_str();
  import_command->add_option("--sequence", import.sequence, "Tokens to train on at once, where positions are rotary")
      ->check(number_from(std::int64_t{1}, std::int64_t{1} << 24));
  import_command->callback([&] { run = [&] { return import_weights(import); }; });

  ExportArguments out;
  std::string export_type = "f32";
  CLI::App* export_command = app.add_subcommand("export", "Write trained weights for Hugging Face");
  export_command->add_option("path", out.path, "Run folder (its newest checkpoint), or one checkpoint")
      ->required()
      ->type_name("RUN|CHECKPOINT");
  export_command->add_option("--out", out.out, "Folder for model.safetensors and config.json")
      ->required()
      ->type_name("FOLDER");
  export_command->add_option("--dtype", export_type, "f32: every bit; bf16: rounded, half the size")
      ->check(one_of({"f32", "bf16"}))
      ->type_name("f32|bf16")
      ->capture_default_str();
  std::string export_most;
  export_command
      ->add_option("--max-shard-size", export_most,
                   "Of tensors in one file, as 5GB; more go to further files; else one file")
      ->check(memory_size())
      ->type_name("SIZE");
  export_command->callback([&] {
    if (!export_most.empty()) out.max_file_bytes = *memory_size_from(export_most);
    out.dtype = export_type == "bf16" ? DType::kBF16 : DType::kF32;
    run = [&] { return export_weights(out); };
  });

  std::string path;
  CLI::App* ckpt_command = app.add_subcommand("ckpt", "Look at checkpoints, compare and delete them");
  ckpt_command->require_subcommand(1);
  ListArguments list;
  CLI::App* list_command = ckpt_command->add_subcommand("list", "List the checkpoints of a run, newest first");
  list_command->add_option("path", list.path, "Run folder, or one checkpoint")->required()->type_name("RUN|CHECKPOINT");
  list_command->add_flag("--verify", list.verify, "Read every byte of each, to say which are whole");
  list_command->add_flag("--json", list.json, "Print one JSON object (docs/formats.md)");
  list_command->callback([&] { run = [&] { return list_checkpoints(list); }; });
  CLI::App* verify_command =
      ckpt_command->add_subcommand("verify", "Read every byte and compare it with the checksums");
  verify_command->add_option("path", path, "Checkpoint, or a run folder for all of them")
      ->required()
      ->type_name("CHECKPOINT|RUN");
  verify_command->callback([&] { run = [&] { return verify_checkpoints(path); }; });
  ViewArguments view;
  CLI::App* view_command =
      ckpt_command->add_subcommand("view", "Make an HDF5 file that shows each tensor whole, whatever ranks wrote it");
  view_command->add_option("path", view.path, "Run folder (its newest checkpoint), or one checkpoint")
      ->required()
      ->type_name("RUN|CHECKPOINT");
  view_command->add_option("--out", view.out, "File to make; it refers to the checkpoint's files, which must stay")
      ->required()
      ->type_name("FILE");
  view_command->callback([&] { run = [&] { return view_checkpoint(view); }; });
  DiffArguments diff;
  CLI::App* diff_command =
      ckpt_command->add_subcommand("diff", "Compare two checkpoints, tensor by tensor; exit code 1 if any differs");
  diff_command->add_option("a", diff.a, "Run folder (its newest checkpoint), or one checkpoint")
      ->required()
      ->type_name("RUN|CHECKPOINT");
  diff_command->add_option("b", diff.b, "The other one")->required()->type_name("RUN|CHECKPOINT");
  diff_command->callback([&] { run = [&] { return diff_checkpoints(diff); }; });
  PruneArguments prune;
  CLI::App* prune_command = ckpt_command->add_subcommand("prune", "Delete checkpoints of a run, but those to keep");
  prune_command->add_option("run", prune.run, "Run folder; no run may be at work there")->required()->type_name("RUN");
  prune_command->add_option("--keep", prune.rule.keep, "So many of the newest whole ones stay")
      ->required()
      ->check(number_from(1, 1 << 20));
  prune_command->add_option("--keep-every", prune.rule.keep_every, "Those of steps that are multiples of this stay too")
      ->check(number_from(std::int64_t{1}, std::int64_t{1} << 53));
  prune_command->add_option("--keep-best", prune.rule.keep_best, "So many with the lowest held-out loss stay too")
      ->check(number_from(1, 1 << 20));
  prune_command->add_flag("--dry-run", prune.dry_run, "Say what would go, and leave it");
  prune_command->callback([&] { run = [&] { return prune_checkpoints(prune); }; });
  ConvertArguments convert;
  CLI::App* convert_command =
      ckpt_command->add_subcommand("convert", "Write a checkpoint of an earlier version as this one stores it");
  convert_command->add_option("path", convert.path, "Run folder (its newest checkpoint), or one checkpoint")
      ->required()
      ->type_name("RUN|CHECKPOINT");
  convert_command->add_option("--run", convert.run, "Run folder to make, where training goes on")
      ->required()
      ->type_name("RUN");
  convert_command->callback([&] { run = [&] { return convert_checkpoint(convert); }; });

  bool keys = false;
  CLI::App* info_command = app.add_subcommand("info", "Show versions, machine and devices");
  info_command->add_flag("--keys", keys, "List every configuration key with what it accepts and its default");
  info_command->callback([&] { run = [&] { return keys ? show_keys() : show_info(); }; });

  std::string shell;
  CLI::App* completion_command =
      app.add_subcommand("completion", "Print a script that completes this command line at TAB");
  completion_command->add_option("shell", shell, "Shell to write it for")
      ->required()
      ->check(one_of({"bash", "zsh"}))
      ->type_name("bash|zsh");
  completion_command->callback([&] {
    run = [&] {
      fmt::print("{}", shell == "bash" ? bash_completion(app) : zsh_completion(app));
      return 0;
    };
  });
  std::vector<std::string> explained;
  app.add_subcommand("help", "Explain a command")
      ->add_option("command", explained, "Command, and the command of that one")
      ->type_name("COMMAND");

  make_help(app);
  expand_home_in_paths(app);
  // `strake help ckpt list` is `strake ckpt list --help`; without arguments people want to know what there is.
  std::vector<std::string> arguments(argv + std::min(argc, 1), argv + argc);
  const bool asks_for_help = !arguments.empty() && (arguments.back() == "--help" || arguments.back() == "-h");
  if (!arguments.empty() && arguments.front() == "help" && !(asks_for_help && arguments.size() == 2)) {
    arguments.erase(arguments.begin());
    if (asks_for_help) arguments.pop_back();
    require_commands(app, arguments);
    arguments.emplace_back("--help");
  }
  if (arguments.empty()) arguments.emplace_back("--help");
  std::reverse(arguments.begin(), arguments.end());  // as CLI11 wants them
  try {
    app.parse(arguments);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() != 0) throw parse_problem(app, error);
    app.exit(error);  // --help, --version
    require_printed();
    return 0;
  }
  int code = 0;
  try {
    code = run();
  } catch (const std::system_error&) {
    require_printed();  // how fmt::print says it
    throw;
  }
  require_printed();
  return code;
}

}  // namespace strake::launch
