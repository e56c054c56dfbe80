#include "data/prepare.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <functional>
#include <iterator>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "data/byte_tokenizer.h"
#include "data/token_file.h"
#include "runtime/base/error.h"
#include "runtime/io/crc32c.h"
#include "runtime/telemetry/step_record.h"
#include "tests/support/faulty_files.h"
#include "tests/support/memory_files.h"
#include "tests/support/scratch_folder.h"

namespace strake::data {
namespace {

using test::ScratchFolder;

std::string lines(std::size_t count, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::string text;
  for (std::size_t i = 0; i < count; ++i) {
    const auto length = std::uniform_int_distribution<std::size_t>(0, 120)(random);
    for (std::size_t c = 0; c < length; ++c) text.push_back(static_cast<char>(' ' + random() % 90));
    text.push_back('\n');
  }
  return text;
}

std::string text_of(TokenFile& file) {
  std::vector<std::int32_t> ids(static_cast<std::size_t>(file.tokens()));
  file.read(0, ids);
  return ByteTokenizer::decode(ids);
}

class Prepare : public testing::Test {
 protected:
  Prepare() { files_.make_directory(folder_.path() / "out"); }

  std::filesystem::path input(const std::string& name, std::string_view text) {
    const auto path = folder_.path() / name;
    std::ofstream(path, std::ios::binary) << text;
    return path;
  }
  PrepareOptions options_of(std::vector<std::filesystem::path> inputs) {
    return {.inputs = std::move(inputs),
            .train = folder_.path() / "out" / "train.bin",
            .val = folder_.path() / "out" / "val.bin",
            .source = "a test"};
  }
  std::string message_of(const PrepareOptions& options) {
    try {
      prepare(files_, options);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }
  std::vector<std::string> names_of_outputs() { return files_.list(folder_.path() / "out"); }

  ScratchFolder folder_;
  PosixFiles files_;
};

TEST_F(Prepare, CutsTheTailAtTheEndOfALine) {
  const std::string text = lines(20'000, 1);  // over a megabyte: several buffers
  const auto result = prepare(files_, options_of({input("a.txt", text)}));
  EXPECT_EQ(result.input_bytes, static_cast<std::int64_t>(text.size()));
  TokenFile train(result.train), val(result.val);
  EXPECT_EQ(train.tokens(), result.train_tokens);
  EXPECT_EQ(val.tokens(), result.val_tokens);
  EXPECT_EQ(text_of(train) + text_of(val), text);
  EXPECT_EQ(text_of(train).back(), '\n');
  const std::int64_t wanted = result.input_bytes / 10;
  EXPECT_LE(val.tokens(), wanted + 1);
  EXPECT_GT(val.tokens(), wanted - 200);
  for (TokenFile* file : {&train, &val}) {
    file->verify();
    EXPECT_TRUE(file->info().crc32c.has_value());
    EXPECT_EQ(file->info().tokenizer, ByteTokenizer::identity());
    EXPECT_EQ(file->info().vocab, 256);
    EXPECT_EQ(file->info().type, TokenType::kU16);
    EXPECT_EQ(file->info().layout, TokenLayout::kHeader);
  }
  EXPECT_EQ(train.info().source, fmt::format("a test, bytes 0 to {} of {}", train.tokens(), text.size()));
  EXPECT_EQ(names_of_outputs(), (std::vector<std::string>{"train.bin", "train.bin.json", "val.bin", "val.bin.json"}));
}

TEST_F(Prepare, ReadsSeveralFilesAsOneText) {
  const std::string a = lines(1000, 2), b = "no newline at the end", c = lines(3000, 3);
  const auto inputs = {input("a", a), input("empty", ""), input("b", b), input("c", c)};
  const auto result = prepare(files_, options_of(inputs));
  TokenFile train(result.train), val(result.val);
  EXPECT_EQ(text_of(train) + text_of(val), a + b + c);
}

TEST_F(Prepare, WithoutLinesCutsWhereAsked) {
  std::string text(1000, 'x');
  PrepareOptions options = options_of({input("a", text)});
  options.val_fraction = 0.25;
  auto result = prepare(files_, options);
  EXPECT_EQ(result.train_tokens, 750);
  EXPECT_EQ(result.val_tokens, 250);
  text.back() = '\n';  // behind it nothing would be left to hold out
  input("a", text);
  result = prepare(files_, options);
  EXPECT_EQ(result.val_tokens, 250);
  text[749] = '\n';  // exactly there
  input("a", text);
  EXPECT_EQ(prepare(files_, options).train_tokens, 750);
  text[750] = '\n';
  text[749] = 'x';
  input("a", text);
  EXPECT_EQ(prepare(files_, options).train_tokens, 751);
}

TEST_F(Prepare, HoldsNothingOutIfAskedSo) {
  PrepareOptions options = options_of({input("a", "text\n")});
  options.val.clear();
  options.source.clear();
  const auto result = prepare(files_, options);
  EXPECT_EQ(result.train_tokens, 5);
  EXPECT_EQ(result.val_tokens, 0);
  EXPECT_TRUE(result.val.empty());
  EXPECT_EQ(names_of_outputs(), (std::vector<std::string>{"train.bin", "train.bin.json"}));
  EXPECT_EQ(TokenFile(result.train).info().source, "a, bytes 0 to 5 of 5");
  options.val_fraction = 0;
  EXPECT_EQ(prepare(files_, options).val_tokens, 0);
}

// A header counts to 2^31 - 1. The limit here is smaller.
TEST_F(Prepare, WritesNoHeaderThatCannotCountTheTokens) {
  const std::string text = lines(20'000, 8);
  PrepareOptions options = options_of({input("a", text)});
  options.val_fraction = 0.25;
  options.most_header_tokens = static_cast<std::int64_t>(text.size()) / 2;
  const auto result = prepare(files_, options);
  TokenFile train(result.train), val(result.val);
  EXPECT_EQ(train.info().layout, TokenLayout::kRaw);
  EXPECT_EQ(val.info().layout, TokenLayout::kHeader);
  EXPECT_EQ(text_of(train) + text_of(val), text);
  train.verify();
  EXPECT_EQ(train.info().tokenizer, ByteTokenizer::identity());
  EXPECT_EQ(train.info().vocab, 256);
  EXPECT_EQ(files_.file_size_bytes(result.train), 2 * static_cast<std::uint64_t>(result.train_tokens));

  // One token fewer or more.
  options.val.clear();
  options.val_fraction.reset();
  options.most_header_tokens = static_cast<std::int64_t>(text.size());
  EXPECT_EQ(TokenFile(prepare(files_, options).train).info().layout, TokenLayout::kHeader);
  options.most_header_tokens -= 1;
  EXPECT_EQ(TokenFile(prepare(files_, options).train).info().layout, TokenLayout::kRaw);
}

// A pipe whose other end another thread fills.
class FilledPipe {
 public:
  explicit FilledPipe(std::string text) {
    EXPECT_EQ(::pipe(ends_), 0);
    writer_ = std::thread([this, text = std::move(text)] {
      for (std::size_t done = 0; done < text.size();) {
        const ssize_t moved = ::write(ends_[1], text.data() + done, text.size() - done);
        if (moved <= 0) break;
        done += static_cast<std::size_t>(moved);
      }
      ::close(ends_[1]);
    });
  }
  ~FilledPipe() {
    writer_.join();
    ::close(ends_[0]);
  }
  int read_end() const { return ends_[0]; }

 private:
  int ends_[2];
  std::thread writer_;
};

TEST_F(Prepare, ReadsStandardInput) {
  const std::string before = lines(100, 9), text = lines(20'000, 10), after = "the end\n";
  const FilledPipe pipe(text);
  PrepareOptions options = options_of({input("before", before), "-", input("after", after)});
  options.standard_input = pipe.read_end();
  options.source.clear();
  const auto result = prepare(files_, options);
  TokenFile train(result.train), val(result.val);
  EXPECT_EQ(text_of(train) + text_of(val), before + text + after);
  EXPECT_GT(result.val_tokens, result.input_bytes / 10 - 200);
  EXPECT_EQ(names_of_outputs(), (std::vector<std::string>{"train.bin", "train.bin.json", "val.bin", "val.bin.json"}));

  options.inputs = {"-"};
  EXPECT_EQ(message_of(options), "input \"standard input\": expected text, found an empty file");
  options.inputs = {"-", "-"};
  EXPECT_EQ(message_of(options), "data prepare: standard input (-) can be read only once");
  EXPECT_EQ(names_of_outputs().size(), 4u);
}

// As `<(zcat a.gz)` of a shell.
TEST_F(Prepare, ReadsNamedPipes) {
  const auto path = folder_.path() / "pipe";
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  const std::string text = lines(5'000, 11);
  std::thread writer([&] { std::ofstream(path, std::ios::binary) << text; });
  const auto result = prepare(files_, options_of({path}));
  writer.join();
  TokenFile train(result.train), val(result.val);
  EXPECT_EQ(text_of(train) + text_of(val), text);
  EXPECT_EQ(names_of_outputs().size(), 4u);
}

// More than a pipe holds is written: some of it was taken, and is kept somewhere. A program that is killed now leaves
// nothing.
TEST_F(Prepare, WhatComesOutOfAPipeHasNoName) {
  const std::string text = lines(20'000, 20);
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  PrepareOptions options = options_of({"-"});
  options.standard_input = ends[0];
  std::thread preparing([&] { prepare(files_, options); });
  for (std::size_t done = 0; done < text.size();) {
    const ssize_t moved = ::write(ends[1], text.data() + done, text.size() - done);
    ASSERT_GT(moved, 0);
    done += static_cast<std::size_t>(moved);
  }
  EXPECT_EQ(names_of_outputs(), std::vector<std::string>{});
  ::close(ends[1]);
  preparing.join();
  ::close(ends[0]);
  TokenFile train(options.train), val(options.val);
  EXPECT_EQ(text_of(train) + text_of(val), text);
}

TEST_F(Prepare, AFullDiskLeavesNothingOfStandardInput) {
  const FilledPipe pipe(lines(1'000, 12));
  PrepareOptions options = options_of({"-"});
  options.standard_input = pipe.read_end();
  test::FaultyFiles faulty(files_);
  faulty.fill_disk_at(2, ENOSPC);
  EXPECT_THROW(prepare(faulty, options), IoError);
  EXPECT_EQ(names_of_outputs(), std::vector<std::string>{});
  char rest[65536];
  while (::read(pipe.read_end(), rest, sizeof rest) > 0) continue;
}

// Zeros come only through a pipe: a file that has them is not taken for text.
TEST_F(Prepare, EveryByteIsAToken) {
  std::string text;
  for (int i = 0; i < 4; ++i) {
    for (int byte = 0; byte < 256; ++byte) text.push_back(static_cast<char>(byte));
  }
  const FilledPipe pipe(text);
  PrepareOptions options = options_of({"-"});
  options.standard_input = pipe.read_end();
  const auto result = prepare(files_, options);
  TokenFile train(result.train), val(result.val);
  EXPECT_EQ(text_of(train) + text_of(val), text);
}

TEST_F(Prepare, RefusesWhatPlainlyIsNoText) {
  const auto refused = [&](std::string_view bytes) { return message_of(options_of({input("a", bytes)})); };
  const auto expect = [](const std::string& message, std::string_view part) {
    EXPECT_NE(message.find(part), std::string::npos) << message;
  };
  std::mt19937_64 random(13);
  std::string narrow, wide, noise;
  for (int i = 0; i < 200'000; ++i) {
    const auto id = static_cast<std::uint32_t>(random() % 50'257);
    narrow.append(reinterpret_cast<const char*>(&id), 2);
    wide.append(reinterpret_cast<const char*>(&id), 4);
    noise.push_back(static_cast<char>(random()));
  }
  expect(refused(narrow), "a\": expected text, found bytes of no text (zeros)");
  expect(refused(wide), "found bytes of no text");
  expect(refused(noise), "found bytes of no text");
  expect(refused(std::string(100'000, '\0')), "found bytes of no text");
  // Text at the beginning only.
  expect(refused(lines(1'000, 14) + std::string(100'000, '\0')), "found bytes of no text");
  StepRecord record;
  record.step = 1;
  expect(refused(encode(record)), "found step records of a run");

  // Tokens: by their magic, by their sidecar, and nothing is made of either.
  PrepareOptions options = options_of({input("good", lines(1'000, 15))});
  options.train = folder_.path() / "mine.bin";
  options.val.clear();
  prepare(files_, options);
  expect(message_of(options_of({options.train})), "mine.bin.json\" is its sidecar. Name it in data.train");
  ASSERT_TRUE(std::filesystem::remove(folder_.path() / "mine.bin.json"));
  expect(message_of(options_of({options.train})), "expected text, found a token file");
  EXPECT_EQ(names_of_outputs(), std::vector<std::string>{});
}

// Whatever encoding, with a stray zero in it too.
TEST_F(Prepare, TakesTextOfAnyEncoding) {
  std::string latin1, koi8;
  for (int i = 0; i < 2'000; ++i) {
    latin1 += "Tout \xe9tait noir, et l'esprit d\xe9j\xe0 pr\xeat \xe0 na\xeetre.\n";
    koi8 += "\xf7 \xce\xc1\xde\xc1\xcc\xc5 \xd3\xcf\xd4\xd7\xcf\xd2\xc9\xcc\n";
  }
  std::string stray = latin1;
  stray[5'000] = '\0';
  for (const std::string& text : {latin1, koi8, stray}) {
    const auto result = prepare(files_, options_of({input("a", text)}));
    TokenFile train(result.train), val(result.val);
    EXPECT_EQ(text_of(train) + text_of(val), text);
  }
}

TEST_F(Prepare, RefusesWhatCannotWork) {
  const auto good = input("good", lines(100, 4));
  const auto expect = [&](const PrepareOptions& options, std::string_view part) {
    const std::string message = message_of(options);
    EXPECT_NE(message.find(part), std::string::npos) << message;
  };
  expect(options_of({}), "expected at least one text file");
  expect(options_of({folder_.path() / "missing"}), "found nothing of that name");
  expect(options_of({folder_.path()}),
         fmt::format("found a folder. Name the files in it, as in {}/*.txt", folder_.path().string()));
  expect(options_of({"/dev/zero"}), "found a device");
  expect(options_of({input("empty", "")}), "expected text, found an empty file");
  expect(options_of({input("empty", ""), input("empty too", "")}), "expected text, found 2 empty files");
  const auto packed = input("book.txt.xz", std::string_view("\3757zXZ\0 and so on", 16));
  expect(options_of({good, packed}), "book.txt.xz\": expected text, found an xz file. Unpack or convert it");
  expect(options_of({input("tiniest", "a")}), "1 byte is too few");
  expect(options_of({input("tiny", "ab")}), "2 bytes are too few to hold out a fraction of 0.1");
  PrepareOptions options = options_of({good});
  for (const double fraction : {-0.1, 1.0, 7.0, std::nan("")}) {
    options.val_fraction = fraction;
    expect(options, "val-fraction: expected a number from 0 to below 1");
  }
  options = options_of({good});
  options.val = options.train;
  expect(options, "train.bin\" (--train) and");
  expect(options, "(--val) are one file");
  options.val.clear();
  options.val_fraction = 0.1;
  expect(options, "expected the name of the held-out token file");
  options = options_of({good});
  options.val_fraction = 0;
  expect(options, "leave --val out, or raise the fraction");
  options = options_of({good});
  options.train.clear();
  expect(options, "expected the name of the token file to write");
  options = options_of({good});
  options.train = folder_.path() / "." / "good";
  expect(options, "good\" (--train) and");
  expect(options, "good\" (input) are one file");
  options = options_of({good});
  options.train = good / "train.bin";  // the folder is a file
  expect(options, fmt::format("there is no folder \"{}\" to write \"train.bin\" in", good.string()));
  options = options_of({good});
  options.val = folder_.path() / "mistyped" / "val.bin";
  expect(options, fmt::format("there is no folder \"{}\" to write \"val.bin\" in", options.val.parent_path().string()));
  EXPECT_FALSE(files_.exists(options.val.parent_path()));
  options = options_of({good});
  options.train = folder_.path() / "out";
  expect(options, "is a folder: expected the name of the token file");
  options.train = folder_.path() / "out" / "";
  expect(options, "is a folder: expected the name of the token file");
  EXPECT_EQ(names_of_outputs(), std::vector<std::string>{});
}

std::string content(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// Nothing but files is replaced, whoever may: root could take /dev/null away.
TEST_F(Prepare, ReplacesNothingThatIsNoFile) {
  const auto out = folder_.path() / "out";
  ASSERT_EQ(::mkfifo((out / "pipe").c_str(), 0600), 0);
  const int socket = ::socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string name = (out / "socket").string();
  ASSERT_LT(name.size(), sizeof address.sun_path);
  name.copy(address.sun_path, name.size());
  ASSERT_EQ(::bind(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  ::close(socket);
  std::filesystem::create_symlink("/dev/null", out / "device");
  std::filesystem::create_symlink("nowhere", out / "lost");
  std::filesystem::create_symlink("/dev/null", out / "x.bin.json");
  const auto good = input("good", lines(100, 16));
  const std::pair<const char*, const char*> cases[] = {{"pipe", "pipe\" is a pipe: expected the name"},
                                                       {"socket", "socket\" is a socket: expected"},
                                                       {"device", "device\" is a device: expected"},
                                                       {"lost", "lost\" is a link to nothing: expected"},
                                                       {"x.bin", "x.bin.json\" is in the way of the sidecar of"}};
  for (const auto& [output, expected] : cases) {
    for (const bool as_val : {false, true}) {
      PrepareOptions options = options_of({good});
      (as_val ? options.val : options.train) = out / output;
      EXPECT_THROW(prepare(files_, options), ConfigError);
      const std::string message = message_of(options);
      EXPECT_NE(message.find(expected), std::string::npos) << message;
    }
  }
  EXPECT_TRUE(std::filesystem::is_fifo(out / "pipe"));
  EXPECT_TRUE(std::filesystem::is_socket(out / "socket"));
  EXPECT_EQ(std::filesystem::read_symlink(out / "device"), "/dev/null");
  EXPECT_EQ(names_of_outputs(), (std::vector<std::string>{"device", "lost", "pipe", "socket", "x.bin.json"}));
}

TEST_F(Prepare, FollowsLinks) {
  const std::string text = lines(1'000, 17);
  std::filesystem::create_directory(folder_.path() / "big");
  const auto big = folder_.path() / "big" / "tokens.bin";
  std::ofstream(big) << "old";
  PrepareOptions options = options_of({input("a", text)});
  options.val.clear();
  std::filesystem::create_symlink("../big/tokens.bin", options.train);
  for (int again = 0; again < 2; ++again) {
    const auto result = prepare(files_, options);
    EXPECT_EQ(result.train, options.train);
    EXPECT_TRUE(std::filesystem::is_symlink(options.train));
    for (const auto& path : {big, options.train}) {
      TokenFile file(path);
      EXPECT_EQ(text_of(file), text);
      EXPECT_EQ(file.info().tokenizer, ByteTokenizer::identity()) << "the sidecar is found";
    }
    EXPECT_EQ(names_of_outputs(), std::vector<std::string>{"train.bin"});
    EXPECT_EQ(files_.list(big.parent_path()), (std::vector<std::string>{"tokens.bin", "tokens.bin.json"}));
  }
  // A sidecar of its own would be that of other tokens.
  std::filesystem::copy_file(big.string() + ".json", options.train.string() + ".json");
  EXPECT_NE(message_of(options).find("would be the sidecar of other tokens. Remove it"), std::string::npos);
  std::filesystem::remove(options.train.string() + ".json");
  std::filesystem::create_symlink("../big/tokens.bin.json", options.train.string() + ".json");
  EXPECT_EQ(message_of(options), "no error");
  EXPECT_EQ(TokenFile(options.train).info().tokenizer, ByteTokenizer::identity());
}

TEST_F(Prepare, ReplacesNoFileOfAnother) {
  const std::string text = lines(100, 18);
  const auto good = input("good", text), notes = input("notes.json", text);
  PrepareOptions options = options_of({good, notes});
  options.val.clear();
  options.train = folder_.path() / "notes";
  std::string message = message_of(options);
  EXPECT_NE(message.find("notes.json\" (the sidecar of --train) and"), std::string::npos) << message;
  EXPECT_NE(message.find("notes.json\" (input) are one file"), std::string::npos) << message;
  options.inputs = {good};
  message = message_of(options);
  EXPECT_NE(message.find("notes.json\" is in the way of the sidecar of"), std::string::npos) << message;
  EXPECT_NE(message.find("not the sidecar of a token file. Move it away"), std::string::npos) << message;
  EXPECT_EQ(content(notes), text);
  EXPECT_FALSE(files_.exists(options.train));

  // A sidecar is replaced together with its tokens only.
  options.train = folder_.path() / "out" / "g.bin";
  EXPECT_EQ(message_of(options), "no error");
  EXPECT_EQ(message_of(options), "no error");
  const std::string sidecar = content(folder_.path() / "out" / "g.bin.json");
  options.train += ".json";
  message = message_of(options);
  EXPECT_NE(message.find("g.bin.json\" is the sidecar of a token file: choose another name"), std::string::npos)
      << message;
  EXPECT_EQ(content(options.train), sidecar);
  EXPECT_EQ(names_of_outputs(), (std::vector<std::string>{"g.bin", "g.bin.json"}));
}

TEST_F(Prepare, WritesNoFileTwice) {
  const auto good = input("good", lines(100, 19));
  const auto out = folder_.path() / "out";
  const auto refused = [&](const std::filesystem::path& train, const std::filesystem::path& val) {
    PrepareOptions options = options_of({good});
    options.train = train;
    options.val = val;
    EXPECT_THROW(prepare(files_, options), ConfigError);
    return message_of(options);
  };
  std::string message = refused(out / "f.bin", out / "f.bin.json");
  EXPECT_NE(message.find("f.bin.json\" (the sidecar of --train) and"), std::string::npos) << message;
  EXPECT_NE(message.find("f.bin.json\" (--val) are one file"), std::string::npos) << message;
  message = refused(out / "f.bin.json", out / "f.bin");
  EXPECT_NE(message.find("(--train) and"), std::string::npos) << message;
  EXPECT_NE(message.find("(the sidecar of --val) are one file"), std::string::npos) << message;
  // Under other names of the folder.
  std::filesystem::create_directory_symlink("out", folder_.path() / "alias");
  EXPECT_NE(refused(out / "f.bin", folder_.path() / "alias" / "f.bin").find("are one file"), std::string::npos);
  EXPECT_NE(refused(out / "f.bin", std::filesystem::relative(out / "f.bin")).find("are one file"), std::string::npos);
  EXPECT_EQ(names_of_outputs(), std::vector<std::string>{});
}

TEST_F(Prepare, SurvivesShortAndInterruptedCalls) {
  const std::string text = lines(20'000, 5);
  test::FaultyFiles faulty(files_);
  faulty.shorten_writes();
  faulty.interrupt();
  const auto result = prepare(faulty, options_of({input("a", text)}));
  TokenFile train(result.train), val(result.val);
  train.verify();
  val.verify();
  EXPECT_EQ(text_of(train) + text_of(val), text);
}

// A token file in memory, checked against its sidecar.
struct TokensInMemory {
  std::string text;
  bool has_sidecar;
};

TokensInMemory tokens_in(test::MemoryFiles& memory, const std::filesystem::path& path) {
  const std::string bytes = read_file(memory, path, 1 << 20);
  std::filesystem::path sidecar_path = path;
  sidecar_path += ".json";
  std::optional<std::string> sidecar;
  if (memory.exists(sidecar_path)) sidecar = read_file(memory, sidecar_path, 1 << 20);
  const TokenFileInfo info = parse_token_file(
      path.string(), bytes_of(std::string_view(bytes).substr(0, kTokenHeadBytes)), bytes.size(), sidecar, std::nullopt);
  const std::span<const std::byte> tokens = bytes_of(bytes).subspan(info.data_offset_bytes());
  EXPECT_EQ(info.crc32c.value_or(crc32c(tokens)), crc32c(tokens)) << path;
  std::string text;
  for (std::size_t i = 0; i < tokens.size(); i += 2) text.push_back(static_cast<char>(tokens[i]));
  return {text, sidecar.has_value()};
}

// Two texts, equally long, so that only the checksum tells their tokens apart.
const std::string kOldText = std::string(600, 'o') + "\n" + std::string(60, 'o');
const std::string kNewText = std::string(600, 'n') + "\n" + std::string(60, 'n');

// A memory file system in which the old text is prepared and the new one is about to be.
void prepare_old(test::MemoryFiles& memory, PrepareOptions options) {
  memory.make_directories("/out");
  write_file_durably(memory, "/old", kOldText);
  write_file_durably(memory, "/new", kNewText);
  options.inputs = {"/old"};
  prepare(memory, options);
}

const PrepareOptions kNewOptions{
    .inputs = {"/new"}, .train = "/out/train.bin", .val = "/out/val.bin", .source = "a test"};

// Whichever call fails, and if every later one fails for want of space: one IoError, no temporary file, and every token
// file that has a sidecar is the sidecar's. Unless the failure is in the last renamings, the old pair is untouched.
TEST(PrepareFaults, AFailingDiskLeavesTheOldFiles) {
  for (const bool stays_full : {false, true}) {
    int untouched = 0, failures = 0;
    for (std::int64_t call = 1;; ++call) {
      SCOPED_TRACE(fmt::format("call {}", call));
      test::MemoryFiles memory;
      prepare_old(memory, kNewOptions);
      test::FaultyFiles faulty(memory);
      stays_full ? faulty.fill_disk_at(call, ENOSPC) : faulty.fail_at(call, EIO);
      bool failed = false;
      try {
        prepare(faulty, kNewOptions);
      } catch (const IoError& error) {
        failed = true;
        EXPECT_EQ(error.error_number, stays_full ? ENOSPC : EIO);
      }
      if (faulty.changing_calls() < call) break;
      failures += failed;
      const auto train = tokens_in(memory, kNewOptions.train), val = tokens_in(memory, kNewOptions.val);
      untouched += train.text + val.text == kOldText && train.has_sidecar && val.has_sidecar;
      for (const std::string& name : memory.list("/out")) EXPECT_EQ(name.find(".tmp"), std::string::npos) << name;
    }
    EXPECT_GE(failures, 12);
    EXPECT_GE(untouched, 12);  // everything before the first renaming
  }
}

// The machine dies at any call and loses what was not synced: a sidecar never stands beside other tokens.
TEST(PrepareFaults, PowerLossNeverPairsASidecarWithOtherTokens) {
  constexpr std::uint64_t kSeed = 2024;
  std::printf("seed %llu\n", static_cast<unsigned long long>(kSeed));
  std::mt19937_64 random(kSeed);
  int with_sidecar = 0, without_sidecar = 0, trials = 0;
  for (std::int64_t call = 1;; ++call) {
    SCOPED_TRACE(fmt::format("seed {}, call {}", kSeed, call));
    bool crashed = false;
    for (int repeat = 0; repeat < 10; ++repeat, ++trials) {
      test::MemoryFiles memory;
      prepare_old(memory, kNewOptions);
      test::FaultyFiles dying(memory);
      dying.crash_at(call);
      crashed = false;
      try {
        prepare(dying, kNewOptions);
      } catch (const test::SimulatedCrash&) {
        crashed = true;
      }
      memory.power_loss(random);
      for (const auto& path : {kNewOptions.train, kNewOptions.val}) {
        tokens_in(memory, path).has_sidecar ? ++with_sidecar : ++without_sidecar;
      }
    }
    if (!crashed) break;
  }
  EXPECT_GT(trials, 200);
  EXPECT_GT(with_sidecar, 0);
  EXPECT_GT(without_sidecar, 0);
}

}  // namespace
}  // namespace strake::data
