// A CUDA runtime without a device: it hands out addresses and counts bytes, so that PyTorch's
// allocator library runs anywhere. Only what the allocation path calls does something; record.py
// adds, for every other symbol the library wants, a function that stops the program.
#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <string_view>

namespace {

size_t total_bytes() {
  static const size_t total = [] {
    const char* text = getenv("FAKE_TOTAL_BYTES");
    return text ? strtoull(text, nullptr, 10) : size_t{80} << 30;
  }();
  return total;
}

constexpr size_t kAlign = size_t{2} << 20;
constexpr size_t kRangeGap = size_t{1} << 40;
size_t used_bytes = 0;
char* next_segment = reinterpret_cast<char*>(0x700000000000ull);
CUdeviceptr next_range = 0x100000000000ull;
CUmemGenericAllocationHandle next_handle = 1;
std::map<void*, size_t> segments;
std::map<CUmemGenericAllocationHandle, size_t> pages;

bool take(size_t num_bytes) {
  if (used_bytes + num_bytes > total_bytes()) return false;
  used_bytes += num_bytes;
  return true;
}

CUresult reserve_range(CUdeviceptr* address, size_t num_bytes, size_t, CUdeviceptr, unsigned long long) {
  *address = next_range;
  next_range += num_bytes + kRangeGap;
  return CUDA_SUCCESS;
}

CUresult create_page(CUmemGenericAllocationHandle* handle, size_t num_bytes, const CUmemAllocationProp*,
                     unsigned long long) {
  if (!take(num_bytes)) return CUDA_ERROR_OUT_OF_MEMORY;
  *handle = next_handle++;
  pages[*handle] = num_bytes;
  return CUDA_SUCCESS;
}

CUresult release_page(CUmemGenericAllocationHandle handle) {
  used_bytes -= pages[handle];
  pages.erase(handle);
  return CUDA_SUCCESS;
}

CUresult no_attribute(int* value, CUdevice_attribute, CUdevice) {
  *value = 0;
  return CUDA_SUCCESS;
}

CUresult nothing() { return CUDA_SUCCESS; }

}  // namespace

extern "C" {

cudaError_t cudaMalloc(void** address, size_t num_bytes) {
  if (!take(num_bytes)) return cudaErrorMemoryAllocation;
  *address = next_segment;
  segments[*address] = num_bytes;
  next_segment += (num_bytes + kAlign - 1) / kAlign * kAlign;
  return cudaSuccess;
}

cudaError_t cudaFree(void* address) {
  auto found = segments.find(address);
  if (found != segments.end()) {
    used_bytes -= found->second;
    segments.erase(found);
  }
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total) {
  *total = total_bytes();
  *free_bytes = *total - used_bytes;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  memset(properties, 0, sizeof *properties);
  properties->totalGlobalMem = total_bytes();
  properties->major = 9;
  return cudaSuccess;
}

cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** function, unsigned int, unsigned long long,
                                             cudaDriverEntryPointQueryResult* status) {
  static const std::map<std::string_view, void*> functions = {
      {"cuMemAddressReserve", reinterpret_cast<void*>(reserve_range)},
      {"cuMemCreate", reinterpret_cast<void*>(create_page)},
      {"cuMemRelease", reinterpret_cast<void*>(release_page)},
      {"cuDeviceGetAttribute", reinterpret_cast<void*>(no_attribute)},
  };
  if (status) *status = cudaDriverEntryPointSuccess;
  auto found = functions.find(name);
  *function = found == functions.end() ? reinterpret_cast<void*>(nothing) : found->second;
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus* status) {
  *status = cudaStreamCaptureStatusNone;
  return cudaSuccess;
}

cudaError_t cudaStreamGetCaptureInfo(cudaStream_t, cudaStreamCaptureStatus* status, unsigned long long*, cudaGraph_t*,
                                     const cudaGraphNode_t**, const cudaGraphEdgeData**, size_t*) {
  *status = cudaStreamCaptureStatusNone;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  *least = *greatest = 0;
  return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int) { return cudaSuccess; }
cudaError_t cudaGetLastError() { return cudaSuccess; }
const char* cudaGetErrorString(cudaError_t) { return "fake"; }
const char* cudaGetErrorName(cudaError_t) { return "fake"; }
cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamQuery(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode*) { return cudaSuccess; }

}  // extern "C"
