# The loaders of --preload. Einhorn looks for them from its own program's directory, in a build tree
# as when installed: einhorn-preload beside it, the scripts in ../share/einhorn/preload and what
# Ruby's finds as einhorn/worker in ../share/einhorn/ruby.
include(GNUInstallDirs)

add_executable(einhorn-preload ${CMAKE_SOURCE_DIR}/preload/einhorn_preload.c)
target_compile_options(einhorn-preload PRIVATE -Wall -Wextra ${EINHORN_WERROR} -Wshadow -fstack-protector-strong
  -ffile-prefix-map=${CMAKE_SOURCE_DIR}/=)
target_link_libraries(einhorn-preload PRIVATE ${CMAKE_DL_LIBS})
# Whatever the library needs of the program's C library is looked up there.
set_target_properties(einhorn-preload PROPERTIES ENABLE_EXPORTS ON)

set(EINHORN_LOADERS preload.py preload.rb preload.pl preload.php)
foreach(loader IN LISTS EINHORN_LOADERS)
  configure_file(${CMAKE_SOURCE_DIR}/preload/${loader}
                 ${CMAKE_BINARY_DIR}/share/einhorn/preload/${loader} COPYONLY)
  install(FILES ${CMAKE_SOURCE_DIR}/preload/${loader}
          DESTINATION ${CMAKE_INSTALL_BINDIR}/../share/einhorn/preload)
endforeach()
foreach(file client.rb worker.rb)
  configure_file(${CMAKE_SOURCE_DIR}/sdk/ruby/lib/einhorn/${file}
                 ${CMAKE_BINARY_DIR}/share/einhorn/ruby/einhorn/${file} COPYONLY)
  install(FILES ${CMAKE_SOURCE_DIR}/sdk/ruby/lib/einhorn/${file}
          DESTINATION ${CMAKE_INSTALL_BINDIR}/../share/einhorn/ruby/einhorn)
endforeach()
install(TARGETS einhorn-preload DESTINATION ${CMAKE_INSTALL_BINDIR})
install(FILES ${CMAKE_SOURCE_DIR}/preload/einhorn/preload.h
        DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/einhorn)
