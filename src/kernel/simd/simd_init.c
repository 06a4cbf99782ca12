#include "kernel/levels.h"
#include "kernel/simd/sets.h"

void SET(kernels_init)(struct kernels *k, uint32_t features)
{
    SET(init_matmul_f32)(k);
    SET(init_matmul_i8)(k, features);
    SET(init_blocks_i8)(k);
    SET(init_weights)(k);
    SET(init_elementwise)(k);
    SET(init_norm)(k);
    SET(init_moe)(k);
    SET(init_delta)(k);
    SET(init_attention)(k);
    SET(init_latent)(k);
    SET(init_matmul_t)(k);
}
