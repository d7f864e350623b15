#!/bin/bash
# SQLite's own benchmark program, speedtest1, through the extension's `verneuil` VFS and through SQLite's unix VFS.
#
#   Benchmarks/speedtest1.sh [off|on]       replication off (default), or on: spooling to memory
#
# One binary for both, so that all that differs is the VFS; runs alternate, so that both see the same noise;
# medians. Databases are in memory (tmpfs): disks would only hide what a VFS costs. Prints wall and CPU seconds and
# their ratios. Targets: 1.02 with replication off, 1.25 with it on.
#
#   RUNS (7)   of each        SIZE (100)   speedtest1's --size; below 20 the ratios are of noise
#   VERNEUIL_EXTENSION        a built libverneuil_vfs.so, instead of building one
set -euo pipefail
root=$(dirname "$(dirname "$(readlink -f "$0")")")
runs=${RUNS:-7} size=${SIZE:-100} mode=${1:-off}
case $mode in off | on) ;; *) sed -n '2,/^set -/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;; esac

extension=${VERNEUIL_EXTENSION:-}
if [ -z "$extension" ]; then
  cd "$root"
  swift build -c release --product verneuil_vfs >&2
  extension=$(swift build -c release --show-bin-path)/libverneuil_vfs.so
fi
extension=$(readlink -f "$extension")

# Where run.sh keeps what it builds.
if [ "$(id -u)" = 0 ]; then build=/var/tmp/sqlite-vfs-suite; else build=${XDG_CACHE_HOME:-$HOME/.cache}/sqlite-vfs-suite; fi
build=${SUITE_BUILD:-$build}
SUITE_BUILD=$build "$root/Tests/sqlite-suite/run.sh" build >&2
program=$build/build/vfsut/speedtest1

place=/dev/shm
[ -w "$place" ] || place=${TMPDIR:-/var/tmp}
scratch=$(mktemp -d "$place/speedtest1.XXXXXX")
trap 'rm -rf "$scratch"' EXIT

unset VERNEUIL_CONFIG
config=
if [ "$mode" = on ]; then
  mkdir "$scratch/spool" "$scratch/store"
  config="{ \"replication_spooling_dir\": \"$scratch/spool\",
            \"replication_targets\": [ { \"directory\": { \"path\": \"$scratch/store\" } } ] }"
fi

# run unix|verneuil: appends "WALL CPU" to its file.
run() {
  local vfs=$1 env=(env -u VFS_UNDER_TEST_SO) log=$scratch/log
  if [ "$vfs" = verneuil ]; then
    env=(env "VFS_UNDER_TEST_SO=$extension")
    [ -z "$config" ] || env+=("VERNEUIL_CONFIG=$config")
  fi
  rm -f "$scratch"/test.db*
  TIMEFORMAT='%R %U %S'
  { time "${env[@]}" "$program" --size "$size" "$scratch/test.db" >"$log" 2>&1; } 2>"$scratch/time"
  grep -q TOTAL "$log" || { cat "$log" >&2; exit 1; }
  awk '{ print $1, $2 + $3 }' "$scratch/time" >>"$scratch/$vfs"
}

for ((i = 0; i < runs; i++)); do
  # Neither is always the one that runs after the other.
  if ((i % 2)); then run verneuil; run unix; else run unix; run verneuil; fi
  echo "$((i + 1)) of $runs: unix $(tail -n 1 "$scratch/unix"), verneuil $(tail -n 1 "$scratch/verneuil") (wall and CPU seconds)" >&2
done

median() { sort -n | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }
echo "speedtest1 --size $size, replication $mode, medians of $runs"
for column in 1:wall 2:CPU; do
  for vfs in unix verneuil; do
    declare "$vfs=$(cut -d' ' -f"${column%:*}" "$scratch/$vfs" | median)"
  done
  awk -v n="${column#*:}" -v u="$unix" -v v="$verneuil" 'BEGIN {
    printf "  %-4s  unix %.2f s, verneuil %.2f s, ratio %.3f\n", n, u, v, v / u }'
done
