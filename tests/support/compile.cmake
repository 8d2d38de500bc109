# SPDX-License-Identifier: Apache-2.0
# cmake -DCOMPILERS=… -DFLAGS=… -DSOURCE=… -P compile.cmake
# A source whose first line is `// expect: <text>` must not compile, and the compiler must print the text; any other
# must compile.
file(READ "${SOURCE}" text)
set(expect "")
if("${text}" MATCHES "^// expect: ([^\n]+)\n")
  set(expect "${CMAKE_MATCH_1}")
endif()

list(LENGTH COMPILERS count)
if(DEFINED ENV{KVEVICT_TURN} AND count GREATER 1)  # tests/run.sh --turn
  math(EXPR at "$ENV{KVEVICT_TURN} % ${count}")
  list(GET COMPILERS ${at} COMPILERS)
endif()

set(wrong "")
foreach(compiler IN LISTS COMPILERS)
  set(only -fsyntax-only)
  if(compiler MATCHES "nvcc$")  # which has no such flag
    set(only -x cu -o /dev/null)
  endif()
  execute_process(COMMAND "${compiler}" ${FLAGS} ${only} "${SOURCE}"
    RESULT_VARIABLE code OUTPUT_VARIABLE output ERROR_VARIABLE output)
  string(FIND "${output}" "${expect}" found)
  if("${expect}" STREQUAL "" AND NOT code EQUAL 0)
    string(APPEND wrong "${compiler}: ${SOURCE} does not compile\n${output}")
  elseif(NOT "${expect}" STREQUAL "" AND code EQUAL 0)
    string(APPEND wrong "${compiler}: ${SOURCE} compiles; expected: ${expect}\n")
  elseif(found EQUAL -1)
    string(APPEND wrong "${compiler}: ${SOURCE} fails without saying: ${expect}\n${output}")
  endif()
endforeach()
if(wrong)
  message(NOTICE "${wrong}")
  message(FATAL_ERROR)
endif()
