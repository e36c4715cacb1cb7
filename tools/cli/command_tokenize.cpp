// decalign tokenize: raw text to token ids, of a data set or of the lines of a file.
#include <fstream>
#include <iostream>

#include "data/dataset_file.h"
#include "data/wordpiece.h"
#include "tools/cli/commands.h"

namespace decalign {
namespace {

struct TokenizeOptions {
  std::string pretrained, in, out, lines;
  int64_t steps = 0;  // 0: 50 for a data set, no limit for lines
};

void print_ids(const WordPiece& tokenizer, const TokenizeOptions& options) {
  std::ifstream file(options.lines, std::ios::binary);
  std::string line;
  const int64_t steps = options.steps > 0 ? options.steps : INT64_MAX;
  while (std::getline(file, line)) {
    std::string words;
    for (const int32_t id : tokenizer.ids(line, steps)) {
      words += (words.empty() ? "" : " ") + std::to_string(id);
    }
    std::cout << words << "\n";
  }
  if (!file.eof()) throw input_error(options.lines + ": cannot be read");
}

void add_tokens(const WordPiece& tokenizer, const TokenizeOptions& options) {
  LoadOptions load;
  load.labels_key = "";
  load.allow_unlabelled = true;
  load.keep_text = true;
  load.tokenizer = &tokenizer;
  if (options.steps > 0) load.token_steps = options.steps;
  const Dataset data = load_dataset(options.in, load);
  save_dataset(options.out, data);
  for (const auto& [name, split] : data.splits) {
    int64_t cut = 0;
    for (const std::string& text : split.raw_text) {
      if (std::ssize(tokenizer.pieces(text)) > load.token_steps - 2) ++cut;
    }
    std::cout << name << ": " << split.count() << " samples, " << cut << " cut to "
              << load.token_steps << " tokens\n";
  }
}

void tokenize_command(const TokenizeOptions& options) {
  if (options.lines.empty() == options.in.empty() || options.in.empty() != options.out.empty()) {
    throw input_error("tokenize needs a data set IN and a file OUT, or --lines FILE");
  }
  const WordPiece tokenizer(options.pretrained);
  if (options.lines.empty()) {
    add_tokens(tokenizer, options);
  } else {
    print_ids(tokenizer, options);
  }
}

}  // namespace

void add_tokenize(CLI::App& app) {
  auto options = std::make_shared<TokenizeOptions>();
  CLI::App* command = app.add_subcommand(
      "tokenize", "adds the token ids of its raw_text to a data set, as text_bert [N, 3, T]");
  command
      ->add_option("--pretrained", options->pretrained,
                   "a folder with vocab.txt and, if it has one, tokenizer_config.json")
      ->required();
  command->add_option("--steps", options->steps, "T, [CLS] and [SEP] included; 50 if not given")
      ->check(CLI::Range(int64_t(2), int64_t(65536)));
  command->add_option("--lines", options->lines,
                      "instead of a data set: print the ids of each line of this text file");
  command->add_option("in", options->in, "a data set with raw_text, either format");
  command->add_option("out", options->out,
                      "ends in .pkl for a pickle, anything else is safetensors");
  command->callback([=] { tokenize_command(*options); });
}

}  // namespace decalign
