/* A CUDA driver of one device, as far as edgeproof asks it, and cuda-bindings and PyCUDA for it: memory is the host's,
   streams do nothing. FAKE_DEVICES is how many devices it knows, FAKE_SM their compute capability (87 for 8.7), FAKE_INIT
   what cuInit returns, FAKE_CONTEXT what making a context does, FAKE_MEMORY how many bytes there are. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int R;
enum { VERSION = 12060, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_CONTEXT = 201, NOT_FOUND = 500, MOST = 64 };
static __thread void *current[64];
static __thread int depth;
static struct { void *memory; size_t size; int mapped; } held[MOST];

static int number(const char *name, int otherwise) { const char *s = getenv(name); return s ? atoi(s) : otherwise; }

static R take(void **memory, size_t size, int mapped) {
  size_t used = 0;
  int place = -1;
  if (!depth) return NO_CONTEXT;
  if (!size) return INVALID_VALUE;
  for (int i = 0; i < MOST; i++) held[i].memory ? used += held[i].size : (place = i);
  if (place < 0 || used + size > (size_t)number("FAKE_MEMORY", 1 << 28)) return OUT_OF_MEMORY;
  if (posix_memalign(memory, 256, size)) return OUT_OF_MEMORY;
  memset(*memory, 0xab, size);
  held[place].memory = *memory, held[place].size = size, held[place].mapped = mapped;
  return 0;
}

static R give_back(void *memory, int mapped) {
  if (!depth) return NO_CONTEXT;
  for (int i = 0; i < MOST; i++)
    if (memory && held[i].memory == memory && held[i].mapped == mapped) { free(memory); held[i].memory = 0; return 0; }
  return INVALID_VALUE;
}

R cuInit(unsigned flags) { return number("FAKE_INIT", 0); }
R cuGetErrorString(int code, const char **text) { *text = code == 100 ? "no CUDA-capable device is detected" : code == 2 ? "out of memory" : code == 1 ? "invalid argument" : "unknown"; return 0; }
R cuGetErrorName(int code, const char **text) { *text = "CUDA_ERROR"; return 0; }
R cuDriverGetVersion(int *version) { *version = VERSION; return 0; }
R cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = 64ULL << 30; return 0; }
R cuDeviceGetCount(int *count) { *count = number("FAKE_DEVICES", 1); return 0; }
R cuDeviceGet(int *device, int ordinal) { *device = ordinal; return ordinal < number("FAKE_DEVICES", 1) ? 0 : 101; }
R cuDeviceGetName(char *name, int size, int device) { strncpy(name, "Fake Orin", size); return 0; }
R cuDeviceGetUuid_v2(char *uuid, int device) { memset(uuid, 0xab, 16); return 0; }
R cuDeviceGetAttribute(int *value, int attribute, int device) { int sm = number("FAKE_SM", 87); *value = attribute == 75 ? sm / 10 : attribute == 76 ? sm % 10 : 1; return 0; }
R cuDevicePrimaryCtxRetain(void **context, int device) { *context = (void *)0x1000; return number("FAKE_CONTEXT", 0); }
R cuDevicePrimaryCtxRelease_v2(int device) { return 0; }
R cuCtxPushCurrent_v2(void *context) { current[depth++] = context; return 0; }
R cuCtxPopCurrent_v2(void **context) { if (!depth) return NO_CONTEXT; depth--; if (context) *context = current[depth]; return 0; }
R cuCtxGetCurrent(void **context) { *context = depth ? current[depth - 1] : 0; return 0; }
R cuCtxGetDevice(int *device) { *device = 0; return depth ? 0 : NO_CONTEXT; }
R cuCtxSynchronize(void) { return 0; }
R cuMemHostAlloc(void **memory, size_t size, unsigned flags) { return flags & 2 ? take(memory, size, 1) : NO_CONTEXT; }
R cuMemHostGetDevicePointer_v2(unsigned long long *address, void *memory, unsigned flags) { *address = (unsigned long long)memory; return 0; }
R cuMemFreeHost(void *memory) { return give_back(memory, 1); }
R cuMemAlloc_v2(unsigned long long *address, size_t size) { return take((void **)address, size, 0); }
R cuMemFree_v2(unsigned long long address) { return give_back((void *)address, 0); }
R cuStreamCreate(void **stream, unsigned flags) { *stream = (void *)0x2000; return depth ? 0 : NO_CONTEXT; }
R cuStreamSynchronize(void *stream) { return depth ? 0 : NO_CONTEXT; }
R cuStreamDestroy_v2(void *stream) { return 0; }
R cuCtxDetach(void *context) { return 0; }

/* The function of a name, in the newest form that this version has; a version that is newer than the driver is refused. */
R cuGetProcAddress_v2(const char *symbol, void **found, int version, unsigned long long flags, int *status) {
  char newer[256];
  Dl_info own;
  *found = 0;
  if (version > VERSION) return INVALID_VALUE;
  dladdr((void *)cuInit, &own);
  void *library = dlopen(own.dli_fname, RTLD_LAZY);
  snprintf(newer, sizeof newer, "%s_v2", symbol);
  if (!(*found = dlsym(library, newer))) *found = dlsym(library, symbol);
  if (status) *status = *found ? 0 : 1;
  return *found ? 0 : NOT_FOUND;
}
