"""What torchrun starts: processes that meet three times, each time with another one late."""

import os
import time

import torch

from tofe_export.training.processes import joined

if __name__ == "__main__":
    for turn in range(3):
        if int(os.environ["RANK"]) == turn % 2:
            time.sleep(1)
        with joined(torch.device("cpu")) as processes:
            assert processes.gathered((turn, processes.rank)) == [(turn, rank) for rank in range(2)]
