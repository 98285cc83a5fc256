// Runs the kernel KERNEL of SOURCE on launches read from standard input, and writes the outputs to standard output.
// A launch: int32 grid_x, grid_y, threads, then for every argument of the kernel int32 kind, size, offset and, for inputs,
// `size` bytes. kind 0 is a scalar (size holds its value), 1 an input, 2 an output. `offset` shifts the tensor's address from
// a 16-byte boundary. Every tensor has a block of memory of its very size, so that an overrun is an error to AddressSanitizer.
#include "cuda_on_cpu.hpp"
#include SOURCE

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <tuple>
#include <utility>

struct Argument {
    int kind = 0, size = 0, offset = 0;
    char* memory = nullptr;
    char* data() const { return memory + offset; }
};

template <typename T>
T as(const Argument& argument) {
    if constexpr (std::is_pointer_v<T>)
        return reinterpret_cast<T>(argument.data());
    else
        return argument.size;
}

template <typename... T>
constexpr size_t count(void (*)(T...)) { return sizeof...(T); }

template <typename... T, size_t... I>
void call(void (*kernel)(T...), const std::vector<Argument>& arguments, std::index_sequence<I...>) {
    kernel(as<T>(arguments[I])...);
}

int main() {
    int shape[3];
    while (std::fread(shape, sizeof(int), 3, stdin) == 3) {
        std::vector<Argument> arguments(count(KERNEL));
        for (auto& argument : arguments) {
            if (std::fread(&argument, sizeof(int), 3, stdin) != 3) return 3;
            if (argument.kind == 0) continue;
            argument.memory = static_cast<char*>(std::malloc(argument.offset + argument.size));
            if (argument.kind == 1 && std::fread(argument.data(), 1, argument.size, stdin) != (size_t)argument.size) return 3;
            if (argument.kind == 2) std::memset(argument.data(), 0xAB, argument.size);
        }
        launch(shape[0], shape[1], shape[2],
               [&] { call(KERNEL, arguments, std::make_index_sequence<count(KERNEL)>()); });
        for (auto& argument : arguments) {
            if (argument.kind == 2) std::fwrite(argument.data(), 1, argument.size, stdout);
            std::free(argument.memory);
        }
        std::fflush(stdout);
    }
    return 0;
}
