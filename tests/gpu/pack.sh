#!/usr/bin/env bash
# pack.sh BUILD FOLDER: copies the built programs and the libraries that a GPU machine without packages lacks into FOLDER.
# There: `FOLDER/run PROGRAM ARGUMENTS...` starts them with these libraries, and with the CUDA libraries of the Python wheels
# before the system's, where there are any.
set -euo pipefail
build=$1 out=$2
mkdir -p "$out/bin" "$out/lib"
programs=("$build/bin/strake")
[ -x "$build/tests/cuda_tests" ] && programs+=("$build/tests/cuda_tests")
for program in "${programs[@]}"; do
  install -s "$program" "$out/bin/"
  # Only what such a machine lacks: it has MPI, HDF5, the C library and CUDA of its own.
  ldd "$program" | awk '$2 == "=>" && $3 ~ /^\// {print $3}' |
    { grep -E '/lib(dnnl|OpenCL|fmt|isal|tomlplusplus)\.so' || true; } |
    while read -r library; do cp -Lu "$library" "$out/lib/"; done
done
cat > "$out/run" <<'RUN'
#!/usr/bin/env bash
here=$(cd "$(dirname "$0")" && pwd)
wheels=$(python3 -c "import nvidia; print(list(nvidia.__path__)[0])" 2>/dev/null || true)
for library in cudnn nccl; do
  [ -n "$wheels" ] && [ -d "$wheels/$library/lib" ] && paths="$wheels/$library/lib:${paths:-}"
done
export LD_LIBRARY_PATH="${paths:-}$here/lib:${LD_LIBRARY_PATH:-}"
program=$1
shift
exec "$here/bin/$program" "$@"
RUN
chmod +x "$out/run"
du -sh "$out"
