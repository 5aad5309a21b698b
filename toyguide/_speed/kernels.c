/* The two loops that everything waits for, fused: a mixture's score and an energy network's.

   Plain C with GCC's and clang's vector extensions, nothing of any processor's in particular; compiled on the machine
   that runs it. Everything is float32. Each function works on its own range of points, so that threads can share them
   out. No input may be NaN or infinite: the caller sees to it. */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ROWS 6     /* points of which the products are in registers at a time */
#define BLOCK 24   /* points that go through a layer together: their features stay in the innermost cache */
#define LANES 8

typedef float vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

/* exp(x) for x <= 0, 0 below -87, to two roundings. x = n log 2 + r with |r| <= log(2) / 2, and exp(r) by its Taylor
   polynomial of degree 7, whose remainder is r^8 / 8! < 6e-9. log 2 is subtracted in two parts, the first of which has
   so few digits that n times it is exact. */
static inline float exp_negative(float x) {
    const float round = 12582912.0f; /* 1.5 * 2^23: adding it leaves the nearest whole number in the last bits */
    float bounded = x < -87.0f ? -87.0f : x;
    float shifted = bounded * 1.44269504f + round;
    float n = shifted - round;
    float r = (bounded - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.0f / 5040;
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    int bits = ((int)n + 127) << 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    return x < -87.0f ? 0.0f : p * power;
}

/* A mixture of K Gaussians in two dimensions at n points, each with its own sigma squared.

   planes: 11 of K numbers: weight; mean x, y; what float32 leaves of the means x, y; axes [e, i] 00, 01, 10, 11;
           variances 0, 1.
   room:   4 K numbers.
   log_density (n) or score (n, 2) may be null. Returns 0.

   A component counts w / sqrt(v0 v1) exp(-(distance - nearest) / 2): the caller sees to it that the factors before the
   exponential are not so far apart that it underflows where they would have made up for it. */
int mixture(long n, long count, const float *x, const float *noise, const float *planes, float *room,
            float *log_density, float *score) {
    const float *w = planes, *mx = w + count, *my = mx + count, *lx = my + count, *ly = lx + count;
    const float *a00 = ly + count, *a01 = a00 + count, *a10 = a01 + count, *a11 = a10 + count;
    const float *v0 = a11 + count, *v1 = v0 + count;
    float *restrict distance = room, *restrict height = room + count;
    float *restrict gx = height + count, *restrict gy = gx + count;
    for (long i = 0; i < n; i++) {
        float px = x[2 * i], py = x[2 * i + 1], s = noise[i], nearest = INFINITY;
#pragma omp simd reduction(min : nearest)
        for (long k = 0; k < count; k++) {
            float ox = (px - mx[k]) - lx[k], oy = (py - my[k]) - ly[k];
            float z0 = ox * a00[k] + oy * a01[k], z1 = ox * a10[k] + oy * a11[k];
            float p0 = 1.0f / (v0[k] + s), p1 = 1.0f / (v1[k] + s);
            float y0 = z0 * p0, y1 = z1 * p1;
            float far = z0 * y0 + z1 * y1;
            distance[k] = far;
            height[k] = w[k] * sqrtf(p0) * sqrtf(p1);
            gx[k] = y0 * a00[k] + y1 * a10[k];
            gy[k] = y0 * a01[k] + y1 * a11[k];
            nearest = far < nearest ? far : nearest;
        }
        float total = 0, sx = 0, sy = 0;
#pragma omp simd reduction(+ : total, sx, sy)
        for (long k = 0; k < count; k++) {
            float share = height[k] * exp_negative(0.5f * (nearest - distance[k]));
            total += share;
            sx += share * gx[k];
            sy += share * gy[k];
        }
        if (score) {
            score[2 * i] = -sx / total;
            score[2 * i + 1] = -sy / total;
        }
        if (log_density)
            log_density[i] = (float)(log((double)total) - 0.5 * (double)nearest - 1.8378770664093453); /* log 2 pi */
    }
    return 0;
}

/* c (BLOCK, width) = a (BLOCK, depth) b (depth, width); width is a multiple of 16. */
static void product(int depth, int width, const float *restrict a, int row, const float *restrict b,
                    float *restrict c) {
    for (int r = 0; r < BLOCK; r += ROWS)
        for (int j = 0; j < width; j += 2 * LANES) {
            vector low[ROWS] = {{0}}, high[ROWS] = {{0}};
            for (int k = 0; k < depth; k++) {
                vector left = *(const vector *)(b + (long)k * width + j);
                vector right = *(const vector *)(b + (long)k * width + j + LANES);
#pragma GCC unroll 6
                for (int i = 0; i < ROWS; i++) {
                    float f = a[(long)(r + i) * row + k];
                    low[i] += f * left;
                    high[i] += f * right;
                }
            }
#pragma GCC unroll 6
            for (int i = 0; i < ROWS; i++) {
                *(vector *)(c + (long)(r + i) * width + j) = low[i];
                *(vector *)(c + (long)(r + i) * width + j + LANES) = high[i];
            }
        }
}

/* The gradient of the energy network's log-density at n points (n, dim); see toyguide/networks.py.

   scale (dim), rest (inputs - dim) and strength (1) of each point, or once for all if shared.
   weights: of each layer before a SiLU, its transpose (inputs or width, width) and itself (width, width), which the
            first has not; then `square` (width, width). The width is a multiple of 16, filled up with zeros.
   Returns 0, or 1 if there is no memory. */
int gradient(long n, int dim, int inputs, int width, int layers, int shared, const float *x, const float *scale,
             const float *rest, const float *strength, const float *weights, float *out) {
    long plane = (long)BLOCK * width, square = (long)width * width;
    int others = inputs - dim;
    float *room = malloc(sizeof(float) * ((layers + 2) * plane + BLOCK * inputs));
    if (!room) return 1;
    float *here = room, *there = room + plane, *slopes = there + plane, *first = slopes + layers * plane;
    for (long begin = 0; begin < n; begin += BLOCK) {
        int rows = n - begin < BLOCK ? (int)(n - begin) : BLOCK;
        memset(first, 0, sizeof(float) * BLOCK * inputs);
        for (int i = 0; i < rows; i++) {
            long at = shared ? 0 : begin + i;
            for (int d = 0; d < dim; d++) first[i * inputs + d] = x[(begin + i) * dim + d] * scale[at * dim + d];
            for (int d = 0; d < others; d++) first[i * inputs + dim + d] = rest[at * others + d];
        }
        const float *w = weights;
        for (int layer = 0; layer < layers; layer++) {
            int depth = layer ? width : inputs;
            float *restrict slope = slopes + layer * plane;
            product(depth, width, layer ? here : first, depth, w, there);
            float *restrict h = there;
#pragma omp simd
            for (long j = 0; j < plane; j++) {
                float a = h[j], e = exp_negative(a < 0 ? a : -a), gate = (a < 0 ? e : 1.0f) / (1.0f + e);
                h[j] = a * gate;
                slope[j] = gate + h[j] * (1.0f - gate);
            }
            there = here;
            here = h;
            w += (long)depth * width + (layer ? square : 0);
        }
        product(width, width, here, width, w, there);
        for (int layer = layers - 1; layer >= 0; layer--) {
            float *restrict back = there;
            const float *restrict slope = slopes + layer * plane;
#pragma omp simd
            for (long j = 0; j < plane; j++) back[j] *= slope[j];
            if (layer) {
                w -= square;
                product(width, width, back, width, w, here);
                w -= square;
                there = here;
                here = back;
            }
        }
        for (int i = 0; i < rows; i++) {
            long at = shared ? 0 : begin + i;
            const float *restrict back = there + (long)i * width;
            for (int d = 0; d < dim; d++) {
                const float *restrict column = weights + (long)d * width; /* of the first layer's transpose */
                float sum = 0;
#pragma omp simd reduction(+ : sum)
                for (int j = 0; j < width; j++) sum += back[j] * column[j];
                out[(begin + i) * dim + d] = (2 * strength[at] * sum - first[i * inputs + d]) * scale[at * dim + d];
            }
        }
    }
    free(room);
    return 0;
}
