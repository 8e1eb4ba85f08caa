/* One step of the equation of noiseproof.neurons.equation, forward and backward, for m neurons, for one type `real`. */

/* The state of m neurons. s is where the spikes of the step before lie. */
typedef struct {
    real *v, *b, *r, *B;
    const real *s;
} NAME(State);

/* The parameters of m neurons at a step. */
typedef struct {
    const real *leak, *gain, *theta, *beta, *rho;
} NAME(Numbers);

/* One step forward. Writes the spikes where `spikes` is not NULL and, with `tape`, the potential before the reset to h; for general
   neurons (adaptive or refractory) the threshold to B and, with `tape`, 1 to alive, or 0 in dead steps. */
INLINE void NAME(advance)(i64 m, const int reset, const int general, const int tape, real refractory, const real *x, NAME(Numbers) p,
                          NAME(State) k, real *spikes, real *h, real *alive) {
    const int uses_s = general || reset == NEXT;
    SIMD for (i64 i = 0; i < m; i++) {
        real u = p.leak[i] * k.v[i] + p.gain[i] * x[i];
        real s = uses_s ? k.s[i] : (real)0, limit = p.theta[i], fires;
        if (reset == NEXT) u = u - s * (general ? k.B[i] : limit);
        if (general) {
            real b = p.rho[i] * k.b[i] + (1 - p.rho[i]) * s, lives = k.r[i] <= 0 ? (real)1 : (real)0;
            limit = limit + p.beta[i] * b;
            fires = u > limit ? lives : (real)0;
            k.b[i] = b;
            k.B[i] = limit;
            k.r[i] = fires > 0 ? refractory : k.r[i] - 1 > 0 ? k.r[i] - 1 : (real)0;
            if (tape) alive[i] = lives;
        } else {
            fires = u > limit ? (real)1 : (real)0;
        }
        if (spikes) spikes[i] = fires;
        if (tape) h[i] = u;
        k.v[i] = reset == HARD ? (fires > 0 ? (real)0 : u) : reset == SOFT ? u - (fires > 0 ? limit : (real)0) : u;
    }
}

/* e^-a for a >= 0, to rounding: the library's is not vectorised */
INLINE real NAME(exp_minus)(real a) {
#ifdef REAL_IS_FLOAT
    real counts = (real)(a < 87), limited = a * counts, scaled = limited * (real)1.44269504088896341;
    i32 whole = (i32)(scaled + (real)0.5);
    real f = ((real)whole * (real)0.693359375 - limited) - (real)whole * (real)2.12194440e-4; /* ln 2 in two parts */
    real e = 1 + f * (1 + f * ((real)0.5 + f * ((real)0.16666666 + f * ((real)0.041666640 + f * ((real)0.0083333310 +
             f * (real)0.0013888932)))));
    union { i32 i; float x; } power = {.i = (127 - whole) << 23};
    return counts * e * power.x; /* below the smallest number: 0 */
#else
    return exp(-a);
#endif
}

/* w = sigma'((h - B) * inverse), inverse = 1/B */
INLINE void NAME(slope)(i64 m, i64 surrogate, real p0, real p1, const real *h, const real *B, const real *inverse, real *w) {
    const real half = (real)0.5 * p0, sharp = (real)1.5707963267948966 * p0, wide = 1 / p1, high = 1 / p0;
    switch (surrogate) {
        case 0: /* triangle */
            SIMD for (i64 i = 0; i < m; i++) {
                real d = 1 - FABS((h[i] - B[i]) * inverse[i]) * wide;
                w[i] = p0 * (d > 0 ? d : (real)0);
            }
            break;
        case 1: /* atan */
            SIMD for (i64 i = 0; i < m; i++) {
                real z = sharp * ((h[i] - B[i]) * inverse[i]);
                w[i] = half / (1 + z * z);
            }
            break;
        case 2: /* sigmoid */
            SIMD for (i64 i = 0; i < m; i++) {
                real e = NAME(exp_minus)(p0 * FABS((h[i] - B[i]) * inverse[i])), d = 1 + e;
                w[i] = p0 * e / (d * d);
            }
            break;
        case 3: /* fast sigmoid */
            SIMD for (i64 i = 0; i < m; i++) {
                real d = 1 + p0 * FABS((h[i] - B[i]) * inverse[i]);
                w[i] = 1 / (d * d);
            }
            break;
        default: /* rectangle */
            SIMD for (i64 i = 0; i < m; i++) w[i] = FABS((h[i] - B[i]) / B[i]) < half ? high : (real)0;
    }
}

/* What backward carries from step to step: gradients of potential, spike and adaptation of the step before, of its threshold where
   the reset comes at the next step, and the sums of the gradients of the parameters. */
typedef struct {
    real *v, *s, *b, *B, *theta, *beta, *rho;
} NAME(Carried);

/* What backward looks up of a step and of the one before it. */
typedef struct {
    const real *h, *B, *alive, *b, *old_s, *old_b, *old_B;
} NAME(Looked);

/* One step of backward. to_s: gradient of its spikes; slopes: sigma' of this step; to_h: what comes out, the gradient of its
   potential. The gradients of threshold and adaptation are summed up only with `sums`. */
INLINE void NAME(retreat)(i64 m, const int reset, const int general, const int sums, real through, const real *to_s, const real *slopes,
                          const real *inverse, NAME(Numbers) p, NAME(Looked) at, NAME(Carried) g, real *to_h) {
    SIMD for (i64 i = 0; i < m; i++) {
        real fires = at.h[i] > at.B[i] ? (general ? at.alive[i] : (real)1) : (real)0;
        real e = to_s[i] + g.s[i], down = g.v[i], to_B = reset == NEXT ? g.B[i] : (real)0;
        if (reset == HARD) {
            e -= through * (g.v[i] * at.h[i]);
            down = g.v[i] * (1 - fires);
        }
        if (reset == SOFT) {
            e -= through * (g.v[i] * at.B[i]);
            to_B -= g.v[i] * fires;
        }
        real steep = e * slopes[i] * inverse[i];
        if (general) steep *= at.alive[i];
        down += steep;
        if (general || sums) to_B -= steep * (at.h[i] * inverse[i]);
        if (sums) g.theta[i] += to_B;
        real before = 0;
        if (general) { /* b = rho b + (1 - rho) s */
            real to_b = g.b[i] + p.beta[i] * to_B;
            if (sums) {
                g.beta[i] += to_B * at.b[i];
                g.rho[i] += to_b * (at.old_b[i] - at.old_s[i]);
            }
            before = (1 - p.rho[i]) * to_b;
            g.b[i] = p.rho[i] * to_b;
        }
        if (reset == NEXT) { /* h has - s B of the step before */
            before -= through * (down * at.old_B[i]);
            g.B[i] = -down * at.old_s[i];
        }
        if (general || reset == NEXT) g.s[i] = before;
        g.v[i] = p.leak[i] * down;
        to_h[i] = down;
    }
}

/* The end of backward: the threshold that belongs to the initial state. */
INLINE void NAME(finish)(i64 m, const int reset, const int general, const int sums, const real *beta, const real *first_b,
                         NAME(Carried) g) {
    if (reset != NEXT) return;
    SIMD for (i64 i = 0; i < m; i++) {
        if (sums) g.theta[i] += g.B[i];
        if (sums && general) g.beta[i] += g.B[i] * first_b[i];
        if (general) g.b[i] += beta[i] * g.B[i];
    }
}

/* The state that a step leaves: spike, and potential after the reset. */
INLINE void NAME(left)(i64 m, const int reset, const int general, const real *h, const real *B, const real *alive, real *s, real *v) {
    SIMD for (i64 i = 0; i < m; i++) {
        real fired = h[i] > B[i] ? (general ? alive[i] : (real)1) : (real)0;
        s[i] = fired;
        v[i] = reset == HARD ? (fired > 0 ? (real)0 : h[i]) : reset == SOFT ? h[i] - (fired > 0 ? B[i] : (real)0) : h[i];
    }
}
