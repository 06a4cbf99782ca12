/*
 * Leaf functions on raw pointers: the arithmetic of the engine. A kernel allocates nothing, keeps
 * no state, takes any alignment and never touches a byte outside its operands. struct kernels is
 * filled from the scalar reference first, then overridden by instruction set.
 *
 * Invariance. What a kernel writes for one row of the batch depends on that row alone: the same
 * bits for every n, every t0, every split of [row0, row1). The order of summation may differ
 * between instruction sets, never between calls. Integer sums are exact at every level.
 *
 * Any split of rows is right; parts of a multiple of 16 rows are fastest.
 */
#ifndef SLUICE_KERNEL_KERNEL_H
#define SLUICE_KERNEL_KERNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernel/wtype.h"

/*
 * Rows of activations in int8: x ~ q * scale per group of ACT8_GROUP values along the row. sum is
 * scale times the sum of q of the group. Row t begins at q + t * cols, scale and sum at t * cols /
 * ACT8_GROUP.
 */
enum { ACT8_GROUP = 32 };
struct act8 {
    uint32_t cols;
    int8_t *q;
    float *scale;
    float *sum;
};

/* Online softmax over blocks (arXiv:1805.02867). Start: max -INFINITY, sum 0. */
struct softmax_state {
    float max;
    float sum;
};

/* Query heads of attention that look at the same keys and values. */
struct attention_query {
    const float *q; /* [heads][head_dim] */
    uint32_t heads, head_dim;
    float scale;
    /* Bytes from the keys and from the values to those of the next block, to prefetch; 0: none. */
    ptrdiff_t ahead;
};

/*
 * Query heads of latent attention that look at the same rows of the cache: each row is a latent of
 * rank values, which is both key and value, then rotated values, which are key alone.
 */
struct latent_query {
    const float *latent; /* [heads][rank] */
    const float *rot;    /* [heads][rotated] */
    uint32_t heads, rank, rotated;
    float scale;
};

/*
 * Tokens of one head of gated DeltaNet: token t has q, k [dk] and v [dv] at t * ld, g and b at
 * t * ldg, and its result [dv] goes to out + t * ldo.
 */
struct delta_tokens {
    const float *q, *k, *v, *g, *b;
    float *out;
    size_t ld, ldg, ldo;
    uint32_t n;
    bool streams; /* the state comes from memory and is in no cache when it is read again */
};

/* How sigmoid_top_k chooses k of n experts, which are in n_groups equal groups. */
struct sigmoid_choice {
    const float *correction; /* [n] */
    uint32_t k, n_groups, top_groups;
    bool normalize;
    float scale;
};

/* Keys and values come in blocks of at most this many positions, at multiples of it. */
enum { ATTENTION_BLOCK = 64 };

/* Bytes of scratch that matmul_* may use per call for a matrix of cols columns. */
static inline size_t matmul_scratch_bytes(uint32_t cols)
{
    return (size_t)cols * 72 + 98304;
}

/*
 * matmul_f32[type]   y[t * ldy + r] = sum_k W[r][k] * x[t * ldx + k], r in [row0, row1), t < n; f32
 *                    arithmetic; y is indexed by the absolute row r.
 * matmul_i8[type]    the same with rows t0 .. t0 + n of x; packed types only (NULL for others): for
 *                    each weight group of an affine type, ascending: part = idot * act scale of
 *                    its first activation group, then part = fma(idot, act scale, part) for its
 *                    others; acc = fma(part, scale, acc); acc = fma(bias, the act sums of the group
 *                    added in order, acc). Other types, for each activation group, ascending:
 *                    term = idot * (scale * act scale), plus bias * act sum where there is a bias;
 *                    acc += term, every operation rounded. The integer scales of Q2_K to Q6_K are
 *                    in idot; with minima, mdot, the exact sum of minimum * q, makes it
 *                    term = (idot * scale - mdot * min scale) * act scale.
 *                    So all instruction sets agree to the bit. y row 0 is the row of t0.
 * matmul_bf16[type]  matmul_f32 with x rounded to bf16, to nearest even; WTYPE_BF16 only (NULL for
 *                    others). Products are exact and sums f32; denormal operands and results may
 *                    count as zero, and bits may differ between processors of one set (vdpbf16ps).
 *                    NaN and infinities of x must not be lost.
 * matmul_t_f32[type] y[t * ldy + c] = sum_r W[r][c] * x[t * ldx + r], c in [col0, col1), t < n, r
 *                    ascending; f32 arithmetic
 * dequant_row[type]  y[k] = W[row][k], exact but for the rounding of a sum, or of e4m3 * scale.
 * quantize_act8      one row of k values (a multiple of ACT8_GROUP): scale = max|x| / 127 (0 for a
 *                    zero group), q rounded to nearest even, in -127 .. 127. NaN and infinities
 *                    must reach the result of matmul_i8 as NaN (scale becomes NaN).
 * add                y = a + b; y may be a
 * swiglu             y = silu(gate) * up, silu(z) = z / (1 + exp(-z)); finite for |z| up to 1e4
 * swiglu_clamped     y = g sigmoid(1.702 g) (u + 1), g = min(gate, limit), u = min(max(up, -limit),
 *                    limit); NaN for a NaN
 * sigmoid_gate       y = x * sigmoid(gate)
 * combine            y = residual + moe + sigmoid(shared_gate) * shared
 * weighted_sum       y[i] = sum_j w[j] * rows[j][i], j < k, j ascending, one rounding per step kind
 * rms_norm           y = x * rsqrt(mean(x^2) + eps) * w
 * l2_norm            y = x * rsqrt(sum(x^2) + eps) * scale; y may be x
 * gated_rms_norm     y = x * rsqrt(mean(x^2) + eps) * w * silu(z)
 * rope               half-split pairs (i, i + rotary_dim / 2) of one head rotated by cos_sin, which
 *                    holds rotary_dim / 2 cosines, then as many sines; the rest is copied
 * rope_pairs         the same with pairs (2 i, 2 i + 1)
 * softmax_top_k      softmax over n, the k <= n largest logits (lower index first among equals, NaN
 *                    last), written in ascending index; weights divided by their sum if normalize;
 *                    a NaN logit makes every weight NaN; scratch: n floats
 * sigmoid_top_k      s = sigmoid(logits), c = s + correction; of each of n_groups > 1 groups the
 *                    sum of its two largest c; within the top_groups groups of the largest sums the
 *                    k largest c (the lower index first among equals, of groups too), written in
 *                    ascending index; weights are s, divided by their sum + 1e-20 if normalize,
 *                    times scale; a NaN in c makes every weight NaN; scratch: 3 n floats
 * conv_silu          y[c] = silu(sum_j w[j * ldw + c] * rows[j][c]), j < width, oldest row first
 * decay_beta         g = exp(neg_a * softplus(alpha + dt_bias)), b = sigmoid(beta); softplus(x) =
 *                    max(x, 0) + log1p(exp(-|x|))
 * delta_net          state [dv][dk] of one head through x->n >= 1 tokens, for each: S = g S;
 *                    m = S k; S += beta (v - m) k^T; out = S q (Yang et al., arXiv:2412.06464); the
 *                    first reads from, results go to `to`, which may be from
 * attention_block_*  count <= ATTENTION_BLOCK positions: keys and values [count][head_dim]; updates
 *                    st[heads] and acc[heads][head_dim] (unnormalised), each head by itself
 * latent_block_*     count <= ATTENTION_BLOCK rows [rank + rotated]; updates st[heads] and
 *                    acc[heads][rank] (unnormalised), each head by itself
 * scale              y = x * factor; y may be x
 * f32_to_f16_row     rounds to nearest even
 *
 * Sources: RMSNorm arXiv:1910.07467, SwiGLU arXiv:2002.05202, RoPE arXiv:2104.09864, gated DeltaNet
 * arXiv:2412.06464 as in Hugging Face transformers' modeling_qwen3_next; affine groups as mlx
 * quantize documents them; MXFP4 and e4m3 as the OCP specifications do.
 */
struct kernels {
#define K(ret, name, params) ret(*name) params;
#define KW(ret, name, params) ret(*name[WTYPE_COUNT]) params;
#include "kernel/kernel.def"
#undef K
#undef KW
};

/* Instruction sets the kernels know. cpu.def is the table. */
enum cpu_feature {
#define F(name, bit, text) CPU_##name = 1u << bit,
#include "kernel/cpu.def"
#undef F
};

/* What both the processor and the operating system support. */
uint32_t cpu_detect(void);
/*
 * Narrows features by text, as in SLUICE_CPU: "scalar", "avx2", ...: that level and all below it.
 * NULL or "" changes nothing. False: unknown name.
 */
bool cpu_mask(const char *text, uint32_t *features);
/* "avx2 avx512" or "scalar"; written to out, NUL-terminated, cut at cap. */
void cpu_describe(uint32_t features, char *out, size_t cap);

/* Fills every slot: the reference, then what features allow. */
void kernels_init(struct kernels *k, uint32_t features);

#endif
