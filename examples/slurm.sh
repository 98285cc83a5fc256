#!/bin/bash
# Training under Slurm on one node with several GPUs, or on several nodes, in a job that may be preempted.
#
#   DATA=/data/imagenet RUN=runs/small sbatch examples/slurm.sh --recipe small
#   DATA=/data/imagenet RUN=runs/small sbatch --nodes=4 examples/slurm.sh --recipe small
#
# What follows the script are options of `tofe-export train`. DATA and RUN lie on a disk that all nodes share.
#
#SBATCH --job-name=tofe-train
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1   # torchrun, which starts a process for each GPU itself
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --requeue             # after a preemption, and after a node has failed, Slurm starts the job again
#SBATCH --open-mode=append    # the log of the job that is started again follows that of the first
#SBATCH --signal=TERM@300     # the same notice before the time limit as before a preemption: time to save the state

set -euo pipefail

: "${DATA:?Name the folder of the images: DATA=/data/imagenet}"
: "${RUN:?Name the folder of the run: RUN=runs/small}"
readonly MOST_RESTARTS=50

# Slurm may send SIGTERM to this shell too, which has to outlive the training to ask for another start. A shell waits
# for its command before it obeys a trap.
trap 'echo "SIGTERM: the run saves its state."' TERM

# How long torchrun lets its processes save before it kills them; its own 30 s are short for a large state.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=240
# srun does not take this from the job by itself.
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}"

# The nodes meet at the first of them. Two jobs on one node must not meet each other.
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
port=$((20000 + SLURM_JOB_ID % 20000))

# One process per GPU decodes its images with its share of the cores, and keeps one core itself.
gpus=${SLURM_GPUS_ON_NODE:-1}
workers=$((${SLURM_CPUS_PER_TASK:-1} / gpus - 1))
workers=$((workers > 0 ? workers : 0))

mkdir -p "$RUN"
touch "$RUN/.begun" # beside the state, so that one clock tells which is newer

# --resume in every start: the first one finds no state and begins; SIGTERM saves one, within an epoch too.
# --kill-on-bad-exit: a node whose processes have ended must not leave the others waiting for it.
code=0
srun --kill-on-bad-exit=1 \
  torchrun --nnodes="$SLURM_JOB_NUM_NODES" --nproc-per-node=gpu \
  --rdzv-backend=c10d --rdzv-endpoint="${nodes[0]}:$port" --rdzv-id="$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}" \
  -m tofe_export train --data "$DATA" -o "$RUN" --workers "$workers" --resume "$@" || code=$?

# torchrun does not pass on why its processes ended. A run that has saved something since it began made progress, and
# goes on; one that has not would fail the same way again.
if ((code != 0)) && [[ "$RUN/state.pt" -nt "$RUN/.begun" ]] && ((${SLURM_RESTART_COUNT:-0} < MOST_RESTARTS)); then
  echo "The run is not finished; it is queued again."
  scontrol requeue "$SLURM_JOB_ID" || true # after a preemption Slurm may have done so itself
fi
exit "$code"
