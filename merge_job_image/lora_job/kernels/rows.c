/* Rows of 16-bit weights: W + L·R rounded once, and what was written compared with what it was made from. One pass each, while the data
 * is in a core's cache: as single operations of torch the same arithmetic takes several times as long.
 *
 * An element's sum over the rank has one fixed order of fused multiply-adds and is compiled without contraction or reassociation (build.py),
 * so that every processor writes the same bits. Sums over elements are kept in LANES lanes; what rounding lost depends on the tile in its
 * last digits.
 */
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

enum { LANES = 16, HEIGHT = 4, WIDTH = TILES * LANES }; /* a tile: HEIGHT rows of TILES vectors (build.py) */
enum { PANEL_BYTES = 16 * 1024 }; /* of R that all rows go over before the next: half of a first-level cache */
typedef enum { BFLOAT16, FLOAT16 } Kind;

typedef float Floats __attribute__((vector_size(LANES * 4)));
typedef uint32_t Words __attribute__((vector_size(LANES * 4)));
typedef int32_t Flags __attribute__((vector_size(LANES * 4)));
typedef uint16_t Halves __attribute__((vector_size(LANES * 2)));
typedef _Float16 Float16s __attribute__((vector_size(LANES * 2)));

/* The first `count` of a vector; the others are 0. */
INLINE Halves load_halves(const uint16_t *from, int count)
{
    Halves values = {0};
    memcpy(&values, from, (size_t)count * sizeof *from);
    return values;
}

INLINE Floats load_floats(const float *from, int count)
{
    Floats values = {0};
    memcpy(&values, from, (size_t)count * sizeof *from);
    return values;
}

INLINE Floats widen(Kind kind, Halves halves)
{
    if (kind == BFLOAT16)
        return (Floats)(__builtin_convertvector(halves, Words) << 16);
    return __builtin_convertvector((Float16s)halves, Floats);
}

/* To nearest, ties to even. What a bfloat16 of NaN is does not matter: the sum of what was lost is NaN too, and nothing is published. */
INLINE Halves narrow(Kind kind, Floats values)
{
    if (kind == FLOAT16)
        return (Halves)__builtin_convertvector(values, Float16s);
    Words bits = (Words)values;
    return __builtin_convertvector((bits + 0x7fff + ((bits >> 16) & 1)) >> 16, Halves);
}

INLINE double total(Floats values)
{
    double sum = 0;
    for (int lane = 0; lane < LANES; lane++)
        sum += values[lane];
    return sum;
}

/* The float that rounds to 16 bits as the double itself would: its last bit says whether anything was cut off (Boldo and Melquiond, 2008). */
INLINE float to_odd(double exact)
{
    float nearest = (float)exact;
    double back = nearest;
    if (back == exact || back - back != 0) /* nothing was cut off, or it is not finite */
        return nearest;
    uint32_t bits;
    memcpy(&bits, &nearest, sizeof bits);
    bits = (__builtin_fabs(back) > __builtin_fabs(exact) ? bits - 1 : bits) | 1;
    memcpy(&nearest, &bits, sizeof bits);
    return nearest;
}

typedef struct {
    const uint16_t *stored;
    const float *left, *right;              /* [rows, rank], [rank, columns] */
    const double *exact_left, *exact_right; /* the same in float64 */
    const float *least;                     /* by row: results below it are calculated in float64 */
    int64_t rows, columns, rank;
    uint16_t *result;
} Sum;

typedef struct {
    Floats lost;
    Flags moved;
} Lanes;

/* Elements below the row's bound once more, as W + L·R in float64. They are few. */
static __attribute__((noinline)) void mend(const Sum *sum, int64_t row, int64_t column, Flags small, Floats before, Floats *after)
{
    const double *left = sum->exact_left + row * sum->rank;
    for (int lane = 0; lane < LANES; lane++) {
        if (!small[lane] || column + lane >= sum->columns)
            continue;
        const double *right = sum->exact_right + column + lane;
        double delta = 0;
        for (int64_t k = 0; k < sum->rank; k++)
            delta += left[k] * right[k * sum->columns];
        (*after)[lane] = to_odd(before[lane] + delta);
    }
}

INLINE void merge_lanes(Kind kind, const Sum *sum, int64_t row, int64_t column, int count, Floats delta, Lanes *lanes)
{
    int64_t place = row * sum->columns + column;
    Floats before = widen(kind, load_halves(sum->stored + place, count)), after = before + delta;
    Flags small = (Floats)((Words)after & 0x7fffffff) < sum->least[row];
    if (__builtin_expect(__builtin_reduce_or(small), 0))
        mend(sum, row, column, small, before, &after);
    Halves result = narrow(kind, after);
    Floats kept = widen(kind, result), lost = after - kept;
    lanes->lost = __builtin_elementwise_fma(lost, lost, lanes->lost);
    lanes->moved |= kept != before;
    memcpy(sum->result + place, &result, (size_t)count * sizeof *sum->result);
}

/* Some rows of some vectors, at most as many as the registers hold, where all but `count` is a constant. `count`: columns of the last vector. */
INLINE void merge_tile(Kind kind, const Sum *sum, int64_t row, int64_t column, int height, int tiles, int count, Lanes *lanes)
{
    Floats delta[HEIGHT][TILES] = {{{0}}};
    const float *left = sum->left + row * sum->rank, *right = sum->right + column;
    for (int64_t k = 0; k < sum->rank; k++, right += sum->columns) {
        Floats along[TILES];
        for (int tile = 0; tile < tiles; tile++)
            along[tile] = load_floats(right + tile * LANES, tile + 1 < tiles ? LANES : count);
        for (int h = 0; h < height; h++)
            for (int tile = 0; tile < tiles; tile++)
                delta[h][tile] = __builtin_elementwise_fma((Floats)(left[h * sum->rank + k] - (Floats){0}), along[tile], delta[h][tile]);
    }
    for (int h = 0; h < height; h++)
        for (int tile = 0; tile < tiles; tile++)
            merge_lanes(kind, sum, row + h, column + tile * LANES, tile + 1 < tiles ? LANES : count, delta[h][tile], lanes);
}

INLINE int64_t smaller(int64_t one, int64_t other) { return one < other ? one : other; }

/* Rows from one column to another. */
INLINE void merge_strip(Kind kind, const Sum *sum, int64_t row, int64_t column, int64_t last, int height, Lanes *lanes)
{
    for (; column + WIDTH <= last; column += WIDTH)
        merge_tile(kind, sum, row, column, height, TILES, LANES, lanes);
    for (; column + LANES <= last; column += LANES)
        merge_tile(kind, sum, row, column, height, 1, LANES, lanes);
    if (column < last)
        merge_tile(kind, sum, row, column, height, 1, (int)(last - column), lanes);
}

INLINE void merge(Kind kind, const Sum *sum, double *lost, int64_t *moved)
{
    int64_t panel = PANEL_BYTES / (int64_t)sizeof(float) / sum->rank / WIDTH * WIDTH;
    if (panel < WIDTH)
        panel = WIDTH;
    for (int64_t first = 0; first < sum->columns; first += panel) {
        int64_t last = smaller(first + panel, sum->columns);
        for (int64_t row = 0; row < sum->rows; row += HEIGHT) {
            Lanes lanes = {{0}, {0}};
            switch (smaller(HEIGHT, sum->rows - row)) { /* the last rows of a chunk: all there are where rows are very wide */
            case 1: merge_strip(kind, sum, row, first, last, 1, &lanes); break;
            case 2: merge_strip(kind, sum, row, first, last, 2, &lanes); break;
            case 3: merge_strip(kind, sum, row, first, last, 3, &lanes); break;
            default: merge_strip(kind, sum, row, first, last, HEIGHT, &lanes);
            }
            *lost += total(lanes.lost);
            *moved |= __builtin_reduce_or(lanes.moved) != 0;
        }
    }
}

void merge_bfloat16(const Sum *sum, double *lost, int64_t *moved) { merge(BFLOAT16, sum, lost, moved); }
void merge_float16(const Sum *sum, double *lost, int64_t *moved) { merge(FLOAT16, sum, lost, moved); }

typedef struct {
    const uint16_t *before, *after;
    const float *along; /* [columns] */
    int64_t rows, columns;
    double *projected; /* by row: Σ (after − before) · along */
} Pair;

typedef struct {
    Floats magnitude, moved, projected;
} Sums;

INLINE void compare_lanes(Kind kind, const Pair *pair, int64_t place, int64_t column, int count, Sums *sums)
{
    Floats after = widen(kind, load_halves(pair->after + place, count));
    Floats change = after - widen(kind, load_halves(pair->before + place, count));
    sums->magnitude = __builtin_elementwise_fma(after, after, sums->magnitude);
    sums->moved = __builtin_elementwise_fma(change, change, sums->moved);
    sums->projected = __builtin_elementwise_fma(change, load_floats(pair->along + column, count), sums->projected);
}

/* Adds Σ after² to `magnitude` and Σ (after − before)² to `moved`. */
INLINE void compare(Kind kind, const Pair *pair, double *magnitude, double *moved)
{
    for (int64_t row = 0; row < pair->rows; row++) {
        Sums sums = {{0}, {0}, {0}};
        int64_t column = 0, begin = row * pair->columns;
        for (; column + LANES <= pair->columns; column += LANES)
            compare_lanes(kind, pair, begin + column, column, LANES, &sums);
        compare_lanes(kind, pair, begin + column, column, (int)(pair->columns - column), &sums);
        *magnitude += total(sums.magnitude);
        *moved += total(sums.moved);
        pair->projected[row] = total(sums.projected);
    }
}

void compare_bfloat16(const Pair *pair, double *magnitude, double *moved) { compare(BFLOAT16, pair, magnitude, moved); }
void compare_float16(const Pair *pair, double *magnitude, double *moved) { compare(FLOAT16, pair, magnitude, moved); }
