# What every folder's CMakeLists.txt is written in: one static library per folder, its tests in one binary beside it.
include(GoogleTest)

add_library(conclave_options INTERFACE)
target_include_directories(conclave_options INTERFACE ${CMAKE_SOURCE_DIR}/src ${CMAKE_SOURCE_DIR})
target_compile_options(conclave_options INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wnon-virtual-dtor -Woverloaded-virtual -Wimplicit-fallthrough
  # Designated initialisers leave fields at their defaults on purpose.
  -Wno-missing-field-initializers
  # Part of -Wconversion for clang, not for g++; the strong types guard the signs that matter.
  -Wno-sign-conversion
  -fno-omit-frame-pointer -fstack-protector-strong)
target_compile_definitions(conclave_options INTERFACE _GLIBCXX_ASSERTIONS)
if(CONCLAVE_WARNINGS_AS_ERRORS)
  target_compile_options(conclave_options INTERFACE -Werror)
endif()
if(CONCLAVE_SANITIZE)
  target_compile_options(conclave_options INTERFACE -fsanitize=${CONCLAVE_SANITIZE} -fno-sanitize-recover=all)
  target_link_options(conclave_options INTERFACE -fsanitize=${CONCLAVE_SANITIZE})
endif()

# conclave_library(NAME SOURCES a.cc ... DEPENDS conclave_base ...)
function(conclave_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPENDS" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  target_link_libraries(${name} PUBLIC conclave_options ${ARG_DEPENDS})
endfunction()

# conclave_test(NAME SOURCES a_test.cc ... DEPENDS ... [TIMEOUT seconds] [LABELS l] [WORKING_DIRECTORY d])
# One GoogleTest binary; ctest sees each of its tests.
function(conclave_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT;WORKING_DIRECTORY" "SOURCES;DEPENDS;LABELS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  if(NOT ARG_WORKING_DIRECTORY)
    set(ARG_WORKING_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR})
  endif()
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE ${ARG_DEPENDS} GTest::gtest GTest::gtest_main)
  gtest_discover_tests(${name} DISCOVERY_MODE PRE_TEST WORKING_DIRECTORY ${ARG_WORKING_DIRECTORY}
    TEST_PREFIX "${name}." PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS "${ARG_LABELS}")
endfunction()

# conclave_binary(NAME SOURCES ... DEPENDS ...): an executable directly in build/<preset>/.
function(conclave_binary name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPENDS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE conclave_options ${ARG_DEPENDS})
endfunction()

# conclave_fuzz(NAME SOURCES ... DEPENDS ...): with CONCLAVE_FUZZ a libFuzzer target; otherwise the same code replays the
# corpus (fuzz/corpus/NAME) as a test of the one build.
function(conclave_fuzz name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPENDS" ${ARGN})
  if(CONCLAVE_FUZZ)
    add_executable(${name} ${ARG_SOURCES})
    target_link_libraries(${name} PRIVATE conclave_options ${ARG_DEPENDS} -fsanitize=fuzzer)
    if(NOT TARGET fuzzers)
      add_custom_target(fuzzers)
    endif()
    add_dependencies(fuzzers ${name})
  else()
    add_executable(${name} ${ARG_SOURCES} ${CMAKE_SOURCE_DIR}/fuzz/replay_main.cc)
    target_link_libraries(${name} PRIVATE conclave_options ${ARG_DEPENDS})
    add_test(NAME ${name}.corpus COMMAND ${name} ${CMAKE_SOURCE_DIR}/fuzz/corpus/${name})
  endif()
endfunction()
