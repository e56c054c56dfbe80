#include "runtime/device/stream_clocks.h"

#include <gtest/gtest.h>

namespace strake::test {
namespace {

enum Streams : int { kCompute, kComm, kCopy };

TEST(StreamClocks, NumbersTheOperationsOfEachStream) {
  StreamClocks clocks;
  EXPECT_EQ(clocks.launch(kComm).number, 1u);
  EXPECT_EQ(clocks.launch(kComm).number, 2u);
  const Moment first = clocks.launch(kCompute);
  EXPECT_EQ(first.stream, kCompute);
  EXPECT_EQ(first.number, 1u);
}

TEST(StreamClocks, StreamOrderAndWaitsOrder) {
  StreamClocks clocks;
  const Moment written = clocks.launch(kCompute);
  const Clock recorded = clocks.now(kCompute);
  const Moment later = clocks.launch(kCompute);
  EXPECT_TRUE(ordered(written, clocks.now(kCompute)));
  EXPECT_FALSE(ordered(written, clocks.now(kComm)));
  clocks.wait(kComm, recorded);
  EXPECT_TRUE(ordered(written, clocks.now(kComm)));
  EXPECT_FALSE(ordered(later, clocks.now(kComm))) << "it was launched behind the record";
  EXPECT_FALSE(ordered(written, clocks.now(kCopy)));
}

TEST(StreamClocks, OrderIsHandedOn) {
  StreamClocks clocks;
  const Moment written = clocks.launch(kCompute);
  clocks.wait(kComm, clocks.now(kCompute));
  const Clock from_comm = clocks.now(kComm);
  clocks.wait(kCopy, from_comm);
  EXPECT_TRUE(ordered(written, clocks.now(kCopy)));
}

TEST(StreamClocks, WhatTheHostWaitedForIsBeforeAllThatIsEnqueuedLater) {
  StreamClocks clocks;
  const Moment written = clocks.launch(kCompute);
  const Clock before = clocks.now(kComm);
  clocks.synchronize(clocks.now(kCompute));
  EXPECT_FALSE(ordered(written, before));
  for (const int stream : {kComm, kCopy}) EXPECT_TRUE(ordered(written, clocks.now(stream)));
}

TEST(StreamClocks, NoOperationIsBeforeEverything) {
  StreamClocks clocks;
  EXPECT_TRUE(ordered(Moment{}, clocks.now(kCompute)));
}

}  // namespace
}  // namespace strake::test
