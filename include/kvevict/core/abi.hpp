// SPDX-License-Identifier: Apache-2.0
// The inline namespace of everything in the library: its version, the instruction set and the use of exceptions of this
// translation unit. Units with different flags have different names for everything, so none runs code that was compiled
// for another; a view that one of them makes and another reads does not link, and the linker names both.
//
//   v0_x86_v1   v0_x86_v3   v0_x86_v4_vnni   v0_x86_v2_avx_f16c   v0_arm8_lse_dotprod   v0_x86_v1_noexcept
//
// That is the level of x86-64 (or the architecture of Arm), then every extension beyond it which a compiler uses of its
// own accord. On other machines all units need the same flags.
#pragma once

#if defined(_MSC_VER) && !defined(__clang__)
#error "kvevict: MSVC has no vectors of floats; compile with clang-cl"
#endif
#if defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__
#error "kvevict: NaN and infinity are how bad input is found; behind -ffast-math, add -fno-finite-math-only"
#endif
#if (defined(__i386__) || defined(__x86_64__)) && !defined(__SSE2_MATH__)
#error "kvevict: floats must be floats, not x87's 80 bits; add -msse2 -mfpmath=sse"
#elif defined(__FLT_EVAL_METHOD__) && (__FLT_EVAL_METHOD__ == 1 || __FLT_EVAL_METHOD__ == 2)
#error "kvevict: floats must be floats, not wider (FLT_EVAL_METHOD is not 0); on x86 add -msse2 -mfpmath=sse"
#elif defined(__FLT_EVAL_METHOD__) && __FLT_EVAL_METHOD__ < 0 && !defined(__clang__)  // clang's word for fast math
#error "kvevict: floats must be floats, not wider where the compiler likes (-mfpmath=both); on x86 give -mfpmath=sse"
#endif

// KVEVICT_ABI_IF(macro, word): the word when the macro is defined as 1, else nothing.
#define KVEVICT_ABI_SHIFT_1 ,
#define KVEVICT_ABI_SECOND(first, second, ...) second
#define KVEVICT_ABI_CHOOSE(...) KVEVICT_ABI_SECOND(__VA_ARGS__)
#define KVEVICT_ABI_IF_VALUE(value, word) KVEVICT_ABI_CHOOSE(KVEVICT_ABI_SHIFT_##value word, , )
#define KVEVICT_ABI_IF(macro, word) KVEVICT_ABI_IF_VALUE(macro, word)
#define KVEVICT_ABI_PASTE(a, b, c, d, e, f, g, h) a##b##c##d##e##f##g##h
#define KVEVICT_ABI_JOIN(a, b, c, d, e, f, g, h) KVEVICT_ABI_PASTE(a, b, c, d, e, f, g, h)

#define KVEVICT_ABI_V2                                                                     \
  KVEVICT_ABI_JOIN(KVEVICT_ABI_IF(__SSE3__, _sse3), KVEVICT_ABI_IF(__SSSE3__, _ssse3),     \
                   KVEVICT_ABI_IF(__SSE4_1__, _sse41), KVEVICT_ABI_IF(__SSE4_2__, _sse42), \
                   KVEVICT_ABI_IF(__POPCNT__, _popcnt), , , )
#define KVEVICT_ABI_V3                                                                                              \
  KVEVICT_ABI_JOIN(KVEVICT_ABI_IF(__AVX__, _avx), KVEVICT_ABI_IF(__AVX2__, _avx2), KVEVICT_ABI_IF(__BMI__, _bmi),   \
                   KVEVICT_ABI_IF(__BMI2__, _bmi2), KVEVICT_ABI_IF(__F16C__, _f16c), KVEVICT_ABI_IF(__FMA__, _fma), \
                   KVEVICT_ABI_IF(__LZCNT__, _lzcnt), KVEVICT_ABI_IF(__MOVBE__, _movbe))
#define KVEVICT_ABI_V4                                                                               \
  KVEVICT_ABI_JOIN(KVEVICT_ABI_IF(__AVX512F__, _avx512f), KVEVICT_ABI_IF(__AVX512BW__, _avx512bw),   \
                   KVEVICT_ABI_IF(__AVX512CD__, _avx512cd), KVEVICT_ABI_IF(__AVX512DQ__, _avx512dq), \
                   KVEVICT_ABI_IF(__AVX512VL__, _avx512vl), , , )
#define KVEVICT_ABI_OF_512                                                                           \
  KVEVICT_ABI_JOIN(KVEVICT_ABI_IF(__AVX512IFMA__, _ifma), KVEVICT_ABI_IF(__AVX512VBMI__, _vbmi),     \
                   KVEVICT_ABI_IF(__AVX512VBMI2__, _vbmi2), KVEVICT_ABI_IF(__AVX512VNNI__, _vnni),   \
                   KVEVICT_ABI_IF(__AVX512BITALG__, _bitalg), KVEVICT_ABI_IF(__AVX512BF16__, _bf16), \
                   KVEVICT_ABI_IF(__AVX512VPOPCNTDQ__, _vpopcnt), KVEVICT_ABI_IF(__AVX512FP16__, _fp16))
#define KVEVICT_ABI_LATER                                                                         \
  KVEVICT_ABI_JOIN(KVEVICT_ABI_IF(__AVX512ER__, _er), KVEVICT_ABI_IF(__AVXVNNI__, _avxvnni),      \
                   KVEVICT_ABI_IF(__AVXVNNIINT8__, _int8), KVEVICT_ABI_IF(__AVXIFMA__, _avxifma), \
                   KVEVICT_ABI_IF(__AVX10_2__, _avx10), KVEVICT_ABI_IF(__GFNI__, _gfni),          \
                   KVEVICT_ABI_IF(__PCLMUL__, _pclmul), KVEVICT_ABI_IF(__APX_F__, _apx))
#define KVEVICT_ABI_OF_AMD                                                                                            \
  KVEVICT_ABI_JOIN(KVEVICT_ABI_IF(__SSE4A__, _sse4a), KVEVICT_ABI_IF(__FMA4__, _fma4), KVEVICT_ABI_IF(__XOP__, _xop), \
                   KVEVICT_ABI_IF(__TBM__, _tbm), KVEVICT_ABI_IF(__CMPCCXADD__, _cmpccxadd), , , )
#define KVEVICT_ABI_X86(level, words) \
  KVEVICT_ABI_JOIN(level, words, KVEVICT_ABI_OF_512, KVEVICT_ABI_LATER, KVEVICT_ABI_OF_AMD, , , )

#if defined(__SSE3__) && defined(__SSSE3__) && defined(__SSE4_2__) && defined(__POPCNT__)
#define KVEVICT_ABI_HAS_V2
#if defined(__AVX2__) && defined(__BMI__) && defined(__BMI2__) && defined(__F16C__) && defined(__FMA__) && \
    defined(__LZCNT__) && defined(__MOVBE__)
#define KVEVICT_ABI_HAS_V3
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512CD__) && defined(__AVX512DQ__) && \
    defined(__AVX512VL__)
#define KVEVICT_ABI_HAS_V4
#endif
#endif
#endif

#if defined(__aarch64__) || defined(__arm__)
#define KVEVICT_ABI_OF_ARM                                                                               \
  KVEVICT_ABI_JOIN(KVEVICT_ABI_IF(__ARM_NEON, _neon), KVEVICT_ABI_IF(__ARM_FEATURE_ATOMICS, _lse),       \
                   KVEVICT_ABI_IF(__ARM_FEATURE_CRC32, _crc), KVEVICT_ABI_IF(__ARM_FEATURE_QRDMX, _rdm), \
                   KVEVICT_ABI_IF(__ARM_FEATURE_DOTPROD, _dotprod),                                      \
                   KVEVICT_ABI_IF(__ARM_FEATURE_FP16_SCALAR_ARITHMETIC, _fp16),                          \
                   KVEVICT_ABI_IF(__ARM_FEATURE_FP16_FML, _fp16fml), KVEVICT_ABI_IF(__ARM_FEATURE_COMPLEX, _fcma))
#define KVEVICT_ABI_OF_ARM_LATER                                                                                \
  KVEVICT_ABI_JOIN(KVEVICT_ABI_IF(__ARM_FEATURE_RCPC, _rcpc), KVEVICT_ABI_IF(__ARM_FEATURE_JCVT, _jscvt),       \
                   KVEVICT_ABI_IF(__ARM_FEATURE_FRINT, _frint), KVEVICT_ABI_IF(__ARM_FEATURE_SHA3, _sha3),      \
                   KVEVICT_ABI_IF(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC, _bf16),                                 \
                   KVEVICT_ABI_IF(__ARM_FEATURE_MATMUL_INT8, _i8mm), KVEVICT_ABI_IF(__ARM_FEATURE_MOPS, _mops), \
                   KVEVICT_ABI_IF(__ARM_FEATURE_CSSC, _cssc))
#define KVEVICT_ABI_OF_SVE \
  KVEVICT_ABI_JOIN(KVEVICT_ABI_IF(__ARM_FEATURE_SVE, _sve), KVEVICT_ABI_IF(__ARM_FEATURE_SVE2, _sve2), , , , , , )
#define KVEVICT_ABI_ISA \
  KVEVICT_ABI_JOIN(arm, __ARM_ARCH, KVEVICT_ABI_OF_ARM, KVEVICT_ABI_OF_ARM_LATER, KVEVICT_ABI_OF_SVE, , , )
#elif defined(KVEVICT_ABI_HAS_V4)
#define KVEVICT_ABI_ISA KVEVICT_ABI_X86(x86_v4, )
#elif defined(KVEVICT_ABI_HAS_V3)
#define KVEVICT_ABI_ISA KVEVICT_ABI_X86(x86_v3, KVEVICT_ABI_V4)
#elif defined(KVEVICT_ABI_HAS_V2)
#define KVEVICT_ABI_ISA KVEVICT_ABI_X86(x86_v2, KVEVICT_ABI_JOIN(KVEVICT_ABI_V3, KVEVICT_ABI_V4, , , , , , ))
#elif defined(__SSE2__)
#define KVEVICT_ABI_ISA \
  KVEVICT_ABI_X86(x86_v1, KVEVICT_ABI_JOIN(KVEVICT_ABI_V2, KVEVICT_ABI_V3, KVEVICT_ABI_V4, , , , , ))
#else
#define KVEVICT_ABI_ISA portable
#endif

// A fast-math unit rounds otherwise; g++ says so, clang 14 does not.
#define KVEVICT_ABI_FAST KVEVICT_ABI_IF(__ASSOCIATIVE_MATH__, _fast)

#if defined(__cpp_exceptions) || defined(__EXCEPTIONS)
#define KVEVICT_EXCEPTIONS 1
#define KVEVICT_ABI KVEVICT_ABI_JOIN(v0_, KVEVICT_ABI_ISA, KVEVICT_ABI_FAST, , , , , )
#else
#define KVEVICT_EXCEPTIONS 0
#define KVEVICT_ABI KVEVICT_ABI_JOIN(v0_, KVEVICT_ABI_ISA, KVEVICT_ABI_FAST, _noexcept, , , , )
#endif
