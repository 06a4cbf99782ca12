#include "kernel/kernel.h"
#include "kernel/levels.h"

void kernels_init(struct kernels *k, uint32_t features)
{
    kernels_init_ref(k);
#if defined(__x86_64__)
#if !defined(SLUICE_NO_AVX2)
    if (features & CPU_AVX2) kernels_init_avx2(k, features);
#endif
#if !defined(SLUICE_NO_AVXVNNI)
    if ((features & CPU_AVX2) && (features & CPU_AVX_VNNI)) kernels_init_avxvnni(k, features);
#endif
#if !defined(SLUICE_NO_AVX512)
    if (features & CPU_AVX512) kernels_init_avx512(k, features);
#endif
#if !defined(SLUICE_NO_VNNI)
    if ((features & CPU_AVX512) && (features & CPU_AVX512_VNNI)) kernels_init_vnni(k, features);
#endif
#if !defined(SLUICE_NO_VBMI)
    const uint32_t vbmi = CPU_AVX512 | CPU_AVX512_VNNI | CPU_AVX512_VBMI;
    if ((features & vbmi) == vbmi) kernels_init_vbmi(k, features);
#endif
#if !defined(SLUICE_NO_BF16)
    if ((features & CPU_AVX512) && (features & CPU_AVX512_BF16)) kernels_init_bf16(k, features);
#endif
#elif defined(__aarch64__)
    if (features & CPU_NEON) kernels_init_neon(k, features);
#if !defined(SLUICE_NO_DOTPROD)
    if ((features & CPU_NEON) && (features & CPU_NEON_DOTPROD)) kernels_init_dotprod(k, features);
#endif
#if !defined(SLUICE_NO_I8MM)
    if ((features & CPU_NEON) && (features & CPU_NEON_I8MM)) kernels_init_i8mm(k, features);
#endif
#else
    (void)features;
#endif
}
