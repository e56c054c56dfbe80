# Compiler settings and the few functions that every folder's CMakeLists.txt uses.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()
# -g1: names and lines in stack traces, at half the build time of -g.
set(CMAKE_CXX_FLAGS_DEBUG "-O1 -g1 -D_GLIBCXX_ASSERTIONS")
set(CMAKE_CXX_FLAGS_RELEASE "-O3 -g1")
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/bin")

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM)
  # Paths relative to the source tree: clones of one commit share what is compiled.
  set(CMAKE_CXX_COMPILER_LAUNCHER "${CMAKE_COMMAND}" -E env "CCACHE_BASEDIR=${PROJECT_SOURCE_DIR}" CCACHE_NOHASHDIR=1 "${CCACHE_PROGRAM}")
  set(CMAKE_CUDA_COMPILER_LAUNCHER "${CMAKE_CXX_COMPILER_LAUNCHER}")
endif()
find_program(MOLD_PROGRAM mold)
if(MOLD_PROGRAM AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_GREATER_EQUAL 12.1)
  add_link_options($<$<LINK_LANGUAGE:CXX>:-fuse-ld=mold>)
endif()

# Whole builds of which nothing is changed afterwards (presets tsan and asan, and every preset in CI) compile a dozen files of
# a target at once: a third of the time, most of which goes to headers. So what is local to a file has a name of its own
# within its target; builds that are not of that kind show that every file stands by itself.
if(CMAKE_UNITY_BUILD)
  if(NOT DEFINED CMAKE_UNITY_BUILD_BATCH_SIZE)
    set(CMAKE_UNITY_BUILD_BATCH_SIZE 12)  # 0: all of a target, which finds every name that two files share
  endif()
  add_compile_options($<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CXX_COMPILER_ID:GNU>>:-Wno-subobject-linkage>)
endif()

if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # g++ 12 reports these inside the standard library and fmt at -O3, wrongly.
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-Wno-restrict> $<$<COMPILE_LANGUAGE:CXX>:-Wno-stringop-overflow>)
endif()

add_library(strake_settings INTERFACE)
target_include_directories(strake_settings INTERFACE "$<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>")
target_compile_options(strake_settings INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -fno-omit-frame-pointer>)
if(STRAKE_SANITIZE)
  target_compile_options(strake_settings INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${STRAKE_SANITIZE} -fno-sanitize-recover=all>)
  target_link_options(strake_settings INTERFACE -fsanitize=${STRAKE_SANITIZE})
  target_compile_definitions(strake_settings INTERFACE STRAKE_SANITIZED=1)
  if(STRAKE_SANITIZE STREQUAL "thread")
    target_compile_definitions(strake_settings INTERFACE STRAKE_TSAN=1)
    # It sees a copy as a call of the C library, and none that the compiler has put in the call's place.
    target_compile_options(strake_settings INTERFACE
      $<$<COMPILE_LANGUAGE:CXX>:-fno-builtin-memcpy -fno-builtin-memmove -fno-builtin-memset>)
  endif()
endif()

# strake_library(NAME SOURCES file... LINKS target... [PRIVATE_LINKS target...]): the library of one folder, strake::NAME.
function(strake_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINKS;PRIVATE_LINKS" ${ARGN})
  add_library(strake_${name} STATIC ${ARG_SOURCES})
  add_library(strake::${name} ALIAS strake_${name})
  target_link_libraries(strake_${name} PUBLIC strake_settings ${ARG_LINKS} PRIVATE ${ARG_PRIVATE_LINKS})
endfunction()

# strake_test(NAME SOURCES file... LINKS target... [LABELS label...] [TIMEOUT seconds] [ENVIRONMENT var=value...] [RANKS n])
# One GoogleTest program, one ctest entry. With RANKS it runs under mpirun with that many ranks.
function(strake_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT;RANKS" "SOURCES;LINKS;LABELS;ENVIRONMENT;ARGUMENTS" ${ARGN})
  if(ARG_SOURCES)
    add_executable(${name} ${ARG_SOURCES})
    set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/tests")
    target_link_libraries(${name} PRIVATE ${ARG_LINKS} GTest::gtest)
    if(NOT ARG_RANKS)
      target_link_libraries(${name} PRIVATE GTest::gtest_main)
    endif()
  endif()
  if(ARG_RANKS)
    add_test(NAME ${name} COMMAND ${STRAKE_MPIRUN} -n ${ARG_RANKS} $<TARGET_FILE:${name}> ${ARG_ARGUMENTS})
  else()
    add_test(NAME ${name} COMMAND ${name} ${ARG_ARGUMENTS})
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  set(cost 1000)  # ctest -j starts dear tests first: those labelled slow come last
  if("slow" IN_LIST ARG_LABELS)
    set(cost 1)
  endif()
  if(NOT ARG_RANKS)
    set(ARG_RANKS 1)
  endif()
  set_tests_properties(${name} PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS "${ARG_LABELS}" COST ${cost}
    PROCESSORS ${ARG_RANKS} ENVIRONMENT "${STRAKE_TEST_ENVIRONMENT};${ARG_ENVIRONMENT}")
endfunction()
