/* sha256 (FIPS 180-4) of one file, or of two at a time on one core, with the processor's SHA extensions.

   A round needs the one before, so one message leaves the unit that calculates rounds idle for more than half of the time. A second one,
   whose rounds are mixed with the first one's, fills the gaps (docs/decisions/0048). Reads the files itself: between the page cache and
   the registers the bytes are only in the processor's cache. */

#include <errno.h>
#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

enum { BLOCK = 64, LANES = 2, AT_ONCE = 1 << 17 };

struct file {
    uint32_t state[8];
    int64_t offset;     /* of the next byte that is hashed */
    int32_t descriptor;
    int32_t failure;    /* 0, or why no more could be read: an errno, -1 where the file ended */
};

static const uint32_t ROUND[64] __attribute__((aligned(16))) = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be,
    0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa,
    0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85,
    0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3,
    0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f,
    0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

#define EACH(lane) _Pragma("unroll") for (int lane = 0; lane < lanes; lane++)

/* `lanes` is a constant wherever this is inlined: all loops but that over the blocks unroll, and everything stays in registers. The
   instructions want the state as a, b, e, f in one register and c, d, g, h in the other, most significant first. */
static inline __attribute__((always_inline)) void compress(
    const int lanes, uint32_t *const states[], const uint8_t *data[], size_t blocks) {
    const __m128i big_endian = _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);
    __m128i abef[LANES], cdgh[LANES], words[LANES][4];
    EACH(lane) {
        const __m128i badc = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)states[lane]), 0xB1);
        const __m128i hgfe = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(states[lane] + 4)), 0x1B);
        abef[lane] = _mm_alignr_epi8(badc, hgfe, 8);
        cdgh[lane] = _mm_blend_epi16(hgfe, badc, 0xF0);
    }
    for (; blocks > 0; blocks--) {
        __m128i abef_before[LANES], cdgh_before[LANES];
        EACH(lane) {
            abef_before[lane] = abef[lane];
            cdgh_before[lane] = cdgh[lane];
            _Pragma("unroll") for (int i = 0; i < 4; i++)
                words[lane][i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)data[lane] + i), big_endian);
            data[lane] += BLOCK;
        }
        _Pragma("unroll") for (int four = 0; four < 16; four++) {
            const __m128i constants = _mm_load_si128((const __m128i *)ROUND + four);
            EACH(lane) {
                const __m128i given = _mm_add_epi32(words[lane][four & 3], constants);
                cdgh[lane] = _mm_sha256rnds2_epu32(cdgh[lane], abef[lane], given);
                abef[lane] = _mm_sha256rnds2_epu32(abef[lane], cdgh[lane], _mm_shuffle_epi32(given, 0x0E));
            }
            if (four < 12) EACH(lane) { /* the words that are sixteen rounds later */
                __m128i *const now = &words[lane][four & 3];
                const __m128i second = words[lane][(four + 1) & 3], third = words[lane][(four + 2) & 3], fourth = words[lane][(four + 3) & 3];
                const __m128i seven_before = _mm_alignr_epi8(fourth, third, 4);
                *now = _mm_sha256msg2_epu32(_mm_add_epi32(_mm_sha256msg1_epu32(*now, second), seven_before), fourth);
            }
        }
        EACH(lane) {
            abef[lane] = _mm_add_epi32(abef[lane], abef_before[lane]);
            cdgh[lane] = _mm_add_epi32(cdgh[lane], cdgh_before[lane]);
        }
    }
    EACH(lane) {
        const __m128i feba = _mm_shuffle_epi32(abef[lane], 0x1B), dchg = _mm_shuffle_epi32(cdgh[lane], 0xB1);
        _mm_storeu_si128((__m128i *)states[lane], _mm_blend_epi16(feba, dchg, 0xF0));
        _mm_storeu_si128((__m128i *)(states[lane] + 4), _mm_alignr_epi8(dchg, feba, 8));
    }
}

static int read_whole(struct file *file, uint8_t *buffer, size_t size) {
    for (size_t done = 0; done < size;) {
        const ssize_t count = pread(file->descriptor, buffer + done, size - done, file->offset + (int64_t)done);
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) {
            file->failure = count < 0 ? errno : -1;
            return 0;
        }
        done += (size_t)count;
    }
    return 1;
}

/* Hashes `size` bytes more of each of one or two files, whole blocks. Where one cannot be read it says so, and both end at the same
   distance from where they began. */
void sha256_files(struct file *const files[], int lanes, int64_t size) {
    uint8_t read[LANES][AT_ONCE]; /* a quarter of the second cache, and little of a thread's stack */
    while (size > 0) {
        const size_t part = size < AT_ONCE ? (size_t)size : AT_ONCE;
        uint32_t *states[LANES];
        const uint8_t *data[LANES];
        int whole = 1;
        for (int lane = 0; lane < lanes; lane++) {
            whole &= read_whole(files[lane], read[lane], part);
            states[lane] = files[lane]->state;
            data[lane] = read[lane];
        }
        if (!whole) return;
        if (lanes == 2) compress(2, states, data, part / BLOCK);
        else compress(1, states, data, part / BLOCK);
        for (int lane = 0; lane < lanes; lane++) files[lane]->offset += (int64_t)part;
        size -= (int64_t)part;
    }
}

/* Hashes whole blocks that are in memory: the padded end of a file. */
void sha256_blocks(struct file *file, const uint8_t *data, int64_t blocks) {
    uint32_t *states[] = {file->state};
    const uint8_t *given[] = {data};
    compress(1, states, given, (size_t)blocks);
}
