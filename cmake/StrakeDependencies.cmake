# Packages from the system (launch/install-packages installs them). Versions are what Debian 12 and
# Ubuntu 24.04 ship or newer.

find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)

set(MPI_CXX_SKIP_MPICXX ON)
find_package(MPI REQUIRED COMPONENTS C)
add_library(strake_mpi INTERFACE)
target_link_libraries(strake_mpi INTERFACE MPI::MPI_C)
target_compile_definitions(strake_mpi INTERFACE OMPI_SKIP_MPICXX MPICH_SKIP_MPICXX)

find_package(fmt REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(CLI11 REQUIRED)
find_package(Boost 1.74 REQUIRED)  # headers only
pkg_check_modules(TOMLPP REQUIRED IMPORTED_TARGET tomlplusplus)
pkg_check_modules(ISAL REQUIRED IMPORTED_TARGET libisal)

# Serial HDF5 only (docs/architecture.md, "Checkpoints").
pkg_check_modules(HDF5 IMPORTED_TARGET hdf5-serial)
if(TARGET PkgConfig::HDF5)
  add_library(strake_hdf5 INTERFACE)
  target_link_libraries(strake_hdf5 INTERFACE PkgConfig::HDF5)
else()
  find_package(HDF5 REQUIRED COMPONENTS C)
  add_library(strake_hdf5 INTERFACE)
  target_link_libraries(strake_hdf5 INTERFACE ${HDF5_C_LIBRARIES})
  target_include_directories(strake_hdf5 INTERFACE ${HDF5_C_INCLUDE_DIRS})
endif()

if(STRAKE_ONEDNN)
  find_package(dnnl REQUIRED)
endif()

# How tests start several ranks on one machine, also as root and with more ranks than cores.
find_program(STRAKE_MPIRUN_PROGRAM mpirun REQUIRED)
set(STRAKE_MPIRUN ${STRAKE_MPIRUN_PROGRAM} --bind-to none --oversubscribe)
set(STRAKE_TEST_ENVIRONMENT
  "OMPI_ALLOW_RUN_AS_ROOT=1;OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1;OMPI_MCA_mpi_yield_when_idle=1;OMPI_MCA_plm_rsh_agent=/bin/true;OMP_NUM_THREADS=1")
if(STRAKE_SANITIZE STREQUAL "thread")
  # Open MPI is not built for ThreadSanitizer. Not for other tests: this hides races through memcpy.
  list(APPEND STRAKE_MPIRUN -x TSAN_OPTIONS=ignore_noninstrumented_modules=1)
elseif(STRAKE_SANITIZE)
  # Its functions keep no frame pointers: only slow unwinding sees that a leak is its. Not for other tests, which it makes take
  # four times as long.
  list(APPEND STRAKE_MPIRUN -x ASAN_OPTIONS=fast_unwind_on_malloc=0)
  list(APPEND STRAKE_TEST_ENVIRONMENT
    "LSAN_OPTIONS=suppressions=${PROJECT_SOURCE_DIR}/cmake/open_mpi.lsan:print_suppressions=0")
endif()

if(STRAKE_TESTS)
  find_package(GTest REQUIRED)
endif()
