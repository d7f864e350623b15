#!/bin/bash
# mixed_client.sh -- stands in for mptester where a line of the list says
# @mixed: mptester starts its clients by its own name, which run.sh makes this
# script's. Clients with an odd number use SQLite's own unix VFS, the others
# (and mptester itself, which starts them) the VFS under test.
#
#   mixed_client.sh DATABASE --client N ... [--vfs NAME]
set -u
args=("$@")
for ((i = 0; i + 1 < $#; i++)); do
  [ "${args[i]}" = --client ] && client=${args[i + 1]}
  [ "${args[i]}" = --vfs ] && vfs=$i
done
if ((${client:-0} % 2)); then
  unset VFS_UNDER_TEST_SO
  [ -z "${vfs:-}" ] || unset "args[vfs]" "args[vfs+1]"
fi
exec "$FIXTURE_DIR/mptester" "${args[@]}"
