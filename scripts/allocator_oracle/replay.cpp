// Replays a trace from standard input through libc10_cuda.so's own caching allocator.
//   a ID BYTES STREAM   allocate      d ID        free
//   f FRACTION          set_per_process_memory_fraction      e   empty_cache
// After each line: status allocated reserved active inactive_split largest_free_block retries ooms.
// At the end, one line per segment: S address size is_large is_expandable stream, then its blocks
// as size:allocated:requested.
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/PeerToPeerAccess.h>

#include <cstdio>
#include <unordered_map>

int main() {
  auto* allocator = c10::cuda::CUDACachingAllocator::get();
  allocator->init(1);
  c10::cuda::detail::init_p2p_access_cache(1);
  std::unordered_map<long, void*> live;
  char op;
  while (scanf(" %c", &op) == 1) {
    const char* status = "ok";
    long id;
    if (op == 'a') {
      size_t num_bytes;
      unsigned long stream;
      if (scanf("%ld %zu %lu", &id, &num_bytes, &stream) != 3) return 2;
      try {
        live[id] = allocator->raw_alloc_with_stream(num_bytes, reinterpret_cast<cudaStream_t>(stream));
      } catch (const c10::OutOfMemoryError&) {
        status = "oom";
      }
    } else if (op == 'd') {
      if (scanf("%ld", &id) != 1) return 2;
      auto found = live.find(id);
      if (found == live.end()) {
        status = "absent";
      } else {
        allocator->raw_delete(found->second);
        live.erase(found);
      }
    } else if (op == 'e') {
      allocator->emptyCache();
    } else if (op == 'f') {
      double fraction;
      if (scanf("%lf", &fraction) != 1) return 2;
      allocator->setMemoryFraction(fraction, 0);
    } else {
      return 2;
    }
    auto stats = allocator->getDeviceStats(0);
    size_t largest = 1;  // from 0 it would start at the device's free memory
    allocator->cacheInfo(0, &largest);
    printf("%s %ld %ld %ld %ld %zu %ld %ld\n", status, stats.allocated_bytes[0].current, stats.reserved_bytes[0].current,
           stats.active_bytes[0].current, stats.inactive_split_bytes[0].current, largest == 1 ? 0 : largest,
           stats.num_alloc_retries, stats.num_ooms);
  }
  for (const auto& segment : allocator->snapshot().segments) {
    printf("S %zu %zu %d %d %lu", segment.address, segment.total_size, segment.is_large, segment.is_expandable,
           reinterpret_cast<unsigned long>(segment.stream));
    for (const auto& block : segment.blocks) printf(" %zu:%d:%zu", block.size, block.allocated, block.allocated ? block.requested_size : 0);
    printf("\n");
  }
}
