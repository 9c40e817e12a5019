/* A CUDA driver of one device, as far as edgeproof asks it, and PyCUDA for it: memory is the host's, streams do nothing.
   FAKE_DEVICES is how many devices it knows, FAKE_INIT what cuInit returns. */
#include <stdlib.h>
#include <string.h>

typedef int R;
static __thread void *current[64];
static __thread int depth;

static int number(const char *name, int otherwise) { const char *s = getenv(name); return s ? atoi(s) : otherwise; }

R cuInit(unsigned flags) { return number("FAKE_INIT", 0); }
R cuGetErrorString(int code, const char **text) { *text = code == 100 ? "no CUDA-capable device is detected" : "unknown"; return 0; }
R cuGetErrorName(int code, const char **text) { *text = "CUDA_ERROR"; return 0; }
R cuDriverGetVersion(int *version) { *version = 12060; return 0; }
R cuDeviceGetCount(int *count) { *count = number("FAKE_DEVICES", 1); return 0; }
R cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
R cuDeviceGetName(char *name, int size, int device) { strncpy(name, "Fake Orin", size); return 0; }
R cuDeviceGetUuid_v2(char *uuid, int device) { memset(uuid, 0xab, 16); return 0; }
R cuDeviceGetAttribute(int *value, int attribute, int device) { *value = attribute == 75 ? 8 : attribute == 76 ? 7 : 1; return 0; }
R cuDevicePrimaryCtxRetain(void **context, int device) { *context = (void *)0x1000; return 0; }
R cuDevicePrimaryCtxRelease_v2(int device) { return 0; }
R cuCtxPushCurrent_v2(void *context) { current[depth++] = context; return 0; }
R cuCtxPopCurrent_v2(void **context) { if (!depth) return 201; depth--; if (context) *context = current[depth]; return 0; }
R cuCtxGetCurrent(void **context) { *context = depth ? current[depth - 1] : 0; return 0; }
R cuCtxGetDevice(int *device) { *device = 0; return depth ? 0 : 201; }
R cuCtxSynchronize(void) { return 0; }
R cuMemHostAlloc(void **memory, size_t size, unsigned flags) { if (!depth || !(flags & 2)) return 201; *memory = malloc(size); return 0; }
R cuMemHostGetDevicePointer_v2(unsigned long long *address, void *memory, unsigned flags) { *address = (unsigned long long)memory; return 0; }
R cuMemFreeHost(void *memory) { if (!depth) return 201; free(memory); return 0; }
R cuMemAlloc_v2(unsigned long long *address, size_t size) { return !depth || posix_memalign((void **)address, 256, size) ? 201 : 0; }
R cuMemFree_v2(unsigned long long address) { if (!depth) return 201; free((void *)address); return 0; }
R cuStreamCreate(void **stream, unsigned flags) { *stream = (void *)0x2000; return depth ? 0 : 201; }
R cuStreamSynchronize(void *stream) { return depth ? 0 : 201; }
R cuStreamDestroy_v2(void *stream) { return 0; }
R cuCtxDetach(void *context) { return 0; }
