// tofe::TokenPartition: the kept rows, the frozen rows and the ranking behind them, in one launch.
//
// There is no sort. The rank of a token is the number of tokens that beat it, so every token finds its place by itself,
// and `perm` is a permutation whatever the scores are: "beats" is a strict total order.
//
// Launch: grid (blocks of rows, images), LANES threads for each row of a block.
#include "rows.cuh"

enum {
    LANES = 16,     // threads that count together for one token
    MAX_ROWS = 64,  // rows a block can have: 1024 threads
    TILE = 1024,    // scores looked at between two barriers
};

// NaN counts as minus infinity.
__device__ inline float ordered(float score) { return score == score ? score : __int_as_float(0xff800000); }

__device__ inline bool beats(float other, int other_index, float score, int index) {
    return other > score || (other == score && other_index < index);
}

extern "C" __global__ void tofe_token_partition(const char* tokens, const float* scores, int patches, int keep, int prefix,
                                                int row_bytes, char* kept, char* frozen, int* perm) {
    __shared__ float tile[TILE];
    __shared__ int ranks[MAX_ROWS];
    __shared__ RowMove moves[MAX_ROWS];

    const int rows = blockDim.x / LANES;
    const int slot = threadIdx.x / LANES;
    const int lane = threadIdx.x % LANES;
    const int row = blockIdx.x * rows + slot;  // of the prefix + patches rows of this image
    const int token = row - prefix;            // negative: a prefix row
    const bool ranked = token >= 0 && token < patches;
    const long long image = blockIdx.y;
    const float* image_scores = scores + image * patches;
    const float score = ranked ? ordered(image_scores[token]) : 0.0f;

    if (lane == 0) ranks[slot] = 0;
    int beaten = 0;
    for (int start = 0; start < patches; start += TILE) {
        const int length = min((int)TILE, patches - start);
        __syncthreads();  // the tile before is done with (the first time: ranks are zero)
        for (int i = threadIdx.x; i < length; i += blockDim.x) tile[i] = ordered(image_scores[start + i]);
        __syncthreads();
        for (int i = lane; i < length; i += LANES) beaten += beats(tile[i], start + i, score, token);
    }
    if (ranked) atomicAdd(&ranks[slot], beaten);
    __syncthreads();

    if (lane == 0) {
        const int rank = ranks[slot];
        char* to = nullptr;
        if (ranked) {
            perm[image * patches + rank] = token;
            to = rank < keep ? kept + (image * (prefix + keep) + prefix + rank) * row_bytes
                             : frozen + (image * (patches - keep) + rank - keep) * row_bytes;
        } else if (row < prefix) {
            to = kept + (image * (prefix + keep) + row) * row_bytes;
        }
        moves[slot] = {tokens + (image * (prefix + patches) + row) * row_bytes, to};
    }
    __syncthreads();
    move_rows(moves, rows, row_bytes, word_bytes(row_bytes, tokens, kept, frozen));
}
