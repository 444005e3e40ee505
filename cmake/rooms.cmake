# A room is a static library made of every source file in src/NAME.
#   einhorn_room(NAME [LINKS room...])     the rooms it may use
#   einhorn_program(NAME room...)          a program with its main() in src/programs/NAME.cpp

# For whoever works on it. Other compilers and flags than ours see other things, and are to build it too.
if(EINHORN_TESTS)
  set(EINHORN_WERROR -Werror)
endif()

add_library(einhorn_flags INTERFACE)
target_include_directories(einhorn_flags INTERFACE ${CMAKE_SOURCE_DIR}/src)
target_compile_options(einhorn_flags INTERFACE
  -Wall -Wextra -Wpedantic ${EINHORN_WERROR} -Wshadow -Wconversion -Wsign-conversion -Wold-style-cast
  -Wnon-virtual-dtor -Woverloaded-virtual -Wimplicit-fallthrough
  -Werror=switch -Wno-missing-field-initializers
  -fno-omit-frame-pointer -fstack-protector-strong
  -ffile-prefix-map=${CMAKE_SOURCE_DIR}/=)
target_compile_definitions(einhorn_flags INTERFACE
  EINHORN_VERSION="${PROJECT_VERSION}"
  $<$<CONFIG:Debug>:_GLIBCXX_ASSERTIONS>
  $<$<NOT:$<CONFIG:Debug>>:_FORTIFY_SOURCE=2>)
if(EINHORN_FUZZ)
  # Warnings are g++'s business: clang has others of the same names.
  target_compile_options(einhorn_flags INTERFACE -w -U_FORTIFY_SOURCE
    -fsanitize=fuzzer-no-link,address,undefined,float-cast-overflow -fno-sanitize-recover=all)
  target_link_options(einhorn_flags INTERFACE -fsanitize=address,undefined)
elseif(EINHORN_SANITIZE)
  target_compile_options(einhorn_flags INTERFACE
    -fsanitize=address,undefined -fno-sanitize-recover=all -U_FORTIFY_SOURCE
    -Wno-error)  # what the sanitizers make g++ suspect is no finding; the other builds refuse warnings
  target_link_options(einhorn_flags INTERFACE -fsanitize=address,undefined)
else()
  # One file to copy, and a small resident size: the C++ runtime goes into the programs.
  target_link_options(einhorn_flags INTERFACE
    -static-libstdc++ -static-libgcc -Wl,--as-needed -Wl,--gc-sections -Wl,-z,relro,-z,now)
  target_compile_options(einhorn_flags INTERFACE -ffunction-sections -fdata-sections)
endif()

function(einhorn_room name)
  cmake_parse_arguments(ROOM "" "" "LINKS" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/${name}/*.cpp)
  add_library(einhorn_${name} STATIC ${sources})
  target_link_libraries(einhorn_${name} PUBLIC einhorn_flags)
  foreach(room IN LISTS ROOM_LINKS)
    target_link_libraries(einhorn_${name} PUBLIC einhorn_${room})
  endforeach()
endfunction()

# g++ links libm whenever it links the C++ runtime, and one function of the runtime, which the
# programs do not use, names it. So they are linked as C, with the runtime's archive behind all else:
# a library less to load at every start, by each new master too. Where it is needed the link fails.
set(EINHORN_LINKS_AS_C OFF)
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU AND NOT EINHORN_SANITIZE)
  set(EINHORN_LINKS_AS_C ON)
  set(CMAKE_CXX_IMPLICIT_LINK_LIBRARIES "")
  set(CMAKE_C_STANDARD_LIBRARIES "-Wl,-Bstatic -lstdc++ -Wl,-Bdynamic")
  if(EINHORN_STATIC)
    set(CMAKE_C_STANDARD_LIBRARIES "-lstdc++ -lm")
  endif()
endif()

function(einhorn_program name)
  add_executable(${name} ${CMAKE_SOURCE_DIR}/src/programs/${name}.cpp)
  target_link_libraries(${name} PRIVATE einhorn_flags)
  if(EINHORN_STATIC)
    # Names of hosts and users still work: files and DNS are within this C library.
    target_link_options(${name} PRIVATE -static-pie)
  endif()
  if(EINHORN_LINKS_AS_C)
    set_target_properties(${name} PROPERTIES LINKER_LANGUAGE C)
  endif()
  foreach(room IN LISTS ARGN)
    target_link_libraries(${name} PRIVATE einhorn_${room})
  endforeach()
endfunction()
