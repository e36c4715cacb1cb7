// decalign: train, test, predict, replay, metrics, convert, info.
#include <cctype>
#include <csignal>
#include <cstdio>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "tools/cli/commands.h"

namespace {

bool is_integer(const std::string& word) {
  const size_t start = word.size() > 1 && word[0] == '-' ? 1 : 0;
  return word.size() > start && word.find_first_not_of("0123456789", start) == std::string::npos;
}

// `--seeds 1 2 3 key=value`: the list ends at the first word that is no integer.
std::vector<std::string> words(int argc, char** argv) {
  std::vector<std::string> result;
  for (int i = 1; i < argc; ++i) {
    result.emplace_back(argv[i]);
    if (result.back() != "--seeds") continue;
    for (bool first = true; i + 1 < argc && is_integer(argv[i + 1]); first = false) {
      if (!first) result.emplace_back("--seeds");
      result.emplace_back(argv[++i]);
    }
  }
  return {result.rbegin(), result.rend()};  // CLI11 wants them last to first
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGXFSZ, SIG_IGN);  // a full quota is an error of the write, which is reported
  CLI::App app(
      "DecAlign: hierarchical cross-modal alignment for decoupled multimodal representation "
      "learning.");
  app.require_subcommand(1);
  decalign::add_train(app);
  decalign::add_test(app);
  decalign::add_predict(app);
  decalign::add_replay(app);
  decalign::add_metrics(app);
  decalign::add_convert(app);
  decalign::add_info(app);
  try {
    app.parse(words(argc, argv));
  } catch (const CLI::ParseError& e) {
    const int status = app.exit(e);
    return status == 0 ? 0 : 2;
  } catch (const decalign::input_error& e) {
    std::fprintf(stderr, "decalign: %s\n", e.what());
    return 2;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "decalign: %s\n", e.what());
    return 1;
  }
  return 0;
}
