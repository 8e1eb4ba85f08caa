/* Spiking neurons over [steps, n] in float and double. Plain C with OpenMP; compile with -O3 -fopenmp -ffp-contract=off: a fused
   multiply-add rounds once instead of twice and moves spikes that are at the threshold. */
#include "common.h"

#define BLOCK 256 /* neurons of a block, as in cpu.py: state and, for some tens of steps, potentials stay in the first-level cache */

#define real float
#define TYPE float
#define CLONES VERSIONS
#define FABS fabsf
#define REAL_IS_FLOAT
#include "step.h"
#include "neurons.h"
#undef real
#undef TYPE
#undef CLONES
#undef FABS
#undef REAL_IS_FLOAT

#define real double
#define TYPE double
#define CLONES
#define FABS fabs
#include "step.h"
#include "neurons.h"
