#!/usr/bin/env bash
# A Slurm of one node on this machine, to try the profile without a cluster: Debian 12, as root, also in
# a container. `start` installs Debian's packages and starts the daemons; `stop` ends them, each by its
# process id, and removes every file that `start` wrote. The packages stay.
set -euo pipefail

FOLDER=/run/fourfold-slurm # state, logs and process ids
CONF=/etc/slurm/slurm.conf # the jobs look for it here, SLURM_CONF alone doesn't reach them
MARK="# written by fourfold's single-node.sh"

fail() {
    echo "error: $1" >&2
    exit 1
}

ours() { grep -qsF "$MARK" "$CONF"; }

install_packages() {
    local package missing=()
    for package in slurmctld slurmd slurm-client munge; do
        dpkg -s "$package" > /dev/null 2>&1 || missing+=("$package")
    done
    [[ ${#missing[@]} -eq 0 ]] && return
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" > /dev/null
}

# slurmd refuses a job that wants more than the node claims, and a claim of more than there is.
write_conf() {
    local name memory
    name=$(hostname -s)
    memory=$(awk '/^MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo)
    install -d /etc/slurm
    cat > "$CONF" <<CONF
$MARK
ClusterName=fourfold
SlurmctldHost=$name(127.0.0.1)
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MinJobAge=3600
ReturnToService=2
StateSaveLocation=$FOLDER/state
SlurmdSpoolDir=$FOLDER/spool
SlurmctldLogFile=$FOLDER/slurmctld.log
SlurmdLogFile=$FOLDER/slurmd.log
SlurmctldPidFile=$FOLDER/slurmctld.pid
SlurmdPidFile=$FOLDER/slurmd.pid
NodeName=$name NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=$memory
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
}

start_munge() {
    munge -n 2> /dev/null | unmunge > /dev/null 2>&1 && return # somebody else's, not ours to stop
    install -d -o munge -g munge -m 755 /run/munge
    su -s /bin/sh munge -c "munged --pid-file=/run/munge/fourfold.pid"
}

start() {
    [[ ! -e $CONF ]] || ours || fail "$CONF exists and isn't this script's; this machine has a Slurm."
    [[ ! -e $FOLDER ]] || fail "$FOLDER exists: it runs already, or was killed; \`$0 stop\` first."
    install_packages
    install -d "$FOLDER" "$FOLDER/state" "$FOLDER/spool"
    write_conf
    start_munge
    slurmctld -c
    slurmd
    for _ in $(seq 60); do
        if [[ $(sinfo --noheader --format %T 2> /dev/null) == idle ]]; then
            sinfo
            return
        fi
        sleep 0.5
    done
    tail -n 5 "$FOLDER"/*.log >&2 || true
    fail "the node isn't idle after 30 seconds; the logs are in $FOLDER."
}

# A container may have nobody who clears ended processes away; those count as gone.
runs() { [[ $(ps -o stat= -p "$1" 2> /dev/null) == [!Z]* ]]; }

# End the process that a file names, and wait until it is gone.
end() {
    [[ -s $1 ]] || return 0
    local pid
    pid=$(< "$1")
    kill "$pid" 2> /dev/null || return 0
    for _ in $(seq 60); do
        runs "$pid" || return 0
        sleep 0.5
    done
    fail "process $pid ($1) didn't end within 30 seconds."
}

stop() {
    if ours; then
        scancel --user "$USER" 2> /dev/null || true # jobs outlive slurmd
        for _ in $(seq 60); do
            [[ -n $(squeue --noheader --states running,completing 2> /dev/null) ]] || break
            sleep 0.5
        done
    fi
    end "$FOLDER/slurmd.pid"
    end "$FOLDER/slurmctld.pid"
    if [[ -e /run/munge/fourfold.pid ]]; then
        end /run/munge/fourfold.pid
        rm -rf /run/munge
    fi
    ours && rm "$CONF"
    rm -rf "$FOLDER"
}

[[ $(id -u) -eq 0 ]] || fail "only root can start and stop Slurm's daemons."
: "${USER:=root}"
case "${1:-}" in
    start | stop) "$1" ;;
    *) fail "usage: $0 start|stop" ;;
esac
