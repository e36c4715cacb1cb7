// The subcommands of `decalign`. Each adds itself to the command line and runs when it was chosen.
#pragma once

#include <CLI/CLI.hpp>

namespace decalign {

void add_train(CLI::App& app);
void add_test(CLI::App& app);
void add_predict(CLI::App& app);
void add_replay(CLI::App& app);
void add_metrics(CLI::App& app);
void add_convert(CLI::App& app);
void add_tokenize(CLI::App& app);
void add_info(CLI::App& app);

}  // namespace decalign
