// tofe::ScatterRearrange: prefix, kept and frozen rows to their places in one pass.
//
// Every row is read once and written once. A row whose place lies outside the image is dropped: a ranking that is no
// permutation must not write into somebody else's memory.
//
// Launch: grid (blocks of rows, images), LANES threads for each row of a block.
#include "rows.cuh"

enum {
    LANES = 16,     // as in token_partition.cu, so that one thread layout serves both
    MAX_ROWS = 64,  // rows a block can have: 1024 threads
};

extern "C" __global__ void tofe_scatter_rearrange(const char* kept, const char* frozen, const int* perm, int patches,
                                                  int keep, int prefix, int row_bytes, char* tokens) {
    __shared__ RowMove moves[MAX_ROWS];

    const int rows = blockDim.x / LANES;
    const int slot = threadIdx.x;
    const long long image = blockIdx.y;
    if (slot < rows) {
        const int row = blockIdx.x * rows + slot;  // prefix rows, then ranks
        const int rank = row - prefix;
        int place = -1;
        if (row < prefix)
            place = row;
        else if (rank < patches) {
            const int token = perm[image * patches + rank];
            if (token >= 0 && token < patches) place = prefix + token;
        }
        const char* from = rank < keep ? kept + (image * (prefix + keep) + row) * row_bytes
                                       : frozen + (image * (patches - keep) + rank - keep) * row_bytes;
        moves[slot] = {from, place < 0 ? nullptr : tokens + (image * (prefix + patches) + place) * row_bytes};
    }
    __syncthreads();
    move_rows(moves, rows, row_bytes, word_bytes(row_bytes, kept, frozen, tokens));
}
