#!/bin/bash
# run.sh -- run SQLite's TCL regression tests with a loadable VFS as default.
#
#   run.sh SO_PATH [LIST]     test the VFS in SO_PATH with the files in LIST
#   run.sh stock [LIST]       the same files with the built-in unix VFS
#   run.sh thin|isolated [LIST]   ... with one of the two pass-through VFSes
#   run.sh build              only fetch and build
#
# LIST: a file with one test per line (default: quick.list next to this
# script); "#" starts a comment.  After the name there may be
#   @shim          run it with the shim of vfsut_init.c on top of the VFS
#   @drop=A-B+C-D  without these lines of the script (for 3.40.1)
#   @leak          unfreed memory, and files left open or left in TMPDIR, are
#                  no failure
#   @perm=NAME     in this permutation of permutations.test, not "veryquick"
#   anything else  a pattern (shell glob) of test cases which may fail without
#                  making the file fail
# A name mptest/X.test stands for a script of the multi-process tester (there
# @repeat=N sets how often, and with @mixed half of the processes use SQLite's
# own unix VFS), any other for a TCL test script.
# LIST may also be a single name such as lock.test.
#
# The last line printed is "N passed, M failed", and the names of the failed
# files if there are any.  Exit status: 0 none failed, 1 some failed, 2 the run
# itself was not possible.
#
# Environment:
#   SUITE_BUILD    where source and binaries are kept from run to run
#                  (default: ~/.cache/sqlite-vfs-suite, but for root
#                  /var/tmp/sqlite-vfs-suite)
#   SUITE_SRC      an unpacked sqlite3 source tree, instead of one from apt
#   SUITE_WORK     scratch space for databases (default: a directory in
#                  /dev/shm if there are 2 GiB of room, else in SUITE_BUILD)
#   SUITE_LOGS     logs, one per test file (default: SUITE_BUILD/logs/<stamp>)
#   SUITE_JOBS     test files run at once (default: number of CPUs)
#   SUITE_TIMEOUT  seconds for one test file (default: 600)
#   SUITE_USER     when started by root, run the tests as this user (default:
#                  nobody; empty: stay root, and then tests of read-only files
#                  fail).  SUITE_BUILD must be readable for that user.
#   SUITE_KEEP=1   keep the scratch directories of failed files
#   VFS_UNDER_TEST_NAME / _ENTRY / _ALIAS / _SHIM   see vfsut_init.c
set -u -o pipefail

HARNESS=$(dirname "$(readlink -f "$0")")
[ "$(id -u)" = 0 ] && DFLT_BUILD=/var/tmp/sqlite-vfs-suite ||
  DFLT_BUILD=${XDG_CACHE_HOME:-$HOME/.cache}/sqlite-vfs-suite
SUITE_BUILD=$(readlink -m "${SUITE_BUILD:-$DFLT_BUILD}")
SUITE_JOBS=${SUITE_JOBS:-$(nproc)}
SUITE_TIMEOUT=${SUITE_TIMEOUT:-600}
PACKAGE_VERSION=3.40.1-2+deb12u2

die() { echo "run.sh: $*" >&2; exit 2; }

# --------------------------------------------------------------------- source
# A private apt state: neither the system's sources nor its lists change.
fetch_source() {
  local apt=$SUITE_BUILD/apt got=$SUITE_BUILD/src
  # the mirror that this machine's own apt uses (deb822 or one-line sources)
  local mirror=${SUITE_MIRROR:-$(sed -nE 's/^URIs: *(\S*\/debian)\/? *$/\1/p; s/^deb (\[.*\] )?(\S*\/debian)\/? .*/\2/p' \
    /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list /etc/apt/sources.list 2>/dev/null | head -1)}
  local key=/usr/share/keyrings/debian-archive-keyring.gpg
  mkdir -p "$apt/lists/partial" "$apt/archives/partial" "$got.new" || return 1
  {
    echo "deb-src [signed-by=$key] $mirror bookworm main"
    echo "deb-src [signed-by=$key] $mirror-security bookworm-security main"
  } >"$apt/sources.list"
  local opt=(-qq -o "Dir::Etc::sourcelist=$apt/sources.list"
             -o Dir::Etc::sourceparts=/dev/null
             -o "Dir::State::lists=$apt/lists"
             -o "Dir::Cache=$apt" -o APT::Sandbox::User=root)
  (
    cd "$got.new" || exit 1
    # Not every mirror has the security updates beside it.
    if ! apt-get "${opt[@]}" update; then
      sed -i '/-security/d' "$apt/sources.list"
      apt-get "${opt[@]}" update || exit 1
    fi
    apt-get "${opt[@]}" source --download-only \
        "sqlite3=$PACKAGE_VERSION" 2>/dev/null ||
      apt-get "${opt[@]}" source --download-only sqlite3 || exit 1
    dpkg-source -x ./*.dsc tree >unpack.log 2>&1 || { cat unpack.log; exit 1; }
    test -f tree/test/tester.tcl || { echo "no test directory"; exit 1; }
  ) || return 1
  rm -rf "$got"
  mv "$got.new" "$got"
}

need_tools() {
  local missing=()
  command -v gcc >/dev/null && command -v make >/dev/null ||
    missing+=(build-essential)
  command -v dpkg-source >/dev/null || missing+=(dpkg-dev)
  command -v tclsh8.6 >/dev/null && test -f /usr/lib/tcl8.6/tclConfig.sh ||
    missing+=(tcl-dev)
  test -f /usr/include/zlib.h || missing+=(zlib1g-dev)
  test ${#missing[@]} = 0 && return 0
  if [ "$(id -u)" = 0 ]; then
    echo "installing: ${missing[*]}"
    apt-get -qq update && apt-get -qq -y install "${missing[@]}" >/dev/null &&
      return 0
  fi
  die "please install: ${missing[*]}"
}

# ---------------------------------------------------------------------- build
build() {
  local log=$SUITE_BUILD/build.log
  need_tools
  mkdir -p "$SUITE_BUILD/build" || die "cannot write to $SUITE_BUILD"
  SRC=${SUITE_SRC:-$SUITE_BUILD/src/tree}
  if [ ! -f "$SRC/test/tester.tcl" ]; then
    [ -z "${SUITE_SRC:-}" ] || die "not a source tree: $SUITE_SRC"
    echo "fetching the source of sqlite3 ..."
    fetch_source >"$log" 2>&1 || { tail "$log" >&2; die "no source"; }
  fi
  SRC=$(readlink -f "$SRC")
  cd "$SUITE_BUILD/build" || die "no build directory"
  if [ "$(cat source-of-build 2>/dev/null)" != "$SRC" ]; then
    echo "configuring ..."
    rm -rf ./*
    "$SRC/configure" --disable-readline --disable-shared \
        --with-tcl=/usr/lib/tcl8.6 >"$log" 2>&1 ||
      { tail "$log" >&2; die "configure failed"; }
    echo "$SRC" >source-of-build
  fi
  # Generated sources first, from upstream's own rules.
  if ! make -q -f "$HARNESS/suite.mk" HARNESS="$HARNESS" "$@" 2>/dev/null; then
    echo "building $* (minutes, the first time) ..."
    make -j"$SUITE_JOBS" OPTS="-DSQLITE_OMIT_WAL -DSQLITE_MAX_MMAP_SIZE=0" \
        sqlite3.c sqlite3.h fts5.c shell.c >>"$log" 2>&1 &&
    make -j"$SUITE_JOBS" -f "$HARNESS/suite.mk" HARNESS="$HARNESS" "$@" \
        >>"$log" 2>&1 ||
      { grep -i -m5 'error' "$log" >&2; die "build failed, see $log"; }
  fi
  cd - >/dev/null || die "lost"
}

# ------------------------------------------------------------------- one file
# run_one "LINE OF LIST": prints a line, with tabs between the fields:
# NAME STATUS CASES ERRORS WALL-MS CPU-MS FAILED-CASES
run_one() {
  set -f; set -- $1; set +f
  local name=$1; shift
  local base=${name##*/} perm=${SUITE_PERMUTATION:-} tag= drop=
  local dir log t0 t1 rc cases errors failed bad left litter status cpu allowed=() a leak= repeat=1 mixed=
  for a in "$@"; do
    case $a in
      @shim)   [ "${SUITE_NO_SHIM:-}" ] || export VFS_UNDER_TEST_SHIM=1
               tag=$tag,shim ;;
      @leak)   leak=1 ;;
      @drop=*) drop=$(printf '%s' "${a#@drop=}" | sed 's/-/,/g; s/+/d;/g; s/$/d/') ;;
      @perm=*) perm=${a#@perm=}; tag=$tag,$perm ;;
      @repeat=*) repeat=${a#@repeat=} ;;
      @mixed)  mixed=1; tag=$tag,mixed ;;
      *)       allowed+=("$a") ;;
    esac
  done
  dir=$(mktemp -d "$SUITE_WORK/$base.XXXXXX") || exit 255
  log=${name#../}; log=$SUITE_LOGS/${log//\//-}$tag.log
  ln -s "$FIXTURE_DIR/sqlite3" "$dir/sqlite3"
  mkdir "$dir/tmp"
  chmod 755 "$dir" "$dir/tmp"
  [ -z "$SUITE_USER" ] || chown "$SUITE_USER" "$dir" "$dir/tmp"
  t0=$(date +%s%N)
  local cmd=("$FIXTURE_DIR/testfixture" "$HARNESS/one.tcl" "$SRC/test")
  if [ "$drop" ]; then
    sed "$drop" "$SRC/test/$name" >"$dir/$base" && cmd+=("$dir/$base")
  elif [ -f "$SRC/test/$name" ]; then
    cmd+=("$name")
  else
    cmd+=("$SRC/$name")
  fi
  [ -z "$perm" ] || cmd=("$FIXTURE_DIR/testfixture"
                         "$SRC/test/permutations.test" "$perm" "$base")
  if [ "$name" = "mptest/$base" ]; then
    cmd=("$FIXTURE_DIR/mptester" mptest.db "$SRC/$name" --repeat "$repeat")
    [ -z "${VFS_UNDER_TEST_SO:-}" ] ||
      cmd+=(--vfs "${VFS_UNDER_TEST_NAME:-verneuil}")
    # It starts its clients by its own name.
    [ -z "$mixed" ] || cmd=(bash -c 'a=$0; shift; exec -a "$a" "$FIXTURE_DIR/mptester" "$@"'
                            "$HARNESS/mixed_client.sh" "${cmd[@]}")
  fi
  TIMEFORMAT='%U %S'
  cpu=$( { time (
      ulimit -c 0
      cd "$dir" && TMPDIR=$dir/tmp HOME=$dir $AS_USER \
        timeout -k 10 "$SUITE_TIMEOUT" "${cmd[@]}" </dev/null >"$log" 2>&1
    ); echo $?; } 2>&1 )
  t1=$(date +%s%N)
  # $cpu: "user system" and the exit status, in the order of the two streams.
  rc=$(printf '%s\n' "$cpu" | grep -E '^[0-9]+$')
  cpu=$(printf '%s\n' "$cpu" | awk 'NF==2 { printf "%d", ($1+$2)*1000 }')
  read -r errors cases < <(sed -n \
    's/^\(Summary: \)\{0,1\}\([0-9]*\) errors out of \([0-9]*\) tests.*/\2 \3/p' \
    "$log" | tail -n1)
  failed=$(sed -n 's/^!Failures on these tests://p' "$log" | tail -n1)
  # Failures that the list does not allow.
  bad=
  set -f
  for a in $failed; do
    local ok=
    for p in "${allowed[@]}"; do
      case $a in ($p) ok=1; break;; esac
    done
    [ "$ok" ] || bad="$bad $a"
  done
  set +f
  left=$(grep -E -c '^(Unfreed memory|[0-9]+ files were left open)' "$log")
  # Temporary files must be gone when their owner is.
  litter=$(find "$dir/tmp" -type f -printf '%f ' | head -c 300)
  if [ "$rc" = 124 ] || [ "$rc" = 137 ]; then status=TIMEOUT
  elif [ -z "${cases:-}" ]; then status=CRASH
  elif [ "$name" = "mptest/$base" ] && [ "$errors" != 0 ]; then status=FAIL
  elif [ "$bad" ]; then status=FAIL
  elif [ "$left" != 0 ] && [ -z "$leak" ]; then status=LEAK
  elif [ "$litter" ] && [ -z "$leak" ]; then status=LITTER; bad=$litter
  elif [ "$rc" != 0 ] && [ "$left" = 0 ] && [ "$errors" = 0 ]; then status=CRASH
  else status=ok
  fi
  printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$name$tag" "$status" "${cases:-0}" \
      "${errors:-0}" $(( (t1 - t0) / 1000000 )) "${cpu:-0}" "${bad# }"
  if [ "$status" = ok ] || [ "${SUITE_KEEP:-}" != 1 ]; then rm -rf "$dir"; fi
}

# ----------------------------------------------------------------------- main
[ $# -ge 1 ] || { sed -n '2,/^set -u/s/^# \{0,1\}//p' "$0"; exit 2; }
SO=$1
LIST=${2:-$HARNESS/quick.list}

unset VFS_UNDER_TEST_SO
case $SO in
  build)    build suite-all; exit 0 ;;
  stock)    build suite-stock ; FIXTURE_DIR=$SUITE_BUILD/build/stock ;;
  thin|isolated)
            build suite-vfsut suite-pt; FIXTURE_DIR=$SUITE_BUILD/build/vfsut
            # "thin" ends in the built-in VFS, which needs no shim.
            [ "$SO" = isolated ] ||
              export SUITE_NO_SHIM=1 VFS_UNDER_TEST_THIN=1
            SO=$SUITE_BUILD/build/passthru-$SO/libverneuil_vfs.so
            export VFS_UNDER_TEST_SO=$SO ;;
  *)        [ -f "$SO" ] || die "no such file: $SO"
            build suite-vfsut; FIXTURE_DIR=$SUITE_BUILD/build/vfsut
            VFS_UNDER_TEST_SO=$(readlink -f "$SO"); export VFS_UNDER_TEST_SO ;;
esac

if [ -z "${SUITE_WORK:-}" ]; then
  SUITE_WORK=$SUITE_BUILD/work
  # Containers often have 64 MiB there, which is not enough.
  room=$(df -Pk /dev/shm 2>/dev/null | awk 'NR==2 { print $4 }')
  [ -w /dev/shm ] && [ "${room:-0}" -ge 2097152 ] && SUITE_WORK=/dev/shm
fi
mkdir -p "$SUITE_WORK" || die "cannot write to $SUITE_WORK"
SUITE_WORK=$(mktemp -d "$(readlink -f "$SUITE_WORK")/vfs-suite.XXXXXX") ||
  die "no scratch space"
trap 'test "${SUITE_KEEP:-}" = 1 && rmdir "$SUITE_WORK" 2>/dev/null || rm -rf "$SUITE_WORK"' EXIT
chmod 755 "$SUITE_WORK"
# Copies, since SUITE_USER may not be let into the directory that they are in.
mkdir -m 755 "$SUITE_WORK/harness"
cp "$HARNESS"/{one.tcl,mixed_client.sh} "$SUITE_WORK/harness/" || die "no harness"
chmod 755 "$SUITE_WORK"/harness/*
HARNESS=$SUITE_WORK/harness
if [ -n "${VFS_UNDER_TEST_SO:-}" ]; then
  # A copy: readable for everybody, and a rebuild does not disturb the run.
  mkdir -m 755 "$SUITE_WORK/so"
  cp -L "$VFS_UNDER_TEST_SO" "$SUITE_WORK/so/" || die "cannot read $SO"
  VFS_UNDER_TEST_SO=$SUITE_WORK/so/${VFS_UNDER_TEST_SO##*/}
  chmod 755 "$VFS_UNDER_TEST_SO"
fi

SUITE_USER=${SUITE_USER-nobody}
[ "$(id -u)" = 0 ] || SUITE_USER=
AS_USER=
if [ -n "$SUITE_USER" ]; then
  AS_USER="setpriv --reuid=$SUITE_USER --regid=$(id -g "$SUITE_USER") --clear-groups --"
  for f in "$SRC/test/tester.tcl" "$FIXTURE_DIR/testfixture" "$HARNESS/one.tcl"
  do
    $AS_USER test -r "$f" ||
      die "user $SUITE_USER cannot read $f (see SUITE_BUILD and SUITE_USER)"
  done
fi

# Does it load at all (the hook ends the process with 97 if not), and does it
# know the time?  (Tests of dates use a clock of their own.)
if ! out=$(cd / && $AS_USER "$FIXTURE_DIR/sqlite3" :memory: \
      "SELECT abs(strftime('%s','now') - $(date +%s)) < 10" 2>&1) ||
   [ "$out" != 1 ]; then
  echo "$out" >&2
  die "the VFS does not start"
fi

if [ -f "$LIST" ]; then
  mapfile -t TESTS < <(sed -e 's/#.*//' -e 's/[[:space:]]*$//' -e '/^$/d' "$LIST")
else
  case $LIST in
    *.test) TESTS=("$LIST") ;;
    *) die "no such list: $LIST" ;;
  esac
fi
[ ${#TESTS[@]} -gt 0 ] || die "nothing to do in $LIST"

STAMP=$(date +%Y%m%d-%H%M%S)-$$
SUITE_LOGS=$(readlink -m "${SUITE_LOGS:-$SUITE_BUILD/logs/$STAMP}")
mkdir -p "$SUITE_LOGS" || die "cannot write to $SUITE_LOGS"
export HARNESS AS_USER SUITE_USER SRC FIXTURE_DIR SUITE_WORK SUITE_LOGS SUITE_TIMEOUT
export -f run_one
RESULTS=$SUITE_LOGS/results.tsv
T0=$(date +%s)
printf '%s\0' "${TESTS[@]}" |
  xargs -0 -P "$SUITE_JOBS" -I{} bash -c 'run_one "$1"' run_one {} |
  while IFS= read -r line; do
    printf '%s\n' "$line"
    [ -t 2 ] && printf '\r%-70.70s' "${line%%	*}" >&2
  done >"$RESULTS"
T1=$(date +%s)
[ -t 2 ] && printf '\r%-70s\r' '' >&2

awk -F'\t' '$2!="ok" { printf "%-8s %-28s %s\n", $2, $1, substr($7,1,200) }' "$RESULTS"
echo "logs: $SUITE_LOGS"
awk -F'\t' -v want="${#TESTS[@]}" -v secs=$((T1-T0)) '
  { cases+=$3; cpu+=$6; if( $2=="ok" ) n++; else { m++; names=names " " $1 } }
  END {
    if( n+m<want ){ lost=want-n-m; m+=lost; names=names " (" lost " without a result)" }
    printf "%d test cases in %d files, %d s (CPU %d s)\n", cases, want, secs, cpu/1000
    printf "%d passed, %d failed%s\n", n, m, m ? ":" names : ""
    exit m>0
  }' "$RESULTS"
