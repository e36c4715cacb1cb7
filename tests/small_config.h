// A network small enough for tests of what is around it.
#pragma once

#include "model/config.h"

namespace decalign::testing {

inline Config small_config() {
  Config config;
  config.dst_feature_dim_nheads = {8, 2};
  config.nlevels = 1;
  config.num_prototypes = 3;
  config.gmm_em_iters = 2;
  config.ot_num_iters = 5;
  config.task_loss = "mse";
  return config;
}

}  // namespace decalign::testing
