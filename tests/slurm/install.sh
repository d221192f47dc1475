#!/bin/sh
# Install the SLURM that tests/slurm starts, from Debian's or Ubuntu's packages; needs root.
#   tests/slurm/install.sh               controller, node daemon, commands, munge (20 s)
#   tests/slurm/install.sh --accounting  slurmdbd and MariaDB as well (60 s)
# Nothing is started, and no service is left enabled to start.
set -eu

packages="slurmctld slurmd slurm-client munge"
programs="slurmctld slurmd sbatch munged"
if [ "${1:-}" = "--accounting" ]; then
    packages="$packages slurmdbd mariadb-server"
    programs="$programs slurmdbd mariadbd"
fi

missing=""
for program in $programs; do
    PATH="$PATH:/usr/sbin" command -v "$program" >/dev/null 2>&1 || missing="$missing $program"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ]; then
    echo "SLURM is not installed (missing:$missing), and only root can install it." >&2
    exit 1
fi
if ! command -v apt-get >/dev/null 2>&1; then
    echo "SLURM is not installed (missing:$missing), and this system has no apt-get." >&2
    exit 1
fi
# Tests in several processes may come here at the same time.
exec 9>/var/lock/voxmill-slurm-install
flock 9
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
# The packages' own services would start on a machine with systemd; the tests bring their own.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    trap 'rm -f "$policy"' EXIT
fi
install() { apt-get install -y --no-install-recommends $packages >"$log" 2>&1; }
# Package lists may be old or absent: fetch them only when the install fails without.
if ! install && ! { apt-get update >>"$log" 2>&1 && install; }; then
    echo "Installing $packages failed:" >&2
    tail -n 5 "$log" >&2
    exit 1
fi
rm -f "$log"
