#!/bin/sh
# Install what tests use, from Debian's or Ubuntu's packages; needs root.
#   tests/install.sh slurm       controller, node daemon, commands, munge (20 s)
#   tests/install.sh accounting  the same, slurmdbd and MariaDB (60 s)
#   tests/install.sh aarch64     a compiler and an emulator for another CPU (30 s)
# Nothing is started, and no service is left enabled to start.
set -eu

slurm="slurmctld slurmd slurm-client munge"
case "${1:-}" in
slurm)
    packages="$slurm"
    programs="slurmctld slurmd sbatch munged"
    ;;
accounting)
    packages="$slurm slurmdbd mariadb-server"
    programs="slurmctld slurmd sbatch munged slurmdbd mariadbd"
    ;;
aarch64)
    packages="g++-aarch64-linux-gnu qemu-user"
    programs="aarch64-linux-gnu-g++ qemu-aarch64"
    ;;
*)
    echo "expected slurm, accounting or aarch64, found: ${1:-nothing}" >&2
    exit 2
    ;;
esac

missing=""
for program in $programs; do
    PATH="$PATH:/usr/sbin" command -v "$program" >/dev/null 2>&1 || missing="$missing $program"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ]; then
    echo "$1: not installed (missing:$missing), and only root can install it." >&2
    exit 1
fi
if ! command -v apt-get >/dev/null 2>&1; then
    echo "$1: not installed (missing:$missing), and this system has no apt-get." >&2
    exit 1
fi
# Tests in several processes may come here at the same time.
exec 9>/var/lock/voxmill-test-packages
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
