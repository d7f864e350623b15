#!/bin/bash
# supervise.sh SECONDS DIR COMMAND...     runs a server for a test process that holds our standard input
# The server ends (SIGTERM, and after 25 s SIGKILL to its whole process group) when that process closes the pipe or
# dies in whatever way, or after SECONDS; then DIR is removed. DIR/ended appears when the server ends by itself.
set -u
LIMIT=$1 DIR=$2; shift 2
mkdir -p "$DIR"; END=$((SECONDS + LIMIT))
setsid "$@" </dev/null >"$DIR/log" 2>&1 & SERVER=$!
trap '' HUP INT PIPE TERM
while kill -0 $SERVER 2>/dev/null && [ $SECONDS -lt $END ]; do
  read -r -t 1 _; [ $? -gt 128 ] || break   # above 128: a second has passed; else: the pipe is closed
done
kill -0 $SERVER 2>/dev/null || { : > "$DIR/ended"; read -r -t "$LIMIT" _; }
kill -TERM $SERVER 2>/dev/null
for _ in $(seq 250); do kill -0 $SERVER 2>/dev/null || break; sleep 0.1; done
kill -KILL -- -$SERVER 2>/dev/null
rm -rf "$DIR"
