// Moving whole rows of tokens. Nothing here knows the type of a token's channels: a row is so many bytes.
#pragma once

// One row to move. `to` is null where there is nothing to do.
struct RowMove {
    const char* from;
    char* to;
};

struct alignas(16) Word16 {
    unsigned int part[4];
};

// The largest power of two, at most 16, that divides a row's length and every address: the word rows can be moved in.
__device__ inline unsigned int word_bytes(int row_bytes, const void* a, const void* b, const void* c) {
    const unsigned long long bits = (unsigned long long)row_bytes | (unsigned long long)a | (unsigned long long)b |
                                    (unsigned long long)c | 16ull;
    return (unsigned int)(bits & (~bits + 1));
}

// The block's threads take the words of all `count` rows in turn, so that neighbouring threads touch neighbouring words.
// Four loads are under way before the first store needs its value.
template <typename Word>
__device__ void move_words(const RowMove* rows, int count, int row_bytes) {
    constexpr int AT_ONCE = 4;
    const int words = row_bytes / (int)sizeof(Word);
    const int total = count * words;
    for (int base = threadIdx.x; base < total; base += AT_ONCE * blockDim.x) {
        Word values[AT_ONCE];
        Word* targets[AT_ONCE];
#pragma unroll
        for (int step = 0; step < AT_ONCE; ++step) {
            const int index = base + step * (int)blockDim.x;
            targets[step] = nullptr;
            if (index < total) {
                const RowMove row = rows[index / words];
                if (row.to != nullptr) {
                    values[step] = reinterpret_cast<const Word*>(row.from)[index % words];
                    targets[step] = reinterpret_cast<Word*>(row.to) + index % words;
                }
            }
        }
#pragma unroll
        for (int step = 0; step < AT_ONCE; ++step)
            if (targets[step] != nullptr) *targets[step] = values[step];
    }
}

// Moves `count` rows of `row_bytes` bytes each, in words of `word` bytes. Every thread of the block calls it.
__device__ inline void move_rows(const RowMove* rows, int count, int row_bytes, unsigned int word) {
    if (word == 16)
        move_words<Word16>(rows, count, row_bytes);
    else if (word >= 4)
        move_words<unsigned int>(rows, count, row_bytes);
    else if (word == 2)
        move_words<unsigned short>(rows, count, row_bytes);
    else
        move_words<unsigned char>(rows, count, row_bytes);
}
