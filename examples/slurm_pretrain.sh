#!/bin/bash
#SBATCH --job-name=deri-pretrain
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@180
#
# Pre-training on several nodes, which goes on by itself after the end of its time or the loss of a node:
#
#   STORE=/shared/store RUN=/shared/run sbatch examples/slurm_pretrain.sh
#
# STORE and RUN lie on a file system that all nodes see. Three minutes before the end of the time this script is told;
# it ends the training, which keeps a checkpoint after its step, and puts the job back into the queue.
set -euo pipefail
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=150  # seconds that torchrun gives a step and its checkpoint

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

srun --kill-on-bad-exit=1 torchrun \
    --nnodes="$SLURM_NNODES" --nproc-per-node="${SLURM_GPUS_ON_NODE:-1}" --max-restarts=3 \
    --rdzv-backend=c10d --rdzv-id="$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}" --rdzv-endpoint="$head:${PORT:-29500}" \
    -m deri pretrain --data "$STORE" --out "$RUN" --recipe "${RECIPE:-deri}" --resume &
training=$!

requeue() {
    kill -TERM "$training"
    wait "$training" || true
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
}
trap requeue USR1

wait "$training"
