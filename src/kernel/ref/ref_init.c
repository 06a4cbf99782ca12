#include "kernel/levels.h"
#include "kernel/ref/ref.h"

void kernels_init_ref(struct kernels *k)
{
    ref_init_matmul(k);
    ref_init_elementwise(k);
    ref_init_norm(k);
    ref_init_moe(k);
    ref_init_delta(k);
    ref_init_attention(k);
    ref_init_latent(k);
}
