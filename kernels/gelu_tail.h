// The lower tail of the normal distribution, as both backends approximate it.
#pragma once

// P(q) with q = (t - a) / (t + a), a = kPole, interpolates Phi(-t) exp(t^2 / 2) (t + a) in
// Chebyshev nodes for 0 <= t <= 14 (float) or 39, highest power first; relative error 1.3e-8
// (float), 9e-17 (double). Macros: device code cannot name a constant array of the host's.
#ifdef DECALIGN_F64
#define DECALIGN_GELU_FAR 39  // exp(-kFar^2 / 2) is 0
#define DECALIGN_GELU_POLE 4.5
#define DECALIGN_GELU_TAIL                                                                         \
  -2.0226957499977059e-9, -8.9879216652082821e-9, 1.5044291753208875e-9, 6.9614901410420998e-8,    \
      5.494536571026644e-8, -3.8085875558139355e-7, -4.9466756833566796e-7, 2.1450660010663203e-6, \
      3.1874611727265271e-6, -1.4237161483365034e-5, -1.5932234388743217e-5,                       \
      1.1204309427540524e-4, 6.3809858036614731e-6, -9.1774657250720197e-4, 1.7488305873436488e-3, \
      4.2236133872341533e-3, -3.3871326178422704e-2, 1.113825965698589e-1, -2.5314179995093035e-1, \
      4.4645251705568538e-1, -6.4025776025261743e-1, 7.6323052897020311e-1
#else
#define DECALIGN_GELU_FAR 14.5f
#define DECALIGN_GELU_POLE 4
#define DECALIGN_GELU_TAIL                                                                        \
  -1.20184401e-4f, 2.0126173e-4f, 1.57231788e-3f, -3.5261837e-3f, -7.5292507e-3f, 6.04066887e-2f, \
      -1.86522685e-1f, 3.87136684e-1f, -6.07896618e-1f, 7.55285138e-1f
#endif
