// From a data set as its file has it to what the network is trained on: protocol, lengths,
// standardisation.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "data/standardize.h"
#include "model/config.h"
#include "model/pretrained.h"

namespace decalign {

/// Statistics by modality; empty where nothing is standardised.
using Statistics = std::map<std::string, FeatureStats>;

/// The file of one of the field's data sets below `data_dir` (mosi, mosei, sims, iemocap and the
/// release's aliases of sims); any other name is itself a path.
std::string dataset_path(const std::string& name, const std::string& data_dir);
/// "ch-sims" and its like become "sims".
std::string dataset_alias(const std::string& name);

/// Opens `dataset` ("generated", one of the field's names, or a path) as the config asks: labels,
/// feature files, the protocol of IEMOCAP; with `encoder`, text as token ids where they can be had,
/// checked against its vocabulary, width being its hidden size. `missing`: why there is none, for
/// data that have nothing but tokens. Throws input_error.
Dataset open_dataset(const Config& config, const std::string& dataset, const std::string& data_dir,
                     const Pretrained* encoder = nullptr,
                     const std::vector<std::string>& splits = {}, bool allow_unlabelled = false,
                     const std::string& missing = {});

/// Whether text is token ids.
bool has_tokens(const Dataset& dataset);

/// Finds lengths where the file gives none (the last step that is not all zero), standardises
/// (statistics of the training split, or `given` if it is not empty), averages over time and clears
/// padding (mask_source lengths), as the config asks. Returns the statistics used.
Statistics prepare(const Config& config, Dataset& dataset, const Statistics& given = {});

/// N / (count * classes) of the training labels for class_weight balanced; the config's own list if
/// it has one.
std::vector<double> class_weights(const Config& config, const Split& train);

/// Throws input_error naming the split if a class label is outside [0, num_classes).
void check_labels(const Config& config, const Dataset& dataset, const std::string& where);

}  // namespace decalign
