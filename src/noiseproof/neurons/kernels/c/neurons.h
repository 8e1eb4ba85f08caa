/* The equation of noiseproof.neurons.equation for layers without recurrence, for one type `real`: included once for float, once
   for double. x is [steps, n]; neurons do not touch each other, so a block of them runs through all steps while its state stays
   in the first-level cache. Forward reads x and writes the spikes. Backward reads x again, recomputes the potentials in cache
   and writes the gradient: nothing but x is kept between the two. */

/* A parameter: neuron i at step t has data[t * step + (i / inner) % period]. `grad`, where wanted: for period 1 the sums of every
   block, [T or 1, blocks], else one number a neuron, [T or 1, n]. */
typedef struct {
    const real *data;
    i64 period, inner, step;
    real *grad;
} NAME(Constant);

typedef struct {
    i64 steps, n, x_step; /* x_step: n, or 0 where the input stays the same */
    const real *x, *v, *s, *b, *r; /* state: NULL at rest */
    NAME(Constant) leak, gain, theta, beta, rho; /* data NULL: gain 1, beta and rho 0 */
    i64 reset, general, refractory, through, surrogate; /* general: adaptive or refractory; through: gradient through the reset */
    double p0, p1; /* settings of the surrogate */
    real *spikes, *v_out, *b_out, *r_out;
    const real *gs, *gv, *gb; /* gradients of spikes and final state; the last two may be NULL */
    real *gx, *gv0, *gs0, *gb0;
} NAME(Layer);

static void NAME(load)(const NAME(Constant) *c, i64 t, i64 first, i64 m, real otherwise, real *out) {
    if (!c->data) {
        for (i64 i = 0; i < m; i++) out[i] = otherwise;
        return;
    }
    const real *p = c->data + t * c->step;
    i64 i = 0, place = (first / c->inner) % c->period, left = c->inner - first % c->inner;
    while (i < m) {
        if (c->inner == 1) { /* a run of different values */
            i64 run = c->period - place < m - i ? c->period - place : m - i;
            memcpy(out + i, p + place, run * sizeof(real));
            i += run;
            place = 0;
        } else { /* a run of one value */
            i64 run = left < m - i ? left : m - i;
            for (i64 k = 0; k < run; k++) out[i + k] = p[place];
            i += run;
            left = c->inner;
            if (++place == c->period) place = 0;
        }
    }
}

static void NAME(fetch)(const real *from, i64 first, i64 m, real *out) {
    if (from) memcpy(out, from + first, m * sizeof(real));
    else memset(out, 0, m * sizeof(real));
}

static void NAME(store)(real *to, i64 first, i64 m, const real *from) {
    if (to) memcpy(to + first, from, m * sizeof(real));
}

/* What a block works on: its state, its parameters, and what 1/threshold is. */
typedef struct {
    real v[BLOCK], s[BLOCK], b[BLOCK], r[BLOCK], B[BLOCK], leak[BLOCK], gain[BLOCK], theta[BLOCK], beta[BLOCK], rho[BLOCK];
} NAME(Block);

INLINE void NAME(begin)(const NAME(Layer) *l, NAME(Block) *k, i64 first, i64 m, const int general) {
    NAME(fetch)(l->v, first, m, k->v);
    NAME(fetch)(l->s, first, m, k->s);
    NAME(load)(&l->theta, 0, first, m, 1, k->theta);
    NAME(load)(&l->leak, 0, first, m, 1, k->leak);
    NAME(load)(&l->gain, 0, first, m, 1, k->gain);
    if (!general) return;
    NAME(fetch)(l->b, first, m, k->b);
    NAME(fetch)(l->r, first, m, k->r);
    NAME(load)(&l->beta, 0, first, m, 0, k->beta);
    NAME(load)(&l->rho, 0, first, m, 0, k->rho);
    SIMD for (i64 i = 0; i < m; i++) k->B[i] = k->theta[i] + k->beta[i] * k->b[i];
}

/* Rows of one step lie far apart in memory: ask for the next one while this one is worked on. */
INLINE void NAME(prefetch)(const real *next, i64 m) {
    for (i64 i = 0; i < m; i += (i64)(64 / sizeof(real))) __builtin_prefetch(next + i);
}

INLINE NAME(Numbers) NAME(numbers)(const NAME(Layer) *l, NAME(Block) *k, i64 t, i64 first, i64 m) {
    if (l->leak.step) NAME(load)(&l->leak, t, first, m, 1, k->leak);
    if (l->gain.step) NAME(load)(&l->gain, t, first, m, 1, k->gain);
    return (NAME(Numbers)){k->leak, k->gain, k->theta, k->beta, k->rho};
}

INLINE void NAME(forward_as)(const NAME(Layer) *l, i64 first, i64 m, const int reset, const int general) {
    NAME(Block) k;
    real aside[BLOCK];
    const int large = l->steps * l->n * (i64)sizeof(real) > LARGE;
    NAME(begin)(l, &k, first, m, general);
    const real *s = k.s;
    for (i64 t = 0; t < l->steps; t++) {
        real *spikes = large ? aside : l->spikes + t * l->n + first;
        if (t + 1 < l->steps) NAME(prefetch)(l->x + (t + 1) * l->x_step + first, m);
        NAME(advance)(m, reset, general, 0, (real)l->refractory, l->x + t * l->x_step + first, NAME(numbers)(l, &k, t, first, m),
                      (NAME(State)){k.v, k.b, k.r, k.B, s}, spikes, NULL, NULL);
        if (large) stream(l->spikes + t * l->n + first, aside, m * sizeof(real));
        s = spikes;
    }
    if (large) end_of_stream();
    NAME(store)(l->v_out, first, m, k.v);
    if (general) NAME(store)(l->b_out, first, m, k.b);
    if (general) NAME(store)(l->r_out, first, m, k.r);
}

CLONES static void NAME(forward_block)(const NAME(Layer) *l, i64 first, i64 m) {
    switch (l->reset * 2 + l->general) {
        case HARD * 2: NAME(forward_as)(l, first, m, HARD, 0); break;
        case HARD * 2 + 1: NAME(forward_as)(l, first, m, HARD, 1); break;
        case SOFT * 2: NAME(forward_as)(l, first, m, SOFT, 0); break;
        case SOFT * 2 + 1: NAME(forward_as)(l, first, m, SOFT, 1); break;
        case NEXT * 2: NAME(forward_as)(l, first, m, NEXT, 0); break;
        default: NAME(forward_as)(l, first, m, NEXT, 1);
    }
}

int NAME(neurons_forward)(const NAME(Layer) *l) {
    i64 blocks = (l->n + BLOCK - 1) / BLOCK;
#pragma omp parallel for schedule(static) if (l->n * l->steps > SMALL)
    for (i64 k = 0; k < blocks; k++) NAME(forward_block)(l, k * BLOCK, l->n - k * BLOCK < BLOCK ? l->n - k * BLOCK : BLOCK);
    return 0;
}

/* The gradient of a parameter: add up `part` in time, or write it at once where the parameter changes in time. */
static void NAME(collect)(const NAME(Layer) *l, const NAME(Constant) *c, i64 t, i64 first, i64 m, const real *total) {
    if (c->period == 1) {
        double sum = 0;
        for (i64 i = 0; i < m; i++) sum += total[i];
        c->grad[t * ((l->n + BLOCK - 1) / BLOCK) + first / BLOCK] = (real)sum;
    } else {
        memcpy(c->grad + t * l->n + first, total, m * sizeof(real));
    }
}

/* Potentials, and for general neurons thresholds, adaptation and dead steps, of all steps of a block. */
typedef struct {
    real *h, *B, *b, *alive;
} NAME(Tape);

INLINE void NAME(backward_as)(const NAME(Layer) *l, i64 first, i64 m, NAME(Tape) tape, const int reset, const int general, const int sums) {
    NAME(Block) k;
    real gv[BLOCK], gs[BLOCK] = {0}, gb[BLOCK], gB[BLOCK] = {0}, gx[BLOCK] = {0}, slopes[BLOCK], inverse[BLOCK], to_h[BLOCK];
    real old_v[BLOCK], old_s[BLOCK], first_b[BLOCK], first_B[BLOCK], spikes[BLOCK];
    real leak[BLOCK] = {0}, gain[BLOCK] = {0}, theta[BLOCK] = {0}, beta[BLOCK] = {0}, rho[BLOCK] = {0};
    const NAME(Carried) g = {gv, gs, gb, gB, theta, beta, rho};
    const i64 n = l->n;
    const int uses_s = general || reset == NEXT, large = l->steps * n * (i64)sizeof(real) > LARGE;
    NAME(begin)(l, &k, first, m, general);
    NAME(fetch)(l->b, first, m, first_b);
    memcpy(first_B, general ? k.B : k.theta, m * sizeof(real));
    const real *s = k.s;
    for (i64 t = 0; t < l->steps; t++) {
        const i64 now = t * BLOCK;
        NAME(prefetch)(t + 1 < l->steps ? l->x + (t + 1) * l->x_step + first : l->gs + t * n + first, m);
        NAME(advance)(m, reset, general, 1, (real)l->refractory, l->x + t * l->x_step + first, NAME(numbers)(l, &k, t, first, m),
                      (NAME(State)){k.v, k.b, k.r, k.B, s}, uses_s ? spikes : NULL, tape.h + now, general ? tape.alive + now : NULL);
        s = spikes;
        if (general) {
            memcpy(tape.B + now, k.B, m * sizeof(real));
            memcpy(tape.b + now, k.b, m * sizeof(real));
        }
    }
    NAME(fetch)(l->gv, first, m, gv);
    NAME(fetch)(l->gb, first, m, gb);
    if (!general) {
        SIMD for (i64 i = 0; i < m; i++) inverse[i] = 1 / k.theta[i];
    }

    for (i64 t = l->steps - 1; t >= 0; t--) {
        const NAME(Numbers) p = NAME(numbers)(l, &k, t, first, m);
        const i64 now = t * BLOCK, before = now - BLOCK;
        const real *x = l->x + t * l->x_step + first;
        if (t) NAME(prefetch)(l->gs + (t - 1) * n + first, m);
        NAME(Looked) at = {tape.h + now, k.theta, NULL, NULL, old_s, first_b, first_B};
        if (general) at.B = tape.B + now, at.b = tape.b + now, at.alive = tape.alive + now;
        if (t && general) at.old_b = tape.b + before, at.old_B = tape.B + before;
        if (!t) {
            NAME(fetch)(l->v, first, m, old_v);
            NAME(fetch)(l->s, first, m, old_s);
        } else if (uses_s || (sums && l->leak.grad)) {
            NAME(left)(m, reset, general, tape.h + before, at.old_B, general ? tape.alive + before : NULL, old_s, old_v);
        }
        if (general) {
            SIMD for (i64 i = 0; i < m; i++) inverse[i] = 1 / at.B[i];
        }
        NAME(slope)(m, l->surrogate, (real)l->p0, (real)l->p1, at.h, at.B, inverse, slopes);
        NAME(retreat)(m, reset, general, sums, (real)l->through, l->gs + t * n + first, slopes, inverse, p, at, g, to_h);
        if (sums && l->leak.grad) {
            SIMD for (i64 i = 0; i < m; i++) leak[i] += to_h[i] * old_v[i];
            if (l->leak.step) NAME(collect)(l, &l->leak, t, first, m, leak), memset(leak, 0, sizeof leak);
        }
        if (sums && l->gain.grad) {
            SIMD for (i64 i = 0; i < m; i++) gain[i] += to_h[i] * x[i];
            if (l->gain.step) NAME(collect)(l, &l->gain, t, first, m, gain), memset(gain, 0, sizeof gain);
        }
        if (l->x_step) {
            real *out = large ? gx : l->gx + t * n + first;
            SIMD for (i64 i = 0; i < m; i++) out[i] = k.gain[i] * to_h[i];
            if (large) stream(l->gx + t * n + first, gx, m * sizeof(real));
        } else {
            SIMD for (i64 i = 0; i < m; i++) gx[i] += k.gain[i] * to_h[i];
        }
    }
    if (large) end_of_stream();
    NAME(finish)(m, reset, general, sums, k.beta, first_b, g);
    if (!l->x_step) NAME(store)(l->gx, first, m, gx);
    NAME(store)(l->gv0, first, m, gv);
    NAME(store)(l->gs0, first, m, gs);
    NAME(store)(l->gb0, first, m, gb);
    if (!sums) return;
    if (l->leak.grad && !l->leak.step) NAME(collect)(l, &l->leak, 0, first, m, leak);
    if (l->gain.grad && !l->gain.step) NAME(collect)(l, &l->gain, 0, first, m, gain);
    if (l->theta.grad) NAME(collect)(l, &l->theta, 0, first, m, theta);
    if (l->beta.grad) NAME(collect)(l, &l->beta, 0, first, m, beta);
    if (l->rho.grad) NAME(collect)(l, &l->rho, 0, first, m, rho);
}

CLONES static void NAME(backward_block)(const NAME(Layer) *l, i64 first, i64 m, real *memory) {
    NAME(Tape) tape = {memory, NULL, NULL, NULL};
    const i64 size = l->steps * BLOCK;
    if (l->general) tape = (NAME(Tape)){memory, memory + size, memory + 2 * size, memory + 3 * size};
    const int sums = l->leak.grad || l->gain.grad || l->theta.grad || l->beta.grad || l->rho.grad;
    switch (l->reset * 4 + l->general * 2 + sums) {
        case HARD * 4: NAME(backward_as)(l, first, m, tape, HARD, 0, 0); break;
        case HARD * 4 + 1: NAME(backward_as)(l, first, m, tape, HARD, 0, 1); break;
        case HARD * 4 + 2: case HARD * 4 + 3: NAME(backward_as)(l, first, m, tape, HARD, 1, 1); break;
        case SOFT * 4: NAME(backward_as)(l, first, m, tape, SOFT, 0, 0); break;
        case SOFT * 4 + 1: NAME(backward_as)(l, first, m, tape, SOFT, 0, 1); break;
        case SOFT * 4 + 2: case SOFT * 4 + 3: NAME(backward_as)(l, first, m, tape, SOFT, 1, 1); break;
        case NEXT * 4: NAME(backward_as)(l, first, m, tape, NEXT, 0, 0); break;
        case NEXT * 4 + 1: NAME(backward_as)(l, first, m, tape, NEXT, 0, 1); break;
        default: NAME(backward_as)(l, first, m, tape, NEXT, 1, 1);
    }
}

/* Returns 1 where the memory for the potentials of a block could not be had, else 0. */
int NAME(neurons_backward)(const NAME(Layer) *l) {
    i64 blocks = (l->n + BLOCK - 1) / BLOCK;
    int failed = 0;
#pragma omp parallel if (l->n * l->steps > SMALL) reduction(| : failed)
    {
        real *memory = malloc((l->general ? 4 : 1) * l->steps * BLOCK * sizeof(real));
        failed = memory == NULL;
#pragma omp for schedule(static)
        for (i64 k = 0; k < blocks; k++)
            if (memory) NAME(backward_block)(l, k * BLOCK, l->n - k * BLOCK < BLOCK ? l->n - k * BLOCK : BLOCK, memory);
        free(memory);
    }
    return failed;
}
