# SPDX-License-Identifier: Apache-2.0
# Builds and runs consumer/<NAME> from nothing, as a user would; find_package sees an installed copy only.
set(work ${KVEVICT_BINARY}/tests/consumer/${NAME})
file(REMOVE_RECURSE ${work})
execute_process(COMMAND ${CMAKE_COMMAND} --install ${KVEVICT_BINARY} --prefix ${work}/prefix
  COMMAND_ERROR_IS_FATAL ANY OUTPUT_QUIET)
execute_process(COMMAND ${CMAKE_COMMAND} -S ${CMAKE_CURRENT_LIST_DIR}/${NAME} -B ${work}/build -G Ninja
  -DCMAKE_CXX_COMPILER=${COMPILER} -DCMAKE_PREFIX_PATH=${work}/prefix -DKVEVICT_SOURCE=${KVEVICT_SOURCE}
  COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${CMAKE_COMMAND} --build ${work}/build COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${work}/build/consumer COMMAND_ERROR_IS_FATAL ANY)

# Their install is theirs alone, unless they say KVEVICT_INSTALL.
execute_process(COMMAND ${CMAKE_COMMAND} --install ${work}/build --prefix ${work}/theirs COMMAND_ERROR_IS_FATAL ANY)
if(EXISTS ${work}/theirs/include/kvevict)
  message(FATAL_ERROR "installing ${NAME} installs the library's headers, too")
endif()
