// The reader alone, on a small table of keys. The whole configuration: tests/launch/config_test.cc.
#include "runtime/base/config_reader.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <optional>

#include "runtime/base/error.h"

namespace strake {
namespace {

enum class Colour { kRed, kBlue };

struct Values {
  std::int64_t whole = 5;
  double real = 0.5;
  bool truth = false;
  std::string word = "w";
  Colour colour = Colour::kRed;
  Colour switched = Colour::kRed;
};

class ConfigReaderTest : public ::testing::Test {
 protected:
  ConfigReaderTest() {
    reader_.bind("a.whole", values_.whole, {1, 10}, "An integer.");
    reader_.bind("a.real", values_.real, {0, 1}, "A number.");
    reader_.bind("a.truth", values_.truth, "A switch.", ConfigReader::Effect::kNone);
    reader_.bind("b.word", values_.word, "A text.");
    reader_.bind<Colour>("b.colour", values_.colour, {{"red", Colour::kRed}, {"blue", Colour::kBlue}}, "A choice.");
    reader_.bind<Colour>("b.switched", values_.switched, {{"auto", Colour::kRed}, {"true", Colour::kBlue}},
                         "A choice with a truth value.", ConfigReader::Effect::kNone);
    const std::string name = "strake-config-" + std::to_string(::getpid()) + ".toml";
    path_ = std::filesystem::temp_directory_path() / name;
  }
  ~ConfigReaderTest() override {
    std::error_code ignored;
    std::filesystem::remove(path_, ignored);
  }

  void read(const std::string& toml) {
    std::ofstream(path_) << toml;
    reader_.read_file(path_);
  }
  // The problems, with the file's folder taken off; empty: none.
  std::string problems() {
    try {
      reader_.finish();
    } catch (const ConfigError& error) {
      std::string text = error.what();
      for (std::size_t at; (at = text.find(path_.string())) != std::string::npos;) {
        text.replace(at, path_.string().size(), "F");
      }
      return text;
    }
    return "";
  }

  Values values_;
  ConfigReader reader_;
  std::filesystem::path path_;
};

TEST_F(ConfigReaderTest, ReadsEveryType) {
  read("[a]\nwhole = 7\nreal = 0.25\ntruth = true\n[b]\nword = \"x\"\ncolour = \"blue\"\nswitched = true\n");
  EXPECT_EQ(problems(), "");
  EXPECT_EQ(values_.whole, 7);
  EXPECT_EQ(values_.real, 0.25);
  EXPECT_TRUE(values_.truth);
  EXPECT_EQ(values_.word, "x");
  EXPECT_EQ(values_.colour, Colour::kBlue);
  EXPECT_EQ(values_.switched, Colour::kBlue);
}

TEST_F(ConfigReaderTest, OverridesWinAndTheLastOfThemWins) {
  read("a.whole = 7\nb.word = \"x\"");
  for (const char* text : {"a.whole=8", "a.whole=9", "a.real=+1e-1", "a.truth=true", "b.word=p=q", "b.colour=blue"}) {
    reader_.read_override(text);
  }
  EXPECT_EQ(problems(), "");
  EXPECT_EQ(values_.whole, 9);
  EXPECT_EQ(values_.real, 0.1);
  EXPECT_TRUE(values_.truth);
  EXPECT_EQ(values_.word, "p=q");
  EXPECT_EQ(values_.colour, Colour::kBlue);
}

TEST_F(ConfigReaderTest, TheEndsOfARangeAreInside) {
  read("[a]\nwhole = 10\nreal = 1\n");
  reader_.read_override("a.whole=1");
  EXPECT_EQ(problems(), "");
  EXPECT_EQ(values_.whole, 1);
  EXPECT_EQ(values_.real, 1.0);
}

TEST_F(ConfigReaderTest, ReportsEverythingTogetherInTheOrderOfTheSources) {
  read("[b]\nwrod = \"x\"\n\n[a]\nwhole = 11\nreal = \"much\"\n");
  reader_.read_override("a.truth=yes");
  reader_.problem("b.colour", "does not suit");
  EXPECT_EQ(problems(),
            "F:2: b.wrod: unknown key; did you mean b.word?\n"
            "F:5: a.whole: 11 is not accepted; write an integer from 1 to 10\n"
            "F:6: a.real: \"much\" is not accepted; write a number from 0 to 1\n"
            "command line: a.truth: \"yes\" is not accepted; write true or false\n"
            "b.colour: does not suit");
}

TEST_F(ConfigReaderTest, ARefusedValueLeavesTheFieldAndMakesItsKeyUnsound) {
  read("[a]\nwhole = 11\n");
  EXPECT_EQ(values_.whole, 5);
  EXPECT_FALSE(reader_.sound({"a.real", "a.whole"}));
  EXPECT_TRUE(reader_.sound({"a.real", "b.word"}));
}

TEST_F(ConfigReaderTest, AContradictionNamesThePlaceWhereTheKeyWasSet) {
  read("[a]\n\nwhole = 3\n");
  reader_.read_override("a.real=0.75");
  reader_.problem("a.whole", "is odd");
  reader_.problem("a.real", "is large");
  EXPECT_EQ(problems(), "F:3: a.whole: is odd\ncommand line: a.real: is large");
}

TEST_F(ConfigReaderTest, SaysWhatASectionOrTheFileHas) {
  read("[a]\nzzzzzzzz = 1\n[zzzzzzzz]\nqqqqqqqq = 1\n");
  EXPECT_EQ(problems(),
            "F:2: a.zzzzzzzz: unknown key; [a] has a.whole, a.real, a.truth\n"
            "F:4: zzzzzzzz.qqqqqqqq: unknown key; remove it; the sections are a, b");
}

TEST_F(ConfigReaderTest, KnowsSectionsFromValues) {
  read("a = 3\n[b]\nword = [1, 2]\ncolour = {x = 1}\n");
  EXPECT_EQ(problems(),
            "F:1: a: is a section; write [a] and its keys below\n"
            "F:3: b.word: takes a single value; write a text in quotes\n"
            "F:4: b.colour: takes a single value; write red or blue");
}

class ConfigReaderLists : public ConfigReaderTest {
 protected:
  ConfigReaderLists() { reader_.bind("c.list", list_, "Texts."); }

  using List = std::vector<std::string>;
  List list_{"default"};
};

TEST_F(ConfigReaderLists, AreReadFromTomlAndOverrides) {
  read("[c]\nlist = \"a,b\"\n");
  EXPECT_EQ(list_, List{"a,b"}) << "in a file a text is one text";
  read("[c]\nlist = [\n  \"x\",\n  'y,z',\n]\n");
  EXPECT_EQ(list_, (List{"x", "y,z"}));
  read("[c]\nlist = []\n");
  EXPECT_EQ(list_, List());
  const std::pair<const char*, List> overrides[] = {
      {"c.list=p", {"p"}}, {"c.list=p,q=1, r", {"p", "q=1", " r"}},       {R"(c.list=["p,q", 'r'])", {"p,q", "r"}},
      {"c.list=[]", {}},   {"c.list=data/[ab]*.bin", {"data/[ab]*.bin"}}, {"c.list=", {}}};
  for (const auto& [text, expected] : overrides) {
    reader_.read_override(text);
    EXPECT_EQ(list_, expected) << text;
  }
  EXPECT_EQ(problems(), "");
}

TEST_F(ConfigReaderLists, RefuseWhatIsNoText) {
  read("[c]\nlist = [\"x\", 1]\n");
  EXPECT_EQ(problems(), "F:2: c.list: takes texts only; write a text in quotes or a list of them, [\"a\", \"b\"]");
  EXPECT_FALSE(reader_.sound({"c.list"}));
  EXPECT_EQ(list_, List{"default"});
}

TEST_F(ConfigReaderLists, RefuseEmptyNames) {
  for (const char* text :
       {"c.list=a,", "c.list=,", "c.list=[\"\"]", "c.list=[1]", "c.list=[\"a\"", "c.list=[]\nx = 1"}) {
    ConfigReader reader;
    List list{"default"};
    reader.bind("c.list", list, "Texts.");
    reader.read_override(text);
    EXPECT_FALSE(reader.sound({"c.list"})) << text;
    EXPECT_EQ(list, List{"default"}) << text;
  }
}

TEST_F(ConfigReaderLists, OneTextIsWrittenAsOne) {
  EXPECT_NE(reader_.to_json().find(R"("c": {"list": "default"})"), std::string::npos);
  list_ = {"a", "b\""};
  EXPECT_NE(reader_.to_json().find(R"("c": {"list": ["a", "b\""]})"), std::string::npos) << reader_.to_json();
  list_.clear();
  EXPECT_NE(reader_.to_json().find(R"("c": {"list": ""})"), std::string::npos);
}

TEST_F(ConfigReaderTest, ReportsWhatIsNotTomlWithItsLine) {
  read("[a]\nwhole = = 3\n");
  EXPECT_TRUE(problems().starts_with("F:2: not valid TOML: ")) << problems();
}

TEST_F(ConfigReaderTest, ReportsAFileThatCannotBeRead) {
  EXPECT_FALSE(reader_.read_file(path_));
  EXPECT_TRUE(problems().starts_with("F: cannot be read (No such file or directory); give the path")) << problems();
}

TEST_F(ConfigReaderTest, ReportsAFolder) {
  reader_.read_file(path_.parent_path());
  EXPECT_NE(problems().find("cannot be read (it is a folder)"), std::string::npos) << problems();
}

// It would wait for a writer, and a second reader would find nothing.
TEST_F(ConfigReaderTest, ReportsAPipe) {
  ASSERT_EQ(::mkfifo(path_.c_str(), 0600), 0);
  EXPECT_FALSE(reader_.read_file(path_));
  EXPECT_NE(problems().find("F: cannot be read (it is a pipe or a device"), std::string::npos) << problems();
}

TEST_F(ConfigReaderTest, AValueThatMayBeLeftToTheProgramIsAuto) {
  std::optional<std::int64_t> whole = 3;
  std::optional<double> real;
  ConfigReader reader;
  reader.bind("c.whole", whole, {0, 10}, "");
  reader.bind("c.real", real, {0, 1}, "");
  EXPECT_EQ(reader.to_json(), R"({"c": {"whole": 3, "real": "auto"}})");
  for (const char* text : {"c.whole=auto", "c.real=0.25"}) reader.read_override(text);
  EXPECT_EQ(whole, std::nullopt);
  EXPECT_EQ(real, 0.25);
  std::ofstream(path_) << "[c]\nwhole = 10\nreal = \"auto\"\n";
  reader.read_file(path_);
  EXPECT_EQ(whole, 10);
  EXPECT_EQ(real, std::nullopt);
  reader.read_override("c.real=1");
  EXPECT_EQ(real, 1.0);
  EXPECT_NO_THROW(reader.finish());
  for (const char* text : {"c.real=1.5", "c.real=nan", "c.real=", "c.real=Auto", "c.whole=0.5", "c.whole=11"}) {
    ConfigReader strict;
    strict.bind("c.whole", whole, {0, 10}, "");
    strict.bind("c.real", real, {0, 1}, "");
    strict.read_override(text);
    EXPECT_THROW(strict.finish(), ConfigError) << text;
  }
}

TEST_F(ConfigReaderTest, KnowsWhereAValueCameFrom) {
  using Source = ConfigReader::Source;
  read("a.whole = 7\na.real = 0.1\n");
  reader_.read_override("a.real=0.2");
  EXPECT_EQ(reader_.source("a.truth"), Source::kDefault);
  EXPECT_EQ(reader_.source("a.whole"), Source::kFile);
  EXPECT_EQ(reader_.source("a.real"), Source::kCommandLine);
  EXPECT_LT(Source::kFile, Source::kCommandLine);
}

TEST_F(ConfigReaderTest, WritesAllValuesAsJson) {
  values_.word = "q\"";
  values_.colour = Colour::kBlue;
  EXPECT_EQ(reader_.to_json(), R"({"a": {"whole": 5, "real": 0.5, "truth": false}, )"
                               R"("b": {"word": "q\"", "colour": "blue", "switched": "auto"}})");
  EXPECT_EQ(reader_.results_json(), R"({"a": {"whole": 5, "real": 0.5}, "b": {"word": "q\"", "colour": "blue"}})");
}

TEST_F(ConfigReaderTest, DocumentsItsKeys) {
  const auto keys = reader_.keys();
  ASSERT_EQ(keys.size(), 6u);
  EXPECT_EQ(keys[0].name, "a.whole");
  EXPECT_EQ(keys[0].accepts, "an integer from 1 to 10");
  EXPECT_EQ(keys[0].value, "5");
  EXPECT_EQ(keys[0].doc, "An integer.");
  EXPECT_EQ(keys[5].accepts, "auto or true");
}

TEST_F(ConfigReaderTest, BindingAKeyTwiceIsAMistakeOfTheProgram) {
  EXPECT_DEATH(reader_.bind("a.whole", values_.whole, {0, 1}, ""), "key bound twice: a.whole");
}

}  // namespace
}  // namespace strake
