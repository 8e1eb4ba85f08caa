#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef int64_t i64;
typedef int32_t i32;

enum { HARD, SOFT, NEXT };
#define SMALL 32768 /* below so many numbers a second thread costs more than it brings */
#define INLINE static inline __attribute__((always_inline))
#define SIMD _Pragma("omp simd")

/* one function for several processors, chosen when the library is loaded; -DPLAIN where the compiler cannot. For float alone:
   double is there for checks, and every version costs seconds of compiling */
#if defined(PLAIN)
#define VERSIONS
#else
#define VERSIONS __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#endif

#define PASTE2(a, b) a##_##b
#define PASTE(a, b) PASTE2(a, b)
#define NAME(a) PASTE(a, TYPE)
