// Marks a function that host and device share.
#pragma once

#ifdef __CUDACC__
#define DECALIGN_BOTH __host__ __device__
#else
#define DECALIGN_BOTH
#endif
