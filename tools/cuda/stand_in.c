/* The part of CUDA that is used before the first computation: one device, the machine's memory, one handle for the rest.
   stand_in.py adds the other functions that ONNX Runtime links to: they do nothing and return 0, success. */
#include <stdlib.h>
#include <string.h>

static char handle[4096];
static const size_t MEMORY = (size_t)8 << 30;

static int made(void **out) { *out = handle; return 0; }
static int allocated(void **out, size_t bytes) { *out = calloc(1, bytes); return *out ? 0 : 2; }
static int set(int *out, int value) { *out = value; return 0; }
static int attribute(int *out, int which) { return set(out, which == 75 ? 9 : which == 76 ? 0 : 64); }

int cuInit(unsigned flags) { return 0; }
int cuDeviceGetCount(int *n) { return set(n, 1); }
int cuDeviceGet(int *device, int ordinal) { return set(device, 0); }
int cuDeviceGetName(char *name, int bytes, int device) { strncpy(name, "stand-in", bytes); return 0; }
int cuDeviceGetUuid_v2(char *uuid, int device) { memset(uuid, 0, 16); return 0; }
int cuDeviceGetAttribute(int *value, int which, int device) { return attribute(value, which); }
int cuDriverGetVersion(int *version) { return set(version, 13000); }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = MEMORY; return 0; }

int cudaGetDeviceCount(int *n) { return set(n, 1); }
int cudaGetDevice(int *device) { return set(device, 0); }
int cudaDeviceGetAttribute(int *value, int which, int device) { return attribute(value, which); }
int cudaDriverGetVersion(int *version) { return set(version, 13000); }
int cudaRuntimeGetVersion(int *version) { return set(version, 13000); }
int cudaMemGetInfo(size_t *free, size_t *total) { *free = *total = MEMORY; return 0; }
int cudaMalloc(void **out, size_t bytes) { return allocated(out, bytes); }
int cudaMallocHost(void **out, size_t bytes) { return allocated(out, bytes); }
int cudaHostAlloc(void **out, size_t bytes, unsigned flags) { return allocated(out, bytes); }
int cudaMallocAsync(void **out, size_t bytes, void *stream) { return allocated(out, bytes); }
int cudaMallocFromPoolAsync(void **out, size_t bytes, void *pool, void *stream) { return allocated(out, bytes); }
int cudaFree(void *p) { free(p); return 0; }
int cudaFreeHost(void *p) { free(p); return 0; }
int cudaFreeAsync(void *p, void *stream) { free(p); return 0; }
int cudaMemcpy(void *to, const void *from, size_t bytes, int kind) { memcpy(to, from, bytes); return 0; }
int cudaMemcpyAsync(void *to, const void *from, size_t bytes, int kind, void *stream) { memcpy(to, from, bytes); return 0; }
int cudaMemset(void *to, int value, size_t bytes) { memset(to, value, bytes); return 0; }
int cudaMemsetAsync(void *to, int value, size_t bytes, void *stream) { memset(to, value, bytes); return 0; }
int cudaStreamCreate(void **out) { return made(out); }
int cudaStreamCreateWithFlags(void **out, unsigned flags) { return made(out); }
int cudaEventCreate(void **out) { return made(out); }
int cudaEventCreateWithFlags(void **out, unsigned flags) { return made(out); }
void **__cudaRegisterFatBinary(void *binary) { return (void **)handle; }

/* cudaDeviceProp of CUDA 12 and 13, which agree so far: name, memory, shared memory, registers, warp, threads, grid,
   compute capability 9.0. */
int cudaGetDeviceProperties(char *out, int device) {
  const struct { int offset, value; } fields[] = {{304, 65536}, {308, 32}, {320, 1024}, {324, 1024}, {328, 1024},
    {332, 64}, {336, 1 << 30}, {340, 65535}, {344, 65535}, {360, 9}};
  memset(out, 0, 512);
  strcpy(out, "stand-in");
  *(size_t *)(out + 288) = MEMORY;
  *(size_t *)(out + 296) = 49152;
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) *(int *)(out + fields[i].offset) = fields[i].value;
  return 0;
}
int cudaGetDeviceProperties_v2(char *out, int device) { return cudaGetDeviceProperties(out, device); }

int cublasCreate_v2(void **out) { return made(out); }
int cublasLtCreate(void **out) { return made(out); }
int cudnnCreate(void **out) { return made(out); }
size_t cudnnGetVersion(void) { return 90800; }
size_t cudnnGetCudartVersion(void) { return 13000; }
const char *cudaGetErrorString(int code) { return "stand-in"; }
const char *cudaGetErrorName(int code) { return "stand-in"; }
const char *cublasGetStatusString(int code) { return "stand-in"; }
const char *cudnnGetErrorString(int code) { return "stand-in"; }
