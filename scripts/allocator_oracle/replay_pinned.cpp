// Replays a trace from standard input through PyTorch's caching host allocator, which is a template
// in ATen/core/CachingHostAllocator.h; the events of its CUDA subclass are left out.
//   a ID BYTES    pin      d ID    free      e    empty the cache
// After each line: bytes in use, bytes locked.
#include <ATen/core/CachingHostAllocator.h>

#include <cstdio>
#include <cstdlib>
#include <unordered_map>

struct Allocator : at::CachingHostAllocatorImpl<c10::Stream, int> {
  void allocate_host_memory(size_t num_bytes, void** address) override {
    static char* next = reinterpret_cast<char*>(0x700000000000ull);
    *address = next;
    next += num_bytes;
  }
  void free_block(at::HostBlock<c10::Stream>*) override {}
  bool query_event(int&) override { return true; }
};

int main() {
  Allocator allocator;
  std::unordered_map<long, void*> live;
  char op;
  long id;
  while (scanf(" %c", &op) == 1) {
    if (op == 'a') {
      size_t num_bytes;
      if (scanf("%ld %zu", &id, &num_bytes) != 2) return 2;
      live[id] = allocator.allocate(num_bytes).second;
    } else if (op == 'd') {
      if (scanf("%ld", &id) != 1) return 2;
      allocator.free(live[id]);
    } else {
      allocator.empty_cache();
    }
    auto stats = allocator.getStats();
    printf("%ld %ld\n", stats.active_bytes.current, stats.allocated_bytes.current);
  }
}
