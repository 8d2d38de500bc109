# SPDX-License-Identifier: Apache-2.0
# cmake -DCOMPILERS=… -DFLAGS=… -DSOURCE=… -P compile.cmake
# A source whose first line is `// expect: <text>` must not compile, and the compiler must print the text; any other must compile.
file(STRINGS "${SOURCE}" first LIMIT_COUNT 1)
set(expect "")
if(first MATCHES "^// expect: (.+)$")
  set(expect "${CMAKE_MATCH_1}")
endif()

foreach(compiler IN LISTS COMPILERS)
  execute_process(COMMAND "${compiler}" ${FLAGS} -fsyntax-only "${SOURCE}" RESULT_VARIABLE code OUTPUT_VARIABLE output ERROR_VARIABLE output)
  string(FIND "${output}" "${expect}" found)
  if(expect STREQUAL "" AND NOT code EQUAL 0)
    message(SEND_ERROR "${compiler}: ${SOURCE} does not compile\n${output}")
  elseif(NOT expect STREQUAL "" AND code EQUAL 0)
    message(SEND_ERROR "${compiler}: ${SOURCE} compiles; expected: ${expect}")
  elseif(found EQUAL -1)
    message(SEND_ERROR "${compiler}: ${SOURCE} fails without saying: ${expect}\n${output}")
  endif()
endforeach()
