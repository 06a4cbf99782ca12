#include "kernel/levels.h"
#include "kernel/x86/x86.h"

void SET(kernels_init)(struct kernels *k)
{
    SET(x86_init_matmul_f32)(k);
    SET(x86_init_matmul_i8)(k);
    SET(x86_init_weights)(k);
    SET(x86_init_elementwise)(k);
    SET(x86_init_norm)(k);
    SET(x86_init_moe)(k);
    SET(x86_init_delta)(k);
    SET(x86_init_attention)(k);
    SET(x86_init_latent)(k);
    SET(x86_init_matmul_t)(k);
}
