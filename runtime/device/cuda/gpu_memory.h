// What this process takes of a GPU's memory, as the driver accounts for it: allocations, the context, what libraries
// keep.
//
// The driver lists the processes on a GPU with what each takes. Where this one cannot be found there (a container has
// process numbers of its own), what the GPU's used memory has grown by since before this process touched it stands for
// it: right as long as nobody else takes or returns memory of that GPU meanwhile.
// Threads: any. Errors: none; what the driver does not tell is absent.
#pragma once

#include <cstddef>
#include <optional>

namespace strake::cuda {

// Before the process makes a context on the GPU; later calls for the same GPU do nothing.
void note_gpu_memory_before_use(int ordinal);
// Other processes of this job take memory of the GPU too: then only the driver's list tells, if this one is on it.
void note_gpu_is_shared(int ordinal);
std::optional<std::size_t> gpu_memory_of_this_process(int ordinal);

}  // namespace strake::cuda
