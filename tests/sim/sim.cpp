// The simulated device: scheduler, checker and runtime.
#include "sim_impl.h"
