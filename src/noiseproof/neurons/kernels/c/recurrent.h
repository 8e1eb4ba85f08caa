/* The equation with a recurrent matrix, x [steps, rows, n], for one type `real`. Rows of the batch do not touch each other, so a
   thread takes a few rows through all steps: no barrier between steps. Only spikes that are there are visited; where there are many,
   a matrix product of the rows is cheaper. Backward recomputes the potentials of its rows, then goes back through the steps. */

/* A parameter, n numbers: for row and step at data + row * row_step + t * time_step. `grad`: [rows, n], or [T, rows, n] with a
   time_step; NULL where it is not wanted. */
typedef struct {
    const real *data;
    i64 row_step, time_step;
    real *grad;
} NAME(Unit);

typedef struct {
    i64 steps, rows, n, x_step; /* x_step: rows * n, or 0 where the input stays the same */
    const real *x, *v, *s, *b, *r; /* state: NULL at rest */
    const real *matrix, *transposed; /* W: to unit from unit; and from unit to unit */
    NAME(Unit) leak, gain, theta, beta, rho;
    i64 reset, general, refractory, through, surrogate;
    double p0, p1, dense; /* dense: share of active units from which on a matrix product is taken */
    real *spikes, *v_out, *b_out, *r_out;
    const real *gs, *gv, *gb;
    real *gx, *gv0, *gs0, *gb0;
} NAME(Recurrent);

void NAME(rows_times)(i64 m, const real *a, i64 lda, const real *w, i64 k, i64 n, real *out, i64 ldo);

/* The state of ROWS rows, and the current of one step. */
typedef struct {
    real *v, *s, *b, *r, *B, *current, *alive, *h;
} NAME(Rows);

static const real *NAME(unit)(const NAME(Unit) *u, i64 t, i64 row) { return u->data + row * u->row_step + t * u->time_step; }

static NAME(Numbers) NAME(numbers)(const NAME(Recurrent) *l, i64 t, i64 row) {
    return (NAME(Numbers)){NAME(unit)(&l->leak, t, row), NAME(unit)(&l->gain, t, row), NAME(unit)(&l->theta, 0, row),
                           NAME(unit)(&l->beta, 0, row), NAME(unit)(&l->rho, 0, row)};
}

static void NAME(fetch_rows)(const real *from, i64 first, i64 count, real *out) {
    if (from) memcpy(out, from + first, count * sizeof(real));
    else memset(out, 0, count * sizeof(real));
}

/* current[m, n] += s[m, n] @ transposed */
CLONES static void NAME(recur)(const NAME(Recurrent) *l, i64 m, const real *s, real *current, i32 *active) {
    const i64 n = l->n;
    i64 counts[ROWS], total = 0;
    for (i64 i = 0; i < m; i++) {
        i64 count = 0;
        for (i64 j = 0; j < n; j++) {
            active[i * n + count] = (i32)j;
            count += s[i * n + j] != 0;
        }
        counts[i] = count, total += count;
    }
    if ((double)total > l->dense * (double)(m * n)) {
        NAME(rows_times)(m, s, n, l->transposed, n, n, current, n);
        return;
    }
    for (i64 i = 0; i < m; i++) {
        real *out = current + i * n;
        const i32 *which = active + i * n;
        i64 k = 0;
        for (; k + 3 < counts[i]; k += 4) {
            const real *a = l->transposed + which[k] * n, *b = l->transposed + which[k + 1] * n;
            const real *c = l->transposed + which[k + 2] * n, *d = l->transposed + which[k + 3] * n;
            SIMD for (i64 j = 0; j < n; j++) out[j] += (a[j] + b[j]) + (c[j] + d[j]);
        }
        for (; k < counts[i]; k++) {
            const real *a = l->transposed + which[k] * n;
            SIMD for (i64 j = 0; j < n; j++) out[j] += a[j];
        }
    }
}

/* Where backward looks things up: [steps, ROWS, n] each. */
typedef struct {
    real *h, *B, *b, *alive, *current;
} NAME(History);

INLINE void NAME(rows_forward_as)(const NAME(Recurrent) *l, i64 first, i64 m, NAME(Rows) k, i32 *active, const NAME(History) *history,
                                  const int reset, const int general) {
    const i64 n = l->n, count = m * n, at = first * n, size = ROWS * n;
    NAME(fetch_rows)(l->v, at, count, k.v);
    NAME(fetch_rows)(l->s, at, count, k.s);
    NAME(fetch_rows)(l->b, at, count, k.b);
    NAME(fetch_rows)(l->r, at, count, k.r);
    for (i64 i = 0; i < m; i++) {
        const real *theta = NAME(unit)(&l->theta, 0, first + i), *beta = NAME(unit)(&l->beta, 0, first + i);
        for (i64 j = 0; j < n; j++) k.B[i * n + j] = general ? theta[j] + beta[j] * k.b[i * n + j] : theta[j];
    }
    for (i64 t = 0; t < l->steps; t++) {
        memcpy(k.current, l->x + t * l->x_step + at, count * sizeof(real));
        if (t || l->s) NAME(recur)(l, m, k.s, k.current, active);
        for (i64 i = 0; i < m; i++) {
            const i64 o = i * n, row = first + i;
            NAME(advance)(n, reset, general, 1, (real)l->refractory, k.current + o, NAME(numbers)(l, t, row),
                          (NAME(State)){k.v + o, k.b + o, k.r + o, k.B + o, k.s + o}, k.s + o, k.h + o, k.alive + o);
        }
        memcpy(l->spikes + t * l->rows * n + at, k.s, count * sizeof(real));
        if (!history) continue;
        memcpy(history->h + t * size, k.h, count * sizeof(real));
        if (history->current) memcpy(history->current + t * size, k.current, count * sizeof(real));
        if (!general) continue;
        memcpy(history->B + t * size, k.B, count * sizeof(real));
        memcpy(history->b + t * size, k.b, count * sizeof(real));
        memcpy(history->alive + t * size, k.alive, count * sizeof(real));
    }
}

INLINE void NAME(rows_backward_as)(const NAME(Recurrent) *l, i64 first, i64 m, NAME(Rows) k, i32 *active, NAME(History) history,
                                   real *work, const int reset, const int general) {
    const i64 n = l->n, count = m * n, at = first * n, size = ROWS * n;
    NAME(rows_forward_as)(l, first, m, k, active, &history, reset, general);
    real *parts[14];
    for (int i = 0; i < 14; i++) parts[i] = work + i * size;
    real *gv = parts[0], *gs = parts[1], *gb = parts[2], *gB = parts[3], *slopes = parts[4], *inverse = slopes + n, *to_h = parts[5], *old_v = parts[6];
    real *first_b = parts[7], *first_B = parts[8], *leak = parts[9], *gain = parts[10], *old_s = parts[11], *down = parts[12];
    real *sums = parts[13]; /* theta, beta, rho: 3 * size */
    memset(work, 0, 16 * size * sizeof(real));
    NAME(fetch_rows)(l->gv, at, count, gv);
    NAME(fetch_rows)(l->gb, at, count, gb);
    NAME(fetch_rows)(l->b, at, count, first_b);
    for (i64 i = 0; i < m; i++) {
        const real *theta = NAME(unit)(&l->theta, 0, first + i), *beta = NAME(unit)(&l->beta, 0, first + i);
        for (i64 j = 0; j < n; j++) first_B[i * n + j] = general ? theta[j] + beta[j] * first_b[i * n + j] : theta[j];
    }
    for (i64 t = l->steps - 1; t >= 0; t--) {
        for (i64 i = 0; i < m; i++) {
            const i64 o = i * n, row = first + i, now = t * size + o, before = now - size;
            const real *theta = NAME(unit)(&l->theta, 0, row);
            const NAME(Carried) g = {gv + o, gs + o, gb + o, gB + o, sums + o, sums + size + o, sums + 2 * size + o};
            NAME(Looked) look = {history.h + now, theta, NULL, NULL, old_s + o, first_b + o, first_B + o};
            if (general) look.B = history.B + now, look.b = history.b + now, look.alive = history.alive + now;
            if (t && general) look.old_b = history.b + before, look.old_B = history.B + before;
            if (t) {
                NAME(left)(n, reset, general, history.h + before, look.old_B, general ? history.alive + before : NULL, old_s + o, old_v + o);
            } else {
                NAME(fetch_rows)(l->v, at + o, n, old_v + o);
                NAME(fetch_rows)(l->s, at + o, n, old_s + o);
            }
            SIMD for (i64 j = 0; j < n; j++) inverse[j] = 1 / look.B[j];
            NAME(slope)(n, l->surrogate, (real)l->p0, (real)l->p1, look.h, look.B, inverse, slopes);
            NAME(retreat)(n, reset, general, 1, (real)l->through, l->gs + t * l->rows * n + at + o, slopes, inverse,
                          NAME(numbers)(l, t, row), look, g, to_h + o);
            if (!general && reset != NEXT) memset(gs + o, 0, n * sizeof(real)); /* it is added to below */
            const real *factor = NAME(unit)(&l->gain, t, row);
            SIMD for (i64 j = 0; j < n; j++) down[o + j] = factor[j] * to_h[o + j];
            if (l->leak.grad) {
                real *out = l->leak.time_step ? l->leak.grad + (t * l->rows + row) * n : leak + o;
                SIMD for (i64 j = 0; j < n; j++) out[j] = (l->leak.time_step ? 0 : out[j]) + to_h[o + j] * old_v[o + j];
            }
            if (l->gain.grad) {
                const real *current = history.current + now;
                real *out = l->gain.time_step ? l->gain.grad + (t * l->rows + row) * n : gain + o;
                SIMD for (i64 j = 0; j < n; j++) out[j] = (l->gain.time_step ? 0 : out[j]) + to_h[o + j] * current[j];
            }
            real *out = l->gx + t * l->rows * n + at + o;
            memcpy(out, down + o, n * sizeof(real));
        }
        if (t || l->gs0) NAME(rows_times)(m, down, n, l->matrix, n, n, gs, n);
    }
    for (i64 i = 0; i < m; i++) {
        const i64 o = i * n, row = first + i;
        const NAME(Carried) g = {gv + o, gs + o, gb + o, gB + o, sums + o, sums + size + o, sums + 2 * size + o};
        NAME(finish)(n, reset, general, 1, NAME(unit)(&l->beta, 0, row), first_b + o, g);
    }
    if (l->gv0) memcpy(l->gv0 + at, gv, count * sizeof(real));
    if (l->gs0) memcpy(l->gs0 + at, gs, count * sizeof(real));
    if (l->gb0) memcpy(l->gb0 + at, gb, count * sizeof(real));
    if (l->leak.grad && !l->leak.time_step) memcpy(l->leak.grad + at, leak, count * sizeof(real));
    if (l->gain.grad && !l->gain.time_step) memcpy(l->gain.grad + at, gain, count * sizeof(real));
    if (l->theta.grad) memcpy(l->theta.grad + at, sums, count * sizeof(real));
    if (l->beta.grad) memcpy(l->beta.grad + at, sums + size, count * sizeof(real));
    if (l->rho.grad) memcpy(l->rho.grad + at, sums + 2 * size, count * sizeof(real));
}

#define EACH_FORM(call)                                                                                                            \
    switch (l->reset * 2 + l->general) {                                                                                           \
        case HARD * 2: call(HARD, 0); break;                                                                                       \
        case HARD * 2 + 1: call(HARD, 1); break;                                                                                   \
        case SOFT * 2: call(SOFT, 0); break;                                                                                       \
        case SOFT * 2 + 1: call(SOFT, 1); break;                                                                                   \
        case NEXT * 2: call(NEXT, 0); break;                                                                                       \
        default: call(NEXT, 1);                                                                                                    \
    }

CLONES static void NAME(rows_forward)(const NAME(Recurrent) *l, i64 first, i64 m, NAME(Rows) k, i32 *active) {
#define CALL(reset, general) NAME(rows_forward_as)(l, first, m, k, active, NULL, reset, general)
    EACH_FORM(CALL)
#undef CALL
    const i64 at = first * l->n, size = m * l->n * sizeof(real);
    memcpy(l->v_out + at, k.v, size);
    if (l->b_out) memcpy(l->b_out + at, k.b, size);
    if (l->r_out) memcpy(l->r_out + at, k.r, size);
}

CLONES static void NAME(rows_backward)(const NAME(Recurrent) *l, i64 first, i64 m, NAME(Rows) k, i32 *active, NAME(History) history,
                                       real *work) {
#define CALL(reset, general) NAME(rows_backward_as)(l, first, m, k, active, history, work, reset, general)
    EACH_FORM(CALL)
#undef CALL
}

/* Forward, or with `back` backward, which leaves the spikes too. Returns 1 where memory could not be had, else 0. */
static int NAME(recurrent_run)(const NAME(Recurrent) *l, const int back) {
    const i64 blocks = (l->rows + ROWS - 1) / ROWS, size = ROWS * l->n, tape = l->steps * size;
    const i64 tapes = !back ? 0 : (l->general ? 4 : 1) + (l->gain.grad != NULL);
    int failed = 0;
#pragma omp parallel if (l->rows * l->n * l->steps > SMALL) reduction(| : failed)
    {
        real *memory = malloc((24 * size + tapes * tape) * sizeof(real));
        i32 *active = malloc((size + 1) * sizeof(i32));
        failed = memory == NULL || active == NULL;
#pragma omp for schedule(dynamic)
        for (i64 block = 0; block < blocks; block++) {
            if (!memory || !active) continue;
            const i64 first = block * ROWS, m = l->rows - first < ROWS ? l->rows - first : ROWS;
            real *p = memory + 16 * size, *q = memory + 24 * size;
            NAME(Rows) k = {p, p + size, p + 2 * size, p + 3 * size, p + 4 * size, p + 5 * size, p + 6 * size, p + 7 * size};
            NAME(History) h = {q, q + tape, q + 2 * tape, q + 3 * tape, l->gain.grad ? q + (tapes - 1) * tape : NULL};
            if (back) NAME(rows_backward)(l, first, m, k, active, h, memory);
            else NAME(rows_forward)(l, first, m, k, active);
        }
        free(memory);
        free(active);
    }
    return failed;
}

int NAME(recurrent_forward)(const NAME(Recurrent) *l) { return NAME(recurrent_run)(l, 0); }
int NAME(recurrent_backward)(const NAME(Recurrent) *l) { return NAME(recurrent_run)(l, 1); }

CLONES static void NAME(weights_of)(i64 count, i64 n, const real *spikes, const real *currents, i64 from, i64 to, real *out) {
    for (i64 k = 0; k < count; k++)
        for (i64 j = from; j < to; j++)
            if (spikes[k * n + j] != 0) {
                real *row = out + j * n;
                const real *current = currents + k * n;
                SIMD for (i64 i = 0; i < n; i++) row[i] += current[i];
            }
}

/* out[j, i] += the sum over k of spikes[k, j] * currents[k, i]: the gradient of the matrix, from unit to unit, where spikes are few.
   A thread has its own units j, so that the order of the additions does not depend on the number of threads. */
void NAME(recurrent_weights)(i64 count, i64 n, const real *spikes, const real *currents, real *out) {
    const i64 blocks = (n + 31) / 32;
#pragma omp parallel for schedule(dynamic) if (count * n > SMALL)
    for (i64 b = 0; b < blocks; b++) NAME(weights_of)(count, n, spikes, currents, b * 32, b * 32 + 32 < n ? b * 32 + 32 : n, out);
}
