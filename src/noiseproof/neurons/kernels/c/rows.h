/* out[m, n] += a[m, k] @ w[k, n] for up to ROWS rows a and out of row lengths lda and ldo; w in order.
   Columns beyond the last whole tile, and fewer rows than ROWS, go row by row. */
CLONES static void NAME(full)(const real *a, i64 lda, const real *w, i64 k, i64 n, i64 columns, real *out,
                             i64 ldo) {
    for (i64 column = 0; column < columns; column += WIDE) {
        real sum[ROWS][WIDE];
        for (int i = 0; i < ROWS; i++)
            for (int j = 0; j < WIDE; j++) sum[i][j] = out[i * ldo + column + j];
        for (i64 l = 0; l < k; l++) {
            const real *row = w + l * n + column;
            for (int i = 0; i < ROWS; i++) {
                real factor = a[i * lda + l];
                SIMD for (int j = 0; j < WIDE; j++) sum[i][j] += factor * row[j];
            }
        }
        for (int i = 0; i < ROWS; i++)
            for (int j = 0; j < WIDE; j++) out[i * ldo + column + j] = sum[i][j];
    }
}

CLONES static void NAME(single)(const real *a, const real *w, i64 k, i64 n, i64 from, real *out) {
    for (i64 l = 0; l < k; l++) {
        real factor = a[l];
        const real *row = w + l * n;
        if (factor != 0) {
            SIMD for (i64 j = from; j < n; j++) out[j] += factor * row[j];
        }
    }
}

void NAME(rows_times)(i64 m, const real *a, i64 lda, const real *w, i64 k, i64 n, real *out, i64 ldo) {
    const i64 whole = m == ROWS ? n - n % WIDE : 0;
    if (whole) NAME(full)(a, lda, w, k, n, whole, out, ldo);
    for (i64 i = 0; i < m && whole < n; i++) NAME(single)(a + i * lda, w, k, n, whole, out + i * ldo);
}
