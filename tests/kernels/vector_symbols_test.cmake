# Objects of the vector code must define nothing that another object could share (kernels/cpu/vector/lanes.h): the
# linker keeps one copy of a weak symbol, and it could be one for a CPU that this one is not.
# cmake -DNM=... -DOBJECTS=a.o;b.o -P vector_symbols_test.cmake
foreach(object ${OBJECTS})
  execute_process(COMMAND ${NM} -C --defined-only ${object} OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX MATCHALL "[^\n]* [uVW] [^\n]*" weak "${symbols}")
  foreach(symbol ${weak})
    if(NOT symbol MATCHES "strake::kernels::cpu::(avx2|avx512)::")
      message(SEND_ERROR "${object} shares a symbol with other objects: ${symbol}")
    endif()
  endforeach()
endforeach()
