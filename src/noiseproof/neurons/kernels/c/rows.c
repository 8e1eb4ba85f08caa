/* Small matrix products for the recurrence: a few rows times a matrix that stays in the second-level cache. */
#include "common.h"

#define WIDE 16

#define real float
#define TYPE float
#define CLONES VERSIONS
#define ROWS 6
#include "rows.h"
#undef real
#undef TYPE
#undef CLONES
#undef ROWS

#define real double
#define TYPE double
#define CLONES
#define ROWS 3
#include "rows.h"
