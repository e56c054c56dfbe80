// One piece of work at a time beside the training thread.
#include "checkpoint/writer_thread.h"

#include <gtest/gtest.h>

#include <stdexcept>

#include "tests/support/gate.h"

namespace strake::checkpoint {
namespace {

TEST(WriterThread, DoesOnePieceOfWorkBesideTheCaller) {
  test::Gate gate;
  WriterThread writer;
  EXPECT_TRUE(writer.idle());
  int done = 0;
  writer.start([&] {
    gate.pass();
    ++done;
  });
  EXPECT_FALSE(writer.idle());
  writer.wait_for(std::chrono::milliseconds(1));
  EXPECT_FALSE(writer.idle());
  gate.open();
  writer.wait();
  EXPECT_TRUE(writer.idle());
  EXPECT_EQ(done, 1);
  writer.start([&] { ++done; });
  writer.wait_for(std::chrono::hours(1));
  EXPECT_TRUE(writer.idle());
  writer.wait();
  EXPECT_EQ(done, 2);
}

TEST(WriterThread, ThrowsOnceWhatTheWorkThrew) {
  WriterThread writer;
  writer.start([] { throw std::runtime_error("full"); });
  writer.wait_for(std::chrono::hours(1));
  EXPECT_TRUE(writer.idle());
  EXPECT_THROW(writer.wait(), std::runtime_error);
  writer.wait();
  writer.start([] {});
  writer.wait();
}

TEST(WriterThread, ItsEndWaitsForTheWork) {
  bool done = false;
  {
    WriterThread writer;
    writer.start([&] { done = true; });
  }
  EXPECT_TRUE(done);
}

}  // namespace
}  // namespace strake::checkpoint
