// SPDX-License-Identifier: Apache-2.0
// The instruction set this translation unit is compiled for, as a namespace name. The host context and the host kernels live
// in it, so that translation units built with different flags can be linked: none runs code that was compiled for another.
#pragma once

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#define KVEVICT_ISA avx512
#elif defined(__AVX2__) && defined(__FMA__)
#define KVEVICT_ISA avx2
#elif defined(__AVX__)
#define KVEVICT_ISA avx
#elif defined(__SSE4_2__)
#define KVEVICT_ISA sse4
#elif defined(__SSE2__)
#define KVEVICT_ISA sse2
#elif defined(__ARM_FEATURE_SVE)
#define KVEVICT_ISA sve
#elif defined(__ARM_NEON)
#define KVEVICT_ISA neon
#else
#define KVEVICT_ISA portable
#endif
