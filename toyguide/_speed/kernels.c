/* The two hot loops, fused: the density, score and Hessian of a mixture, and the score of an energy network.

   Plain C with the vector extensions of GCC and clang, without intrinsics of any processor; compiled on the machine that
   runs it. The mixture comes in single and double precision, the network in single. Each function processes its own range
   of points, so that threads can split them. No input may be NaN or infinite: the caller checks. */

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define ROWS 6     /* points whose products are in registers at a time */
#define BLOCK 24   /* points per layer pass: their features stay in the innermost cache */
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

/* The same in double precision: Taylor polynomial of degree 13, with a remainder below 5e-18. The last bits of `shifted`
   hold n, so that no conversion to an integer is needed, which few processors have for vectors of doubles. */
static inline double exp_negative_double(double x) {
    const double round = 6755399441055744.0; /* 1.5 * 2^52 */
    double bounded = x < -700.0 ? -700.0 : x;
    double shifted = bounded * 1.4426950408889634 + round;
    double n = shifted - round;
    double r = (bounded - n * 0.693145751953125) - n * 1.4286068203094172e-6;
    double p = 1.0 / 6227020800.0;
    p = p * r + 1.0 / 479001600;
    p = p * r + 1.0 / 39916800;
    p = p * r + 1.0 / 3628800;
    p = p * r + 1.0 / 362880;
    p = p * r + 1.0 / 40320;
    p = p * r + 1.0 / 5040;
    p = p * r + 1.0 / 720;
    p = p * r + 1.0 / 120;
    p = p * r + 1.0 / 24;
    p = p * r + 1.0 / 6;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    int64_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (int64_t)((uint64_t)(bits + 1023) << 52);
    double power;
    memcpy(&power, &bits, sizeof power);
    return x < -700.0 ? 0.0 : p * power;
}

#define REAL float
#define EXP exp_negative
#define SQRT sqrtf
#define EPSILON FLT_EPSILON
#define MIXTURE mixture_float
#include "mixture.c"
#undef REAL
#undef EXP
#undef SQRT
#undef EPSILON
#undef MIXTURE
#define REAL double
#define EXP exp_negative_double
#define SQRT sqrt
#define EPSILON DBL_EPSILON
#define MIXTURE mixture_double
#include "mixture.c"

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

/* The gradient of the energy network's log-density at n points (n, dim); see toyguide/fields/networks.py.

   scale (dim), rest (inputs - dim) and strength (1) of each point, or once for all if shared.
   weights: of each layer before a SiLU, its transpose (inputs or width, width) and itself (width, width), which the
            first has not; then `square` (width, width). The width is a multiple of 16, filled up with zeros.
   Returns 0, or 1 if there is no memory. */
int gradient(long n, int dim, int inputs, int width, int layers, int shared, const float *x, const float *scale,
             const float *rest, const float *strength, const float *weights, float *out) {
    long plane = (long)BLOCK * width, square = (long)width * width;
    int others = inputs - dim;
    float *buffer = malloc(sizeof(float) * ((layers + 2) * plane + BLOCK * inputs));
    if (!buffer) return 1;
    float *here = buffer, *there = buffer + plane, *slopes = there + plane, *first = slopes + layers * plane;
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
    free(buffer);
    return 0;
}
