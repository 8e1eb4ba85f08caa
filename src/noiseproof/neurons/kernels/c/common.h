#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

typedef int64_t i64;
typedef int32_t i32;

enum { HARD, SOFT, NEXT };
#define SMALL 32768 /* below so many numbers a second thread costs more than it brings */
#define LARGE (24 << 20) /* bytes from which on results are written past the caches, which they would only empty */
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

/* Copy a block of memory past the caches, where the processor can: the line that is written is not read first. */
static inline void stream(void *to, const void *from, i64 bytes) {
#if defined(__SSE2__)
    if (((uintptr_t)to | (uintptr_t)bytes) % 16 == 0) {
        for (i64 i = 0; i < bytes; i += 16) {
            __m128i piece;
            memcpy(&piece, (const char *)from + i, 16);
            _mm_stream_si128((__m128i *)((char *)to + i), piece);
        }
        return;
    }
#endif
    memcpy(to, from, bytes);
}

/* Streamed writes are ordered before all that follows. */
static inline void end_of_stream(void) {
#if defined(__SSE2__)
    _mm_sfence();
#endif
}
