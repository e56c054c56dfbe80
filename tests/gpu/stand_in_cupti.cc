// A stand-in for CUPTI without a GPU (LD_PRELOAD): some activities are delivered while the program runs, the rest only
// when it asks for them at its end. STRAKE_STAND_IN_LOST: that many are said to be lost.
#include <cupti.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <set>
#include <thread>

namespace {

CUpti_BuffersCallbackRequestFunc request = nullptr;
CUpti_BuffersCallbackCompleteFunc complete = nullptr;
std::set<CUpti_ActivityKind> enabled;

constexpr const char* kNorm =
    "_ZN6strake7kernels46_GLOBAL__N__f8141f5d_13_layer_norm_cu_ae599a1714forward_kernelI13__nv_bfloat16Li16ELb0EEEvPT_"
    "PfS6_S5_PKS4_S8_S8_S8_lif";

template <typename Record>
std::size_t put(std::uint8_t* to, const Record& record) {
  std::memcpy(to, &record, sizeof record);
  return sizeof record;
}

CUpti_ActivityKernel10 kernel(const char* name, std::uint64_t start) {
  CUpti_ActivityKernel10 out{};
  out.kind = CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL;
  out.start = start;
  out.end = start + 50;
  out.streamId = 7;
  out.gridX = 132;
  out.gridY = out.gridZ = out.blockY = out.blockZ = 1;
  out.blockX = 256;
  out.name = name;
  return out;
}

// What a buffer holds, by number.
std::size_t fill(std::uint8_t* buffer, int number) {
  if (number == 0) {
    CUpti_ActivityMemset4 memset{};
    memset.kind = CUPTI_ACTIVITY_KIND_MEMSET;
    memset.start = 100, memset.end = 101, memset.streamId = 7, memset.bytes = 4;
    return put(buffer, memset);
  }
  CUpti_ActivityMemcpy6 copy{};
  copy.kind = CUPTI_ACTIVITY_KIND_MEMCPY;
  copy.copyKind = CUPTI_ACTIVITY_MEMCPY_KIND_HTOD;
  copy.start = 300, copy.end = 400, copy.streamId = 13, copy.bytes = 1 << 20;
  std::size_t size = put(buffer, kernel(kNorm, 200));
  size += put(buffer + size, copy);
  size += put(buffer + size, kernel("plain \"C\" name, with a comma", 500));
  return size + put(buffer + size, kernel(nullptr, 600));
}

void deliver(int number) {
  std::uint8_t* buffer = nullptr;
  std::size_t size = 0, most = 0;
  request(&buffer, &size, &most);
  complete(nullptr, 0, buffer, size, fill(buffer, number));
}

}  // namespace

extern "C" {

CUptiResult cuptiGetResultString(CUptiResult, const char** text) {
  *text = "stand-in";
  return CUPTI_SUCCESS;
}
CUptiResult cuptiActivityRegisterCallbacks(CUpti_BuffersCallbackRequestFunc requested,
                                           CUpti_BuffersCallbackCompleteFunc completed) {
  request = requested;
  complete = completed;
  return CUPTI_SUCCESS;
}
CUptiResult cuptiActivityEnable(CUpti_ActivityKind kind) {
  enabled.insert(kind);
  return CUPTI_SUCCESS;
}
CUptiResult cuptiActivityFlushPeriod(std::uint32_t) {
  const bool all = enabled.contains(CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) &&
                   enabled.contains(CUPTI_ACTIVITY_KIND_MEMCPY) && enabled.contains(CUPTI_ACTIVITY_KIND_MEMSET);
  if (all) std::thread(deliver, 0).join();
  return all ? CUPTI_SUCCESS : CUPTI_ERROR_UNKNOWN;
}
CUptiResult cuptiActivityFlushAll(std::uint32_t flag) {
  if (flag == CUPTI_ACTIVITY_FLAG_FLUSH_FORCED) std::thread(deliver, 1).join();
  return CUPTI_SUCCESS;
}
CUptiResult cuptiActivityGetNextRecord(std::uint8_t* buffer, std::size_t size, CUpti_Activity** record) {
  std::uint8_t* next = buffer;
  if (*record != nullptr) {
    next = reinterpret_cast<std::uint8_t*>(*record);
    switch ((*record)->kind) {
      case CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL:
        next += sizeof(CUpti_ActivityKernel10);
        break;
      case CUPTI_ACTIVITY_KIND_MEMCPY:
        next += sizeof(CUpti_ActivityMemcpy6);
        break;
      default:
        next += sizeof(CUpti_ActivityMemset4);
        break;
    }
  }
  if (next >= buffer + size) return CUPTI_ERROR_MAX_LIMIT_REACHED;
  *record = reinterpret_cast<CUpti_Activity*>(next);
  return CUPTI_SUCCESS;
}
CUptiResult cuptiActivityGetNumDroppedRecords(CUcontext, std::uint32_t, std::size_t* lost) {
  const char* text = std::getenv("STRAKE_STAND_IN_LOST");
  *lost = text == nullptr ? 0 : std::strtoull(text, nullptr, 10);
  return CUPTI_SUCCESS;
}

}  // extern "C"
