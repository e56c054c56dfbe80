#include "launch/report/run_report.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <string>

namespace strake::launch {
namespace {

using namespace std::chrono_literals;

StartFacts start_facts() {
  StartFacts facts;
  facts.run_dir = "runs/a";
  facts.device = "CPU: a processor";
  facts.model = "gpt2";
  facts.layers = 4;
  facts.channels = 128;
  facts.parameters = 826'368;
  facts.micro_batch = 16;
  facts.global_batch = 32;
  facts.accumulation = 2;
  facts.sequence = 128;
  facts.tokens_per_step = 4096;
  facts.host_bytes = std::size_t{128} << 20;
  facts.buckets = 8;
  facts.last_step = facts.steps = 1000;
  facts.train_tokens = "train.bin";
  facts.sequences = 34'000;
  return facts;
}

TEST(StartText, OfOneRank) {
  EXPECT_EQ(start_text(start_facts()),
            "gpt2: 4 layers, 128 channels, 826k parameters; f32\n"
            "device: CPU: a processor\n"
            "memory: 0.125 GiB a rank\n"
            "batch: 16 x 1 rank x 2 accumulated = 32 sequences of 128 tokens, 4096 a step\n"
            "steps 1 to 1000 are 0.94 epochs of train.bin (34.0k sequences)\n"
            "run folder: runs/a");
}

TEST(StartText, OfResumedRanksOnGpus) {
  StartFacts facts = start_facts();
  facts.attempt = 3;
  facts.device = "cuda:0 (NVIDIA H100, PCI 0000:18:00.0)";
  facts.ranks = 8;
  facts.communicator = "nccl";
  facts.accumulation = 1;
  facts.global_batch = 128;
  facts.tokens_per_step = 16384;
  facts.parameters = 124'475'904;
  facts.dtype = DType::kBF16;
  facts.device_bytes = std::size_t{12} << 30;
  facts.host_bytes = std::size_t{3} << 29;
  facts.first_step = 200;
  facts.first_sample = 200 * 128;
  EXPECT_EQ(start_text(facts),
            "gpt2: 4 layers, 128 channels, 124M parameters; bf16, gradients f32\n"
            "device: 8 ranks, rank 0 on cuda:0 (NVIDIA H100, PCI 0000:18:00.0), connected by nccl\n"
            "memory: 13.5 GiB a rank (12.0 of the device, 1.5 of the host); gradients in 8 buckets\n"
            "batch: 16 x 8 ranks x 1 accumulated = 128 sequences of 128 tokens, 16384 a step\n"
            "steps 201 to 1000 are 3.01 epochs of train.bin (34.0k sequences)\n"
            "epoch 2 begins in step 266: sequences are seen again from there on\n"
            "run folder: runs/a, attempt 3");
}

TEST(StartText, SaysWhereRanksAre) {
  StartFacts facts = start_facts();
  facts.ranks = 2;
  facts.communicator = "nccl";
  facts.switches = "at most 8 CTAs, symmetric buffers";
  for (int rank = 0; rank < 2; ++rank)
    facts.rank_map.push_back({.rank = rank, .host = rank == 0 ? "n1" : "node2", .device = "CPU", .cores = 4});
  const std::string text = start_text(facts);
  EXPECT_NE(
      text.find("device: 2 ranks, rank 0 on CPU: a processor, connected by nccl (at most 8 CTAs, symmetric buffers)\n"
                "rank 0  n1     CPU, 4 cores\n"
                "rank 1  node2  CPU, 4 cores\n"
                "memory: "),
      std::string::npos)
      << text;
  facts.ranks = 1;
  EXPECT_EQ(start_text(facts).find("node2"), std::string::npos) << "of one rank the device is all there is to say";
}

TEST(StartText, OfARunThatIsDoneSpeaksOfNoSteps) {
  StartFacts facts = start_facts();
  facts.first_step = facts.last_step;
  EXPECT_EQ(start_text(facts).find("steps"), std::string::npos) << start_text(facts);
}

TEST(StartText, NamesTheTypeOnTheWireWhereItIsAnother) {
  StartFacts facts = start_facts();
  facts.ranks = 2;
  facts.wire_dtype = DType::kBF16;
  EXPECT_NE(start_text(facts).find("; f32, summed over ranks in bf16\n"), std::string::npos) << start_text(facts);
}

TEST(StartText, SaysHowToStopWhereThereAreStepsToCome) {
  StartFacts facts = start_facts();
  facts.how_to_stop = stop_text({.process = 4242});
  EXPECT_NE(
      start_text(facts).find("\nto stop with a checkpoint, within two steps: Ctrl-C or kill -USR1 4242\nrun folder"),
      std::string::npos)
      << start_text(facts);
  facts.first_step = facts.last_step;
  EXPECT_EQ(start_text(facts).find("to stop"), std::string::npos) << start_text(facts);
}

// Each launcher passes on something else.
TEST(StopText, NamesTheSignalAndWhoGetsIt) {
  using enum RankEnvironment::Launcher;
  EXPECT_EQ(stop_text({.launcher = kMpirun, .process = 4242}),
            "to stop with a checkpoint, within two steps: kill -USR1 4242 (mpirun); Ctrl-C leaves 1 s for it");
  EXPECT_EQ(stop_text({.launcher = kMpirun, .process = 0, .grace_s = "30"}),
            "to stop with a checkpoint, within two steps: SIGUSR1 to mpirun; Ctrl-C leaves 30 s for it");
  EXPECT_EQ(stop_text({.launcher = kSrun, .slurm_step = "7.0"}),
            "to stop with a checkpoint, within two steps: scancel --signal=USR1 7.0");
}

// The step that the start announces is the step in which it is said.
TEST(EpochBeginning, IsTheStepThatTheStartAnnounces) {
  for (const std::int64_t batch : {1, 3, 8, 25}) {
    for (const std::int64_t sequences : {8, 24, 25, 100}) {
      StartFacts facts = start_facts();
      facts.global_batch = batch;
      facts.sequences = sequences;
      long announced = 0;
      const std::string text = start_text(facts);
      const std::size_t at = text.find("epoch 2 begins in step ");
      ASSERT_NE(at, std::string::npos) << text;
      ASSERT_EQ(1, std::sscanf(text.c_str() + at, "epoch 2 begins in step %ld", &announced));
      std::int64_t step = 0;
      while (!epoch_beginning(step * batch, batch, sequences).has_value()) ++step;
      EXPECT_EQ(announced, step + 1) << batch << " of " << sequences;
    }
  }
}

TEST(EpochBeginning, CountsEveryEpochOnce) {
  EXPECT_EQ(epoch_beginning(0, 4, 10), std::nullopt);
  EXPECT_EQ(epoch_beginning(4, 4, 10), std::nullopt);
  EXPECT_EQ(epoch_beginning(8, 4, 10), 2);
  EXPECT_EQ(epoch_beginning(12, 4, 10), std::nullopt);
  EXPECT_EQ(epoch_beginning(20, 4, 10), 3);
  EXPECT_EQ(epoch_beginning(0, 25, 10), 3);  // two within a step: the last
}

EndFacts end_facts() {
  EndFacts facts;
  facts.run_dir = "runs/a";
  facts.steps = 1000;
  facts.result = {.first_step = 0,
                  .steps_done = 1000,
                  .first_loss = 5.5512,
                  .last_loss = 1.9034,
                  .last_held_out = HeldOut{1000, 1.9521},
                  .best_held_out = HeldOut{750, 1.9455},
                  .stop_signal = 0};
  facts.duration = 252s;
  facts.breakdown = "step breakdown";
  facts.checkpoint = 1000;
  facts.generates = true;
  facts.command_line = {"bin/strake", "train", "my job.toml", "train.steps=1000", "run.dir=old"};
  return facts;
}

TEST(EndText, OfARunThatIsDone) {
  EXPECT_EQ(end_text(end_facts()),
            "done: 1000 steps in 4m12s\n"
            "loss 5.5512 in step 1, 1.9034 in step 1000\n"
            "held-out loss 1.9521 after step 1000, best 1.9455 after step 750\n"
            "step breakdown\n"
            "run folder: runs/a, the checkpoint of step 1000 is durable\n"
            "next:\n"
            "  bin/strake generate runs/a\n"
            "  bin/strake export runs/a --out runs/a/export\n"
            "  bin/strake train 'my job.toml' run.dir=runs/a checkpoint.resume=true train.steps=2000");
}

TEST(EndText, OfAStoppedRunUnderMpirun) {
  EndFacts facts = end_facts();
  facts.run_dir = "it's mine";
  facts.result.steps_done = 310;
  facts.result.stop_signal = 10;
  facts.result.last_held_out = facts.result.best_held_out = HeldOut{310, 2.5};
  facts.checkpoint = 300;
  facts.generates = false;
  facts.breakdown.clear();
  facts.stop_at = 400;
  facts.command_line = {"strake", "train", "a.toml", "train.steps=1000", "train.stop_at=400"};
  facts.environment.launcher = RankEnvironment::Launcher::kMpirun;
  facts.environment.ranks = 4;
  facts.oversubscribed = facts.root = true;
  EXPECT_EQ(end_text(facts),
            "stopped by SIGUSR1 after step 310 of 1000, 4m12s\n"
            "loss 5.5512 in step 1, 1.9034 in step 310\n"
            "held-out loss 2.5000 after step 310, the best\n"
            "run folder: it's mine, newest checkpoint: that of step 300; the steps behind it are gone "
            "(checkpoint.at_end)\n"
            "next:\n"
            "  strake export 'it'\\''s mine' --out 'it'\\''s mine/export'\n"
            "  mpirun --allow-run-as-root --oversubscribe --bind-to none -n 4 strake train a.toml train.steps=1000 "
            "'run.dir=it'\\''s mine' checkpoint.resume=true train.stop_at=0");
}

TEST(EndText, NamesNoFileThatCannotBeReadAgain) {
  for (const char* config : {"/dev/fd/63", "/dev/stdin", "/proc/self/fd/0"}) {
    EndFacts facts = end_facts();
    facts.command_line[2] = config;
    const std::string text = end_text(facts);
    EXPECT_TRUE(text.ends_with("strake export runs/a --out runs/a/export")) << text;
  }
  EndFacts facts = end_facts();
  facts.run_dir = "/";
  facts.command_line[2] = "/dev/shm/job.toml";
  const std::string text = end_text(facts);
  EXPECT_NE(text.find("export / --out /export\n"), std::string::npos) << text;
  EXPECT_NE(text.find("train /dev/shm/job.toml run.dir=/ "), std::string::npos) << text;
}

// They are not asked to train twice as long for steps that they have lost.
TEST(EndText, LostStepsAreDoneAgain) {
  EndFacts facts = end_facts();
  facts.checkpoint = 900;
  const std::string text = end_text(facts);
  EXPECT_TRUE(text.ends_with("train 'my job.toml' train.steps=1000 run.dir=runs/a checkpoint.resume=true")) << text;
}

TEST(Texts, CountOneThingAsOne) {
  StartFacts start = start_facts();
  start.layers = start.channels = start.global_batch = start.sequence = start.sequences = 1;
  start.buckets = start.last_step = start.steps = 1;
  start.ranks = 2;
  EXPECT_EQ(start_text(start),
            "gpt2: 1 layer, 1 channel, 826k parameters; f32\n"
            "device: 2 ranks, rank 0 on CPU: a processor\n"
            "memory: 0.125 GiB a rank; gradients in 1 bucket\n"
            "batch: 16 x 2 ranks x 2 accumulated = 1 sequence of 1 token, 4096 a step\n"
            "step 1 is 1.00 epochs of train.bin (1 sequence)\n"
            "run folder: runs/a");
  EndFacts end = end_facts();
  end.result.first_step = 999;
  EXPECT_TRUE(end_text(end).starts_with("done: 1 step in ")) << end_text(end);
}

// There is nothing to generate from or to resume.
TEST(EndText, WithoutACheckpointSaysSo) {
  EndFacts facts = end_facts();
  facts.checkpoint.reset();
  const std::string text = end_text(facts);
  EXPECT_NE(text.find("run folder: runs/a, without a checkpoint"), std::string::npos) << text;
  EXPECT_EQ(text.find("next:"), std::string::npos) << text;
}

TEST(ShellQuote, IsOneWordOfAShell) {
  for (const std::string& word :
       {std::string("plain-1.2_/x=y"), std::string(), std::string("two words"), std::string("it's"),
        std::string("$HOME `id` \"x\" \\ *?[a]~ ;&|<>(){}#!\n\t\xc3\xa9"), std::string("~/x"), std::string("-n")}) {
    std::FILE* shell = ::popen(("printf '%s.' " + shell_quote(word)).c_str(), "r");
    ASSERT_NE(shell, nullptr);
    std::string got(1000, '\0');
    got.resize(std::fread(got.data(), 1, got.size(), shell));
    ::pclose(shell);
    EXPECT_EQ(got, word + ".");
  }
  EXPECT_EQ(shell_quote("run.dir=runs/a"), "run.dir=runs/a");
}

}  // namespace
}  // namespace strake::launch
