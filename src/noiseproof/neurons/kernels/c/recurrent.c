/* Recurrent layers of spiking neurons in float and double; see neurons.c for how to compile. */
#include "common.h"

#define real float
#define TYPE float
#define CLONES VERSIONS
#define FABS fabsf
#define ROWS 6
#define REAL_IS_FLOAT
#include "step.h"
#include "recurrent.h"
#undef real
#undef TYPE
#undef CLONES
#undef FABS
#undef ROWS
#undef REAL_IS_FLOAT

#define real double
#define TYPE double
#define CLONES
#define FABS fabs
#define ROWS 3
#include "step.h"
#include "recurrent.h"
