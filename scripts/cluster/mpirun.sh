#!/usr/bin/env bash
# A run of several machines that are reached by ssh, on CPUs.
#   scripts/cluster/mpirun.sh HOSTFILE RANKS --config configs/embodied-r.toml --output results/train/run
# Program, inputs and the run's folder have the same paths on all machines. `mpirun` alone starts the ranks as well:
#   mpirun -n RANKS --hostfile HOSTFILE embodied-r train …
# but waits a quarter of an hour for a machine that is cut off, and starts nothing again.
set -euo pipefail
hostfile=${1:?the file that names the machines, as hosts.example does}
ranks=${2:?the number of ranks}
shift 2
exec embodied-r train --ranks "$ranks" --hostfile "$hostfile" --restarts "${RESTARTS:-3}" "$@"
