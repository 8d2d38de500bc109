# SPDX-License-Identifier: Apache-2.0
# The port without vcpkg, which neither Debian nor PyPI has: its portfile is run with the five functions of vcpkg that
# it calls, as their documentation says what they do; then a project is built from what it has installed. What vcpkg
# itself makes of the port (its dependencies, its checks after a build) is not tried.
cmake_minimum_required(VERSION 3.25)
set(work ${KVEVICT_BINARY}/tests/consumer/vcpkg)
set(port ${CMAKE_CURRENT_LIST_DIR}/kvevict)
set(CURRENT_PACKAGES_DIR ${work}/packages)
set(PORT kvevict)
file(REMOVE_RECURSE ${work})

function(vcpkg_cmake_configure)
  cmake_parse_arguments(PARSE_ARGV 0 given "" "SOURCE_PATH" "OPTIONS")
  execute_process(COMMAND ${CMAKE_COMMAND} -S ${given_SOURCE_PATH} -B ${work}/build -G Ninja
    -DCMAKE_CXX_COMPILER=${COMPILER} -DCMAKE_INSTALL_PREFIX=${CURRENT_PACKAGES_DIR} ${given_OPTIONS}
    COMMAND_ERROR_IS_FATAL ANY OUTPUT_QUIET)
endfunction()
function(vcpkg_cmake_install)
  execute_process(COMMAND ${CMAKE_COMMAND} --install ${work}/build COMMAND_ERROR_IS_FATAL ANY OUTPUT_QUIET)
endfunction()
function(vcpkg_cmake_config_fixup)  # moves them to share/PORT, and follows with the prefix that they work out
  cmake_parse_arguments(PARSE_ARGV 0 given "" "CONFIG_PATH" "")
  file(GLOB files ${CURRENT_PACKAGES_DIR}/${given_CONFIG_PATH}/*.cmake)
  if(NOT files)
    message(FATAL_ERROR "the port's CONFIG_PATH, ${given_CONFIG_PATH}, has no CMake files")
  endif()
  file(RENAME ${CURRENT_PACKAGES_DIR}/${given_CONFIG_PATH} ${CURRENT_PACKAGES_DIR}/share/${PORT})
  file(READ ${CURRENT_PACKAGES_DIR}/share/${PORT}/${PORT}Targets.cmake text)
  set(up "get_filename_component(_IMPORT_PREFIX \"\${_IMPORT_PREFIX}\" PATH)\n")
  string(REPLACE "${up}${up}${up}" "${up}${up}" text "${text}")
  file(WRITE ${CURRENT_PACKAGES_DIR}/share/${PORT}/${PORT}Targets.cmake "${text}")
endfunction()
function(vcpkg_install_copyright)
  cmake_parse_arguments(PARSE_ARGV 0 given "" "" "FILE_LIST")
  file(COPY_FILE ${given_FILE_LIST} ${CURRENT_PACKAGES_DIR}/share/${PORT}/copyright)
endfunction()

file(READ ${port}/vcpkg.json manifest)
string(JSON name GET ${manifest} name)
string(JSON version GET ${manifest} version)
file(STRINGS ${KVEVICT_SOURCE}/include/kvevict/version.hpp numbers REGEX "define KVEVICT_VERSION_(MAJOR|MINOR|PATCH)")
list(TRANSFORM numbers REPLACE ".* ([0-9]+)$" "\\1")
list(JOIN numbers "." is)
if(NOT name STREQUAL PORT OR NOT version STREQUAL is)
  message(FATAL_ERROR "vcpkg.json is of ${name} ${version}, version.hpp of ${PORT} ${is}")
endif()

function(run_port)  # vcpkg, too, runs it from the port's folder
  set(CMAKE_CURRENT_LIST_DIR ${port})
  include(${port}/portfile.cmake)
endfunction()
run_port()
foreach(left IN ITEMS lib share/cmake share/doc)
  if(EXISTS ${CURRENT_PACKAGES_DIR}/${left})
    message(FATAL_ERROR "the port leaves ${left} behind")
  endif()
endforeach()
execute_process(COMMAND ${CMAKE_COMMAND} -S ${CMAKE_CURRENT_LIST_DIR}/../../find_package -B ${work}/consumer -G Ninja
  -DCMAKE_CXX_COMPILER=${COMPILER} -DCMAKE_PREFIX_PATH=${CURRENT_PACKAGES_DIR} COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${CMAKE_COMMAND} --build ${work}/consumer COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${work}/consumer/consumer COMMAND_ERROR_IS_FATAL ANY)
