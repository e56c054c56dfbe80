#include "comm/mpi/mpi_roll_call.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "comm/mpi/mpi_call.h"

namespace strake::comm {
namespace {

constexpr int kRollCallTag = 1;

}  // namespace

MpiRollCall::MpiRollCall(MPI_Comm comm) : comm_(comm) {
  check_mpi(MPI_Comm_rank(comm_, &rank_), "MPI_Comm_rank", "roll call");
  check_mpi(MPI_Comm_size(comm_, &size_), "MPI_Comm_size", "roll call");
  answers_.resize(static_cast<std::size_t>(size_));
}

MpiRollCall::~MpiRollCall() {
  forget_what_was_sent();
  // Messages that nobody took: MPI may still read them.
  if (!sent_.empty()) static_cast<void>(new std::list<Sent>(std::move(sent_)));
  log_mpi(MPI_Comm_free(&comm_), "MPI_Comm_free");
}

void MpiRollCall::forget_what_was_sent() {
  std::erase_if(sent_, [](Sent& sent) {
    int complete = 0;
    return MPI_Test(&sent.request, &complete, MPI_STATUS_IGNORE) == MPI_SUCCESS && complete != 0;
  });
}

void MpiRollCall::send(int to, Kind kind, std::uint64_t question, std::string_view text) {
  const std::size_t text_bytes = std::min(text.size(), kMaxTextBytes);
  Sent& sent = sent_.emplace_back(
      Sent{{.kind = kind, .text_bytes = static_cast<std::uint32_t>(text_bytes), .question = question, .text = {}},
           MPI_REQUEST_NULL});
  std::copy_n(text.begin(), text_bytes, sent.message.text.begin());
  check_mpi(MPI_Isend(&sent.message, sizeof(Message), MPI_BYTE, to, kRollCallTag, comm_, &sent.request), "MPI_Isend",
            "roll call", to);
}

std::optional<int> MpiRollCall::receive(Message& message) {
  int arrived = 0;
  MPI_Message handle = MPI_MESSAGE_NULL;
  MPI_Status status;
  check_mpi(MPI_Improbe(MPI_ANY_SOURCE, kRollCallTag, comm_, &arrived, &handle, &status), "MPI_Improbe", "roll call");
  if (arrived == 0) return std::nullopt;
  check_mpi(MPI_Mrecv(&message, sizeof(Message), MPI_BYTE, &handle, &status), "MPI_Mrecv", "roll call");
  return status.MPI_SOURCE;
}

void MpiRollCall::serve(const Handlers& handlers) {
  forget_what_was_sent();
  Message message;
  while (const std::optional<int> from = receive(message)) {
    const std::string_view text(message.text.data(), std::min<std::size_t>(message.text_bytes, kMaxTextBytes));
    switch (message.kind) {
      case Kind::kAsk:
        send(*from, Kind::kAnswer, message.question, handlers.where());
        if (handlers.asked) handlers.asked(*from);
        break;
      case Kind::kAnswer:
        if (message.question == questions_) answers_[static_cast<std::size_t>(*from)] = text;
        break;
      case Kind::kTell:
        if (handlers.told) handlers.told(*from, text);
        break;
    }
  }
}

void MpiRollCall::tell(int rank, std::string_view text) { send(rank, Kind::kTell, 0, text); }

std::vector<std::optional<std::string>> MpiRollCall::ask(std::chrono::milliseconds limit, const Handlers& handlers) {
  ++questions_;
  std::ranges::fill(answers_, std::nullopt);
  answers_[static_cast<std::size_t>(rank_)] = handlers.where();
  for (int other = 0; other < size_; ++other) {
    if (other != rank_) send(other, Kind::kAsk, questions_, {});
  }
  const auto end = std::chrono::steady_clock::now() + limit;
  const auto answered = [](const std::optional<std::string>& answer) { return answer.has_value(); };
  do {
    serve(handlers);
    if (std::ranges::all_of(answers_, answered)) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  } while (std::chrono::steady_clock::now() < end);
  return answers_;
}

}  // namespace strake::comm
