// Enough of CUDA to run a kernel's own source on the CPU: a thread for each CUDA thread of a block, one block at a time.
// Shared memory is static storage, __syncthreads() a barrier; so races and overruns are what the sanitizers see.
#pragma once

#include <pthread.h>

#include <algorithm>
#include <cstring>
#include <thread>
#include <vector>

struct Dim3 {
    unsigned int x = 1, y = 1, z = 1;
};

inline thread_local Dim3 threadIdx{0, 0, 0};
inline thread_local Dim3 blockIdx{0, 0, 0};
inline Dim3 blockDim, gridDim;
inline pthread_barrier_t cuda_barrier;

#define __global__
#define __device__
#define __shared__ static
#define __launch_bounds__(...)

using std::min;

inline void __syncthreads() { pthread_barrier_wait(&cuda_barrier); }
inline int atomicAdd(int* address, int value) { return __atomic_fetch_add(address, value, __ATOMIC_RELAXED); }
inline float __int_as_float(unsigned int bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

// Runs `kernel` for a grid of grid_x by grid_y blocks with `threads` threads each.
template <typename Kernel>
void launch(int grid_x, int grid_y, int threads, Kernel kernel) {
    gridDim = {(unsigned)grid_x, (unsigned)grid_y, 1};
    blockDim = {(unsigned)threads, 1, 1};
    pthread_barrier_init(&cuda_barrier, nullptr, threads);
    std::vector<std::thread> workers;
    for (int index = 0; index < threads; ++index)
        workers.emplace_back([=] {
            threadIdx = {(unsigned)index, 0, 0};
            for (unsigned y = 0; y < (unsigned)grid_y; ++y)
                for (unsigned x = 0; x < (unsigned)grid_x; ++x) {
                    blockIdx = {x, y, 0};
                    kernel();
                    __syncthreads();  // shared memory belongs to one block at a time
                }
        });
    for (auto& worker : workers) worker.join();
    pthread_barrier_destroy(&cuda_barrier);
}
