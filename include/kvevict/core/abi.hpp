// SPDX-License-Identifier: Apache-2.0
// The inline namespace of everything in the library: its version, the instruction set and the use of exceptions of this
// translation unit. Units with different flags have different names for everything, so none runs code that was compiled
// for another.
#pragma once

#if defined(__cpp_exceptions) || defined(__EXCEPTIONS)
#define KVEVICT_EXCEPTIONS 1
#define KVEVICT_ABI_JOIN(isa) v0_##isa
#else
#define KVEVICT_EXCEPTIONS 0
#define KVEVICT_ABI_JOIN(isa) v0_##isa##_noexcept
#endif

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#define KVEVICT_ABI KVEVICT_ABI_JOIN(avx512)
#elif defined(__AVX2__) && defined(__FMA__)
#define KVEVICT_ABI KVEVICT_ABI_JOIN(avx2)
#elif defined(__AVX__)
#define KVEVICT_ABI KVEVICT_ABI_JOIN(avx)
#elif defined(__SSE4_2__)
#define KVEVICT_ABI KVEVICT_ABI_JOIN(sse4)
#elif defined(__SSE2__)
#define KVEVICT_ABI KVEVICT_ABI_JOIN(sse2)
#elif defined(__ARM_FEATURE_SVE)
#define KVEVICT_ABI KVEVICT_ABI_JOIN(sve)
#elif defined(__ARM_NEON)
#define KVEVICT_ABI KVEVICT_ABI_JOIN(neon)
#else
#define KVEVICT_ABI KVEVICT_ABI_JOIN(portable)
#endif
