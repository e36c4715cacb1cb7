// decalign: train, test, predict, replay, metrics, convert, tokenize, info.
#include <algorithm>
#include <cctype>
#include <csignal>
#include <cstdio>
#include <string>
#include <vector>

#include "autograd/cuda_device.h"
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
  decalign::add_tokenize(app);
  decalign::add_info(app);
  const auto commands = app.get_subcommands([](const CLI::App*) { return true; });
  const std::string first = argc > 1 ? argv[1] : "-";
  if (first[0] != '-' && std::none_of(commands.begin(), commands.end(),
                                      [&](const CLI::App* c) { return c->get_name() == first; })) {
    std::fprintf(stderr, "decalign: no command \"%s\" (--help shows what there is)\n",
                 first.c_str());
    return 2;
  }
  try {
    app.parse(words(argc, argv));
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return app.exit(e);  // --help
    std::fprintf(stderr, "decalign: %s (--help shows what there is)\n", e.what());
    return 2;
  } catch (const decalign::input_error& e) {
    std::fprintf(stderr, "decalign: %s\n", e.what());
    return 2;
  } catch (const decalign::device_error& e) {
    std::fprintf(stderr, "decalign: %s\n", e.what());
    return 2;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "decalign: %s\n", e.what());
    return 1;
  }
  return 0;
}
