// What a checkpoint keeps beside the tensors. A value.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace strake::checkpoint {

// All strings are UTF-8 text that checkpoint/ does not look into.
struct Meta {
  std::int64_t step = 0;     // optimizer steps done
  std::int64_t tokens = 0;   // tokens seen over all ranks
  std::int64_t attempt = 0;  // of the process that wrote it
  std::string data_cursor;   // see data/
  std::string tokenizer;     // identity of the token files' tokenizer, JSON
  std::string model;         // model configuration, JSON; compared on load
  std::string choices;       // everything chosen by measurement, JSON
  std::string config;        // of the run that wrote it, JSON; empty: none, or an older program
  std::string config_hash;
  std::string step_metrics;                  // what the step itself has measured, JSON; empty: none, or an older program
  std::optional<double> held_out_loss = {};  // of this very state, finite; nullopt: it was not computed before the save
  int world_size = 1;                        // that wrote it; set by the Checkpointer

  bool operator==(const Meta&) const = default;
};

}  // namespace strake::checkpoint
