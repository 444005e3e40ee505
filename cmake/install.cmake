# `cmake --install BUILD [--prefix DIR]`: programs, man pages, completions, documents, examples.
include(GNUInstallDirs)

foreach(program einhorn einhornsh einhorn-agent)
  if(TARGET ${program})
    install(TARGETS ${program} DESTINATION ${CMAKE_INSTALL_BINDIR})
  endif()
endforeach()
if(TARGET einhorn-intercept)  # looked for beside the program's directory
  install(TARGETS einhorn-intercept DESTINATION ${CMAKE_INSTALL_BINDIR}/../lib/einhorn)
endif()

foreach(section 1 5 7)
  file(GLOB pages CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/docs/man/*.${section})
  install(FILES ${pages} DESTINATION ${CMAKE_INSTALL_MANDIR}/man${section})
endforeach()
install(FILES README.md CHANGELOG.md LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY docs DESTINATION ${CMAKE_INSTALL_DOCDIR} PATTERN man EXCLUDE)
install(DIRECTORY examples DESTINATION ${CMAKE_INSTALL_DOCDIR} USE_SOURCE_PERMISSIONS)

# Made of what the programs say about themselves, so they have to run here.
find_program(EINHORN_PYTHON python3)
if(EINHORN_PYTHON AND NOT CMAKE_CROSSCOMPILING)
  install(CODE "
    execute_process(
      COMMAND ${EINHORN_PYTHON} -B ${CMAKE_SOURCE_DIR}/scripts/completions.py
        ${CMAKE_RUNTIME_OUTPUT_DIRECTORY} ${CMAKE_BINARY_DIR}/completions
      COMMAND_ERROR_IS_FATAL ANY)")
  install(DIRECTORY ${CMAKE_BINARY_DIR}/completions/bash/
    DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
  install(DIRECTORY ${CMAKE_BINARY_DIR}/completions/zsh/
    DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions)
  install(DIRECTORY ${CMAKE_BINARY_DIR}/completions/fish/
    DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)
endif()
