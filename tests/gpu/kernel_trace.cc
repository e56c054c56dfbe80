// kernel_trace: a library that CUDA loads into any program (ours, a PyTorch peer) and that writes down when each
// kernel, copy and memset ran on the GPU.
//
//   CUDA_INJECTION64_PATH=.../libkernel_trace.so STRAKE_KERNEL_TRACE=trace.csv PROGRAM ARGUMENTS...
//
// `%p` in the name becomes the process's number. The file is CSV with a header, a line an activity, in the order in
// which CUPTI delivers them (not that of time). Its last line, of kind "end", holds how many lines there are (bytes)
// and how many CUPTI has lost (start_ns): without that line the file is not whole. tests/gpu/kernel_table.py reads it.
//
// Activities are collected into large buffers and written by CUPTI's own thread, every half second and at the end, so
// the traced program waits for nothing. Threads: CUPTI's callbacks come from several; a mutex guards the file. Errors:
// said on standard error; the program goes on untraced.

#include <cupti.h>
#include <cxxabi.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <regex>
#include <string>
#include <string_view>
#include <unordered_map>

namespace {

constexpr std::size_t kBufferBytes = std::size_t{8} << 20;
constexpr std::size_t kBufferAlignment = 8;  // as CUPTI asks
constexpr std::uint32_t kFlushPeriodMs = 500;

bool worked(CUptiResult result, const char* call) {
  if (result == CUPTI_SUCCESS) return true;
  const char* text = nullptr;
  cuptiGetResultString(result, &text);
  std::fprintf(stderr, "kernel_trace: %s: %s\n", call, text == nullptr ? "unknown error" : text);
  return false;
}

std::string file_name() {
  const char* asked = std::getenv("STRAKE_KERNEL_TRACE");
  std::string name = asked != nullptr && *asked != '\0' ? asked : "kernel_trace.csv";
  if (const std::size_t at = name.find("%p"); at != std::string::npos) name.replace(at, 2, std::to_string(getpid()));
  return name;
}

// "layer_norm.cu" from a name that nvcc gave to what lies in an unnamed namespace; empty: there is none.
std::string file_in(const std::string& mangled) {
  static const std::regex pattern("_GLOBAL__N__[0-9a-f]+_[0-9]+_([A-Za-z0-9_]+)_(cuh?)_[0-9a-f]+");
  std::smatch found;
  return std::regex_search(mangled, found, pattern) ? found.str(1) + "." + found.str(2) : "";
}

// As people read it, with the file in place of its unnamed namespace: several have a kernel of one name.
std::string plain_name(const char* mangled) {
  if (mangled == nullptr) return "?";
  int status = 0;
  const std::unique_ptr<char, decltype(&std::free)> plain(abi::__cxa_demangle(mangled, nullptr, nullptr, &status),
                                                          std::free);
  std::string name = plain != nullptr ? plain.get() : mangled;
  constexpr std::string_view kUnnamed = "(anonymous namespace)";
  const std::string file = file_in(mangled);
  const std::size_t at = name.find(kUnnamed);
  if (!file.empty() && at != std::string::npos) name.replace(at, kUnnamed.size(), file);
  return name;
}

// As a field of a CSV file.
std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"') out += '"';
    out += c;
  }
  return out + '"';
}

const char* name_of_copy(std::uint8_t kind) {
  switch (kind) {
    case CUPTI_ACTIVITY_MEMCPY_KIND_HTOD:
      return "memcpy HtoD";
    case CUPTI_ACTIVITY_MEMCPY_KIND_DTOH:
      return "memcpy DtoH";
    case CUPTI_ACTIVITY_MEMCPY_KIND_DTOD:
      return "memcpy DtoD";
    case CUPTI_ACTIVITY_MEMCPY_KIND_HTOH:
      return "memcpy HtoH";
    case CUPTI_ACTIVITY_MEMCPY_KIND_PTOP:
      return "memcpy PtoP";
    default:
      return "memcpy";
  }
}

// The file. Never destroyed: CUPTI's thread may still come while the process ends.
class Trace {
 public:
  // From a buffer of CUPTI's.
  void add(CUcontext context, std::uint32_t stream, std::uint8_t* buffer, std::size_t size) {
    const std::lock_guard lock(mutex_);
    if (!open()) return;
    CUpti_Activity* record = nullptr;
    while (cuptiActivityGetNextRecord(buffer, size, &record) == CUPTI_SUCCESS) add(*record);
    std::size_t lost = 0;
    if (cuptiActivityGetNumDroppedRecords(context, stream, &lost) == CUPTI_SUCCESS) lost_ += lost;
  }

  void finish() {
    const std::lock_guard lock(mutex_);
    if (finished_ || !open()) return;
    finished_ = true;
    std::fprintf(file_, "end,%llu,0,0,0,,,%llu,\n", static_cast<unsigned long long>(lost_),
                 static_cast<unsigned long long>(lines_));
    const bool written = std::ferror(file_) == 0;
    if (std::fclose(file_) != 0 || !written) {
      std::fprintf(stderr, "kernel_trace: %s: %s\n", name_.c_str(), std::strerror(errno));
    }
    file_ = nullptr;
    if (lost_ > 0) {
      std::fprintf(stderr, "kernel_trace: %llu activities were lost\n", static_cast<unsigned long long>(lost_));
    }
  }

 private:
  bool open() {
    if (finished_ || failed_) return false;
    if (file_ != nullptr) return true;
    name_ = file_name();
    file_ = std::fopen(name_.c_str(), "w");
    if (file_ == nullptr) {
      failed_ = true;
      std::fprintf(stderr, "kernel_trace: %s: %s\n", name_.c_str(), std::strerror(errno));
      return false;
    }
    std::fputs("kind,start_ns,end_ns,device,stream,grid,block,bytes,name\n", file_);
    return true;
  }

  void add(const CUpti_Activity& record) {
    switch (record.kind) {
      case CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL:
      case CUPTI_ACTIVITY_KIND_KERNEL: {
        const auto& kernel = reinterpret_cast<const CUpti_ActivityKernel10&>(record);
        line("kernel", kernel.start, kernel.end, kernel.deviceId, kernel.streamId);
        std::fprintf(file_, "%dx%dx%d,%dx%dx%d,,%s\n", kernel.gridX, kernel.gridY, kernel.gridZ, kernel.blockX,
                     kernel.blockY, kernel.blockZ, name_of_kernel(kernel.name).c_str());
        break;
      }
      case CUPTI_ACTIVITY_KIND_MEMCPY: {
        const auto& copy = reinterpret_cast<const CUpti_ActivityMemcpy6&>(record);
        line("memcpy", copy.start, copy.end, copy.deviceId, copy.streamId);
        std::fprintf(file_, ",,%llu,%s\n", static_cast<unsigned long long>(copy.bytes), name_of_copy(copy.copyKind));
        break;
      }
      case CUPTI_ACTIVITY_KIND_MEMCPY2: {
        const auto& copy = reinterpret_cast<const CUpti_ActivityMemcpyPtoP4&>(record);
        line("memcpy", copy.start, copy.end, copy.deviceId, copy.streamId);
        std::fprintf(file_, ",,%llu,%s\n", static_cast<unsigned long long>(copy.bytes), "memcpy PtoP");
        break;
      }
      case CUPTI_ACTIVITY_KIND_MEMSET: {
        const auto& memset = reinterpret_cast<const CUpti_ActivityMemset4&>(record);
        line("memset", memset.start, memset.end, memset.deviceId, memset.streamId);
        std::fprintf(file_, ",,%llu,%s\n", static_cast<unsigned long long>(memset.bytes), "memset");
        break;
      }
      default:
        break;
    }
  }
  void line(const char* kind, std::uint64_t start, std::uint64_t end, std::uint32_t device, std::uint32_t stream) {
    ++lines_;
    std::fprintf(file_, "%s,%llu,%llu,%u,%u,", kind, static_cast<unsigned long long>(start),
                 static_cast<unsigned long long>(end), device, stream);
  }

  // Few names come often, and CUPTI keeps each at one place.
  const std::string& name_of_kernel(const char* mangled) {
    const auto [place, is_new] = names_.emplace(mangled, "");
    if (is_new) place->second = quoted(plain_name(mangled));
    return place->second;
  }

  std::mutex mutex_;
  std::FILE* file_ = nullptr;
  std::string name_;
  bool finished_ = false, failed_ = false;
  std::uint64_t lines_ = 0, lost_ = 0;
  std::unordered_map<const char*, std::string> names_;
};

Trace& trace() {
  static auto* const the_trace = new Trace();
  return *the_trace;
}

void CUPTIAPI buffer_requested(std::uint8_t** buffer, std::size_t* size, std::size_t* most_records) {
  *buffer = static_cast<std::uint8_t*>(std::aligned_alloc(kBufferAlignment, kBufferBytes));
  *size = *buffer == nullptr ? 0 : kBufferBytes;  // then CUPTI counts what is lost
  *most_records = 0;                              // as many as fit
}

void CUPTIAPI buffer_completed(CUcontext context, std::uint32_t stream, std::uint8_t* buffer, std::size_t,
                               std::size_t valid_bytes) {
  if (valid_bytes > 0) trace().add(context, stream, buffer, valid_bytes);
  std::free(buffer);
}

void finish_trace() {
  worked(cuptiActivityFlushAll(CUPTI_ACTIVITY_FLAG_FLUSH_FORCED), "cuptiActivityFlushAll");
  trace().finish();
}

}  // namespace

// What CUDA calls when it is initialized.
extern "C" __attribute__((visibility("default"))) int InitializeInjection() {
  trace();
  if (!worked(cuptiActivityRegisterCallbacks(buffer_requested, buffer_completed), "cuptiActivityRegisterCallbacks")) {
    return 1;
  }
  for (const CUpti_ActivityKind kind : {CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL, CUPTI_ACTIVITY_KIND_MEMCPY,
                                        CUPTI_ACTIVITY_KIND_MEMCPY2, CUPTI_ACTIVITY_KIND_MEMSET}) {
    if (!worked(cuptiActivityEnable(kind), "cuptiActivityEnable")) return 1;
  }
  worked(cuptiActivityFlushPeriod(kFlushPeriodMs), "cuptiActivityFlushPeriod");
  std::atexit(finish_trace);
  return 1;
}
