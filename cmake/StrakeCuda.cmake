# The CUDA backend. STRAKE_CUDA=ON requires the toolkit, AUTO takes it when nvcc is found, OFF leaves it out.
# Sets STRAKE_HAS_CUDA. With the toolkit but without a driver the program still starts and runs the CPU device.

set(STRAKE_HAS_CUDA OFF)
if(STRAKE_CUDA STREQUAL "OFF")
  return()
endif()

# strake_without_cuda(WHY): ends the build where CUDA is required, else goes on without it.
macro(strake_without_cuda why)
  if(STRAKE_CUDA STREQUAL "ON")
    message(FATAL_ERROR "STRAKE_CUDA=ON, but ${why}; install it, or set STRAKE_CUDA=OFF")
  endif()
  message(STATUS "Without CUDA: ${why}")
  return()
endmacro()

include(CheckLanguage)
# The toolkit's own installer leaves nvcc off the PATH.
find_program(STRAKE_NVCC nvcc HINTS ENV CUDACXX HINTS ENV CUDA_HOME PATHS /usr/local/cuda PATH_SUFFIXES bin)
if(STRAKE_NVCC AND NOT DEFINED ENV{CUDACXX})
  set(ENV{CUDACXX} "${STRAKE_NVCC}")
endif()
check_language(CUDA)  # compiles with it, so that one that does not work is none
if(NOT CMAKE_CUDA_COMPILER)
  strake_without_cuda("no nvcc works here (it is part of the CUDA toolkit)")
endif()

if(NOT CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 90-real)
endif()
enable_language(CUDA)
# CMake before 3.26 does not know how to ask nvcc for C++20 and drops the request in silence.
set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
find_package(CUDAToolkit 13.0)
find_library(STRAKE_NCCL_LIBRARY nccl HINTS ${CUDAToolkit_LIBRARY_DIR} /usr/lib/x86_64-linux-gnu)
find_library(STRAKE_CUDNN_LIBRARY cudnn HINTS ${CUDAToolkit_LIBRARY_DIR} /usr/lib/x86_64-linux-gnu)
if(NOT CUDAToolkit_FOUND OR NOT STRAKE_NCCL_LIBRARY OR NOT STRAKE_CUDNN_LIBRARY)
  strake_without_cuda("one of these was not found: the CUDA toolkit 13.0 or newer (found: ${CUDAToolkit_VERSION}), NCCL (${STRAKE_NCCL_LIBRARY}), cuDNN (${STRAKE_CUDNN_LIBRARY})")
endif()

# cuDNN's graph API in C++, header only, as a PyPI wheel: pinned by version and hash, unpacked into the build folder.
# STRAKE_CUDNN_FRONTEND points to an include folder to use instead.
set(STRAKE_CUDNN_FRONTEND "" CACHE PATH "Include folder of cudnn-frontend; empty: fetched from PyPI")
if(NOT STRAKE_CUDNN_FRONTEND)
  set(frontend_version 1.32.0)
  set(frontend_hash c6006556017a4d1c914c52a556c71b1267f2d6a0500f742e7b4edef539878df0)
  set(frontend_folder "${PROJECT_BINARY_DIR}/cudnn_frontend-${frontend_version}")
  if(NOT EXISTS "${frontend_folder}/include/cudnn_frontend.h")
    execute_process(
      COMMAND bash "${PROJECT_SOURCE_DIR}/cmake/fetch_wheel.sh" nvidia-cudnn-frontend "${frontend_version}"
              "${frontend_hash}" "${frontend_folder}"
      RESULT_VARIABLE fetched)
    if(NOT fetched EQUAL 0)
      strake_without_cuda("nvidia-cudnn-frontend ${frontend_version} could not be fetched from PyPI (python3 -m pip; or point STRAKE_CUDNN_FRONTEND to its include folder)")
    endif()
  endif()
  set(strake_cudnn_frontend_include "${frontend_folder}/include")
else()
  set(strake_cudnn_frontend_include "${STRAKE_CUDNN_FRONTEND}")
endif()

add_library(strake_cuda INTERFACE)
target_link_libraries(strake_cuda INTERFACE CUDA::cudart_static CUDA::cublasLt CUDA::nvrtc CUDA::nvtx3 ${STRAKE_CUDNN_LIBRARY} ${CMAKE_DL_LIBS})
target_compile_definitions(strake_cuda INTERFACE STRAKE_HAS_CUDA=1)
add_library(strake_nccl INTERFACE)
target_link_libraries(strake_nccl INTERFACE ${STRAKE_NCCL_LIBRARY})
add_library(strake_cudnn_frontend INTERFACE)
target_include_directories(strake_cudnn_frontend SYSTEM INTERFACE "${strake_cudnn_frontend_include}")
set(STRAKE_HAS_CUDA ON)
