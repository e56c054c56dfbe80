#!/usr/bin/env bash
# pack.sh BUILD FOLDER: copies the built programs, the scripts that run them, and the libraries that a GPU machine without
# packages lacks into FOLDER. Configure BUILD with -DSTRAKE_ONEDNN=OFF to leave a library of 40 MB out. There:
#   FOLDER/run PROGRAM ARGUMENTS...   starts a program with these libraries, and with the CUDA libraries of the Python wheels
#                                     before the system's, where there are any
#   FOLDER/trace FILE PROGRAM ...     the same for a program anywhere, whose kernels are written to FILE (gpu/kernel_table.py)
#   FOLDER/gpu/run.sh FOLDER [OUT]    runs every GPU test
set -euo pipefail
build=$1 out=$2
root=$(cd "$(dirname "$0")/../.." && pwd)
mkdir -p "$out/bin" "$out/lib" "$out/gpu" "$out/examples"
for program in "$build"/bin/strake "$build"/tests/cuda_*tests "$build"/bench/breakdown_bench; do
  [ -x "$program" ] || continue
  install -s "$program" "$out/bin/"
  # Only what such a machine lacks: it has MPI, HDF5, the C library and CUDA of its own.
  ldd "$program" | awk '$2 == "=>" && $3 ~ /^\// {print $3}' |
    { grep -E '/lib(dnnl|OpenCL|fmt|isal|tomlplusplus)\.so' || true; } |
    while read -r library; do cp -Lu "$library" "$out/lib/"; done
done
install "$root"/tests/gpu/*.sh "$root"/tests/gpu/*.py "$root"/tests/bench/overlap_bound.py "$out/gpu/"
install -m 644 "$root"/examples/*.toml "$out/examples/"
[ ! -e "$build/lib/libkernel_trace.so" ] || install -s "$build/lib/libkernel_trace.so" "$out/lib/"
cat > "$out/env" <<'ENVIRONMENT'
# Sourced; $pack is this folder.
wheels=$(python3 -c "import nvidia; print(list(nvidia.__path__)[0])" 2>/dev/null || true)
for library in cudnn nccl; do
  [ -n "$wheels" ] && [ -d "$wheels/$library/lib" ] && paths="$wheels/$library/lib:${paths:-}"
done
export LD_LIBRARY_PATH="${paths:-}$pack/lib:${LD_LIBRARY_PATH:-}"
ENVIRONMENT
cat > "$out/run" <<'RUN'
#!/usr/bin/env bash
pack=$(cd "$(dirname "$0")" && pwd)
. "$pack/env"
program=$1
shift
exec "$pack/bin/$program" "$@"
RUN
cat > "$out/trace" <<'TRACE'
#!/usr/bin/env bash
pack=$(cd "$(dirname "$0")" && pwd)
. "$pack/env"
for cupti in /usr/local/cuda/lib64 /usr/local/cuda/extras/CUPTI/lib64; do LD_LIBRARY_PATH="$LD_LIBRARY_PATH:$cupti"; done
export STRAKE_KERNEL_TRACE=$1 CUDA_INJECTION64_PATH="$pack/lib/libkernel_trace.so"
shift
exec "$@"
TRACE
chmod +x "$out/run" "$out/trace"
du -sh "$out"
