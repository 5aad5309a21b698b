/* A mixture of K Gaussians in two dimensions at n points, each with its own sigma squared. A template: kernels.c includes
   it once for each precision, with REAL the type, EPSILON its rounding, SQRT and EXP its functions and MIXTURE the name.

   planes: 11 of K numbers: weight; mean x, y; rounding error of the means x, y; axes [e, i] 00, 01, 10, 11;
           variances 0, 1.
   buffer: 4 K numbers.
   log_density (n), score (n, 2), hessian (n, 2, 2): each may be null. Returns 0.

   Component k counts w / sqrt(v0 v1) exp(-(distance - nearest) / 2). The caller guarantees that the factors before the
   exponential are close enough that an underflow of the exponential is not compensated by them. */
int MIXTURE(long n, long count, const REAL *x, const REAL *noise, const REAL *planes, REAL *buffer, REAL *log_density,
            REAL *score, REAL *hessian) {
    const REAL *w = planes, *mx = w + count, *my = mx + count, *lx = my + count, *ly = lx + count;
    const REAL *a00 = ly + count, *a01 = a00 + count, *a10 = a01 + count, *a11 = a10 + count;
    const REAL *v0 = a11 + count, *v1 = v0 + count;
    REAL *restrict distance = buffer, *restrict share = buffer + count;
    REAL *restrict gx = share + count, *restrict gy = gx + count;
    for (long i = 0; i < n; i++) {
        REAL px = x[2 * i], py = x[2 * i + 1], s = noise[i], nearest = INFINITY;
#pragma omp simd reduction(min : nearest)
        for (long k = 0; k < count; k++) {
            REAL ox = (px - mx[k]) - lx[k], oy = (py - my[k]) - ly[k];
            REAL z0 = ox * a00[k] + oy * a01[k], z1 = ox * a10[k] + oy * a11[k];
            REAL p0 = 1 / (v0[k] + s), p1 = 1 / (v1[k] + s);
            REAL y0 = z0 * p0, y1 = z1 * p1;
            REAL far = z0 * y0 + z1 * y1;
            distance[k] = far;
            share[k] = w[k] * SQRT(p0) * SQRT(p1);
            gx[k] = y0 * a00[k] + y1 * a10[k];
            gy[k] = y0 * a01[k] + y1 * a11[k];
            nearest = far < nearest ? far : nearest;
        }
        REAL total = 0, sx = 0, sy = 0;
#pragma omp simd reduction(+ : total, sx, sy)
        for (long k = 0; k < count; k++) {
            REAL r = share[k] * EXP((REAL)0.5 * (nearest - distance[k]));
            share[k] = r;
            total += r;
            sx += r * gx[k];
            sy += r * gy[k];
        }
        sx /= total;
        sy /= total;
        if (score) {
            score[2 * i] = -sx;
            score[2 * i + 1] = -sy;
        }
        if (log_density)
            log_density[i] = (REAL)(log((double)total) - 0.5 * (double)nearest - 1.8378770664093453); /* log 2 pi */
        if (hessian) {
            /* Where distances round by more than 1, the nearest component is all: the shares of others are chance. */
            REAL xx = 0, xy = 0, yy = 0, resolved = nearest * EPSILON < 1;
#pragma omp simd reduction(+ : xx, xy, yy)
            for (long k = 0; k < count; k++) {
                REAL p0 = 1 / (v0[k] + s), p1 = 1 / (v1[k] + s);
                REAL dx = resolved * (gx[k] - sx), dy = resolved * (gy[k] - sy);
                xx += share[k] * (dx * dx - (p0 * a00[k] * a00[k] + p1 * a10[k] * a10[k]));
                xy += share[k] * (dx * dy - (p0 * a00[k] * a01[k] + p1 * a10[k] * a11[k]));
                yy += share[k] * (dy * dy - (p0 * a01[k] * a01[k] + p1 * a11[k] * a11[k]));
            }
            hessian[4 * i] = xx / total;
            hessian[4 * i + 1] = hessian[4 * i + 2] = xy / total;
            hessian[4 * i + 3] = yy / total;
        }
    }
    return 0;
}
