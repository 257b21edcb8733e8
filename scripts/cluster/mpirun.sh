#!/usr/bin/env bash
# A run on several machines over ssh, on CPUs.
#   scripts/cluster/mpirun.sh HOSTFILE RANKS --config configs/embodied-r.toml --output results/train/run
# Program, inputs and output folder must have the same paths on all machines. Plain `mpirun` works as well:
#   mpirun -n RANKS --hostfile HOSTFILE embodied-r train …
# but waits 15 minutes for an unreachable machine, and does not restart the run.
set -euo pipefail
hostfile=${1:?the host file, see hosts.example}
ranks=${2:?the number of ranks}
shift 2
exec embodied-r train --ranks "$ranks" --hostfile "$hostfile" --restarts "${RESTARTS:-3}" "$@"
