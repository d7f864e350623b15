"""What fork(2) and the end of a process do to replication, with real callers: os.fork, multiprocessing, sys.exit.

    /usr/bin/python3 replication_cases.py CASE EXTENSION DIRECTORY

Exit status 0 where the case holds. Each snapshot that is taken is compared with the database (VERNEUIL_PARANOID)."""

import json
import multiprocessing
import os
import random
import socket
import sqlite3
import subprocess
import sys
import threading
import time

CASE, EXTENSION, DIRECTORY = sys.argv[1:4]
PATH = os.path.join(DIRECTORY, "a.db")


def configure(target):
    os.environ["VERNEUIL_PARANOID"] = "1"
    os.environ["VERNEUIL_CONFIG"] = json.dumps(
        {"replication_spooling_dir": os.path.join(DIRECTORY, "spool"), "replication_targets": [target] if target else []}
    )


def load():
    loader = sqlite3.connect(":memory:")
    loader.enable_load_extension(True)
    loader.load_extension(EXTENSION)
    loader.close()


def connect(path=PATH):
    return sqlite3.connect(f"file:{path}?vfs=verneuil", uri=True, isolation_level=None, timeout=60)


def flush(connection):
    answer = connection.execute("PRAGMA verneuil_flush_replication_data").fetchone()[0]
    assert answer == "1", answer


def replica(sql, path=PATH):
    """What a fresh process reads from the store."""
    code = (
        "import sqlite3, sys\n"
        "loader = sqlite3.connect(':memory:')\n"
        "loader.enable_load_extension(True)\n"
        "loader.load_extension(sys.argv[1])\n"
        "c = sqlite3.connect('file:verneuil://' + sys.argv[2] + '?vfs=verneuil_snapshot', uri=True)\n"
        "assert c.execute('PRAGMA integrity_check').fetchone()[0] == 'ok'\n"
        "print(c.execute(sys.argv[3]).fetchone()[0])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, EXTENSION, path, sql], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def wait(pid, seconds=60):
    """The exit status of a child that must not hang."""
    deadline = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            raise AssertionError("a child hangs")
        time.sleep(0.002)


def in_child(body):
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            body()
            status = 0
        except BaseException as e:
            print("child:", repr(e), file=sys.stderr, flush=True)
        finally:
            os._exit(status)
    return pid


def descriptors():
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
        except FileNotFoundError:
            continue  # A thread has closed it meanwhile, or it was the listing's.
    return sorted(found)


def children_leave_the_parents_replication_alone():
    c = connect()
    c.execute("CREATE TABLE t(a)")
    c.execute("INSERT INTO t VALUES(0)")
    before = [d for d in descriptors() if d == PATH]
    n = 1

    def close_everything():
        c.close()

    def execute():
        os.execvp("true", ["true"])

    for _ in range(5):
        for body in (lambda: None, execute):
            # Inside of a transaction.
            c.execute("BEGIN IMMEDIATE")
            c.execute("INSERT INTO t VALUES(?)", (n,))
            assert wait(in_child(body)) == 0
            c.execute("COMMIT")
            n += 1
        # A commit while the child is there. (Who closes an inherited connection that is in a write transaction rolls it
        # back, whatever the VFS.)
        pid = in_child(close_everything)
        c.execute("INSERT INTO t VALUES(?)", (n,))
        assert wait(pid) == 0
        n += 1
    pid = os.fork()
    if pid == 0:
        sys.exit(0)  # finalizes the interpreter: closes what it inherited
    assert wait(pid) == 0
    assert [d for d in descriptors() if d == PATH] == before
    c.execute("INSERT INTO t VALUES(?)", (n,))
    flush(c)
    assert replica("SELECT count(DISTINCT a) FROM t") == str(n + 1)


def children_replicate_databases_of_their_own():
    c = connect()
    c.execute("CREATE TABLE t(a)")
    c.execute("INSERT INTO t VALUES(0)")
    flush(c)  # the parent's threads are there
    other = os.path.join(DIRECTORY, "other.db")

    def body():
        own = connect(other)
        own.execute("CREATE TABLE o(a)")
        own.execute("INSERT INTO o VALUES(7)")
        flush(own)
        shared = connect()
        shared.execute("INSERT INTO t VALUES(1)")
        flush(shared)
        # And a grandchild.
        pid = in_child(grandchild)
        assert wait(pid) == 0
        own.execute("INSERT INTO o VALUES(9)")
        flush(own)

    def grandchild():
        own = connect(other)
        own.execute("INSERT INTO o VALUES(8)")
        flush(own)

    assert wait(in_child(body)) == 0
    assert replica("SELECT sum(a) FROM o", other) == "24"
    assert replica("SELECT sum(a) FROM t") == "1"
    c.execute("INSERT INTO t VALUES(2)")
    flush(c)
    assert replica("SELECT sum(a) FROM t") == "3"


def work(i):
    path = os.path.join(DIRECTORY, f"worker{i % 8}.db")
    own = connect(path)
    own.execute("CREATE TABLE IF NOT EXISTS t(a)")
    own.execute("INSERT INTO t VALUES(?)", (i,))
    flush(own)
    own.close()
    return i


def multiprocessing_pool():
    c = connect()
    c.execute("CREATE TABLE t(a)")
    flush(c)
    with multiprocessing.get_context("fork").Pool(4) as pool:
        assert sorted(pool.map(work, range(24))) == list(range(24))
    for i in range(8):
        assert replica("SELECT count(*) FROM t", os.path.join(DIRECTORY, f"worker{i}.db")) == "3"
    flush(c)


def forks_while_replication_is_at_work():
    """The threads that upload may hold any lock of ours at the moment of fork; the child must find none of them taken."""
    c = connect()
    c.execute("CREATE TABLE t(a, b)")
    path = os.path.join(DIRECTORY, "child.db")
    setup = connect(path)
    setup.execute("CREATE TABLE t(a)")
    setup.close()

    def body():
        own = connect(path)
        own.execute("INSERT INTO t VALUES(1)")

    for i in range(120):
        c.execute("INSERT INTO t VALUES(?, randomblob(100000))", (i,))
        assert wait(in_child(body)) == 0
    flush(c)
    own = connect(path)
    flush(own)
    assert replica("SELECT count(*) FROM t") == "120"
    assert replica("SELECT count(*) FROM t", path) == "120"


def forks_during_a_full_snapshot():
    """Who reads a large database waits for nothing for seconds, and lets others fork all the same."""
    c = connect()
    c.execute("CREATE TABLE t(a)")
    os.truncate(PATH, 6 << 30)
    c.execute("INSERT INTO t VALUES(1)")

    def is_under_way():
        return any("base.new" in names for _, _, names in os.walk(os.path.join(DIRECTORY, "spool")))

    deadline = time.monotonic() + 60
    while not is_under_way():
        assert time.monotonic() < deadline, "no full snapshot begins"
        time.sleep(0.001)
    times, meanwhile = [], 0
    for _ in range(30):
        start = time.monotonic()
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        times.append(time.monotonic() - start)
        assert os.waitpid(pid, 0)[1] == 0
        meanwhile += is_under_way()
        time.sleep(0.005)
    assert meanwhile >= 15, meanwhile
    # The thread reads for 0.25 s at a time.
    assert sorted(times)[15] < 0.08, times
    print("under way after", meanwhile, "forks of 30")


def sleeping_child():
    return in_child(lambda: time.sleep(600))


def end(pids):
    for pid in pids:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def children_that_live_keep_nobody_from_a_full_snapshot():
    """A child has a descriptor of all that was open at the fork; a lock that it keeps would be nobody's for as long as it lives."""
    c = connect()
    c.execute("CREATE TABLE t(a)")
    os.truncate(PATH, 3 << 29)
    c.execute("INSERT INTO t VALUES(1)")
    deadline = time.monotonic() + 60
    while not any("base.new" in names for _, _, names in os.walk(os.path.join(DIRECTORY, "spool"))):
        assert time.monotonic() < deadline, "no full snapshot begins"
        time.sleep(0.001)
    children = []
    for _ in range(10):
        children.append(sleeping_child())
        time.sleep(0.01)
    assert any("base.new" in names for _, _, names in os.walk(os.path.join(DIRECTORY, "spool"))), "the full snapshot is done"
    try:
        start = time.monotonic()
        flush(c)
        assert time.monotonic() - start < 60
    finally:
        end(children)


def child_of_a_parent_that_was_killed_while_uploading():
    """The parent's lock of copiers ends with the parent, whatever descriptors its child has."""
    hole = socket.create_server(("127.0.0.1", 0), backlog=256)
    configure(unreachable(hole))
    ready, go = os.pipe()

    def parent():
        load()
        c = connect()
        c.execute("CREATE TABLE t(a)")
        c.execute("INSERT INTO t VALUES(1)")
        uploads = []
        hole.settimeout(60)
        uploads.append(hole.accept())
        os.write(go, b"%d\n" % sleeping_child())
        time.sleep(600)

    pid = in_child(parent)
    child = int(os.read(ready, 100))
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    try:
        configure({"directory": {"path": os.path.join(DIRECTORY, "store")}})
        load()
        c = connect()
        start = time.monotonic()
        flush(c)
        assert time.monotonic() - start < 60
        assert replica("SELECT count(*) FROM t") == "1"
    finally:
        os.kill(child, 9)


def unreachable(hole):
    """A store that takes requests and answers none."""
    os.environ.update(AWS_ACCESS_KEY_ID="a", AWS_SECRET_ACCESS_KEY="b", AWS_EC2_METADATA_DISABLED="true")
    return {
        "s3": {
            "region": "us-east-1", "endpoint": f"http://127.0.0.1:{hole.getsockname()[1]}", "chunk_bucket": "c",
            "manifest_bucket": "m", "domain_addressing": False,
        }
    }


def links():
    """A database is replicated under its own name, whichever links led to it; under each of its names, where it has several."""
    os.mkdir(os.path.join(DIRECTORY, "real"))
    real = os.path.join(DIRECTORY, "real", "a.db")
    link = os.path.join(DIRECTORY, "link.db")
    os.symlink("real/a.db", link)
    os.symlink("real", os.path.join(DIRECTORY, "directory"))
    through = connect(link)
    through.execute("CREATE TABLE t(a)")
    through.execute("INSERT INTO t VALUES(1)")
    flush(through)
    assert replica("SELECT sum(a) FROM t", real) == "1"
    for n, path in enumerate([real, link, os.path.join(DIRECTORY, "directory", "a.db")]):
        c = connect(path)
        c.execute("INSERT INTO t VALUES(10)")
        through.execute("INSERT INTO t VALUES(100)")
        flush(c)
        assert replica("SELECT sum(a) FROM t", real) == str(1 + 110 * (n + 1))

    hard = os.path.join(DIRECTORY, "hard.db")
    os.link(real, hard)
    other = connect(hard)
    for n in range(3):
        other.execute("INSERT INTO t VALUES(1000)")
        through.execute("INSERT INTO t VALUES(1000)")
        other.execute("INSERT INTO t VALUES(1000)")
        for c, path in ((through, real), (other, hard)):
            flush(c)
            assert replica("SELECT sum(a) FROM t", path) == str(331 + 3000 * (n + 1))


def forks_while_threads_begin():
    """What Swift's runtime does on first use must not be under way in a thread that only the parent has: it would never
    end in the child. (`slow_threads.c` is preloaded: it takes long here.)"""

    def fresh_process():
        load()
        c = connect()
        c.execute("CREATE TABLE IF NOT EXISTS t(a)")
        c.execute("INSERT INTO t VALUES(randomblob(100000))")
        for i in range(5):
            time.sleep(random.random() / 100)

            def body():
                own = connect(os.path.join(DIRECTORY, f"child{i}.db"))
                own.execute("CREATE TABLE IF NOT EXISTS t(a)")
                own.execute("INSERT INTO t VALUES(1)")
                flush(own)

            assert wait(in_child(body)) == 0

    for _ in range(12):
        assert wait(in_child(fresh_process), 300) == 0


ENDS = {
    "return": "",
    "close": "c.close()",
    "sys.exit": "sys.exit(0)",
    "os._exit": "os._exit(0)",
    "writing": "c.execute('BEGIN IMMEDIATE'); c.execute('INSERT INTO t VALUES(1)'); sys.exit(0)",
}


def exit_with_uploads_in_flight():
    hole = socket.create_server(("127.0.0.1", 0), backlog=256)
    accepted = []
    came = threading.Event()

    def accept():
        while True:
            try:
                accepted.append(hole.accept()[0])
            except OSError:
                return
            came.set()

    threading.Thread(target=accept, daemon=True).start()
    configure(unreachable(hole))
    for name, end in ENDS.items():
        path = os.path.join(DIRECTORY, f"{name}.db")
        code = (
            "import os, sqlite3, sys\n"
            "loader = sqlite3.connect(':memory:')\n"
            "loader.enable_load_extension(True)\n"
            "loader.load_extension(sys.argv[1])\n"
            "c = sqlite3.connect('file:' + sys.argv[2] + '?vfs=verneuil', uri=True, isolation_level=None)\n"
            "c.execute('CREATE TABLE t(a)')\n"
            "for i in range(100): c.execute('INSERT INTO t VALUES(randomblob(100000))')\n"
            "print('written', flush=True)\n"
            "sys.stdin.readline()\n" + end
        )
        came.clear()
        program = subprocess.Popen(
            [sys.executable, "-c", code, EXTENSION, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert program.stdout.readline() == "written\n"
        assert came.wait(60), "nothing is uploaded"
        time.sleep(0.2)
        start = time.monotonic()
        program.stdin.write("\n")
        program.stdin.flush()
        status = program.wait(60)
        took = time.monotonic() - start
        print(f"{name}: status {status} after {took:.2f} s")
        assert status == 0, (name, status)
        assert took < 2, (name, took)
    # What could not be uploaded is still spooled, and goes to a store that answers.
    hole.close()
    store = os.path.join(DIRECTORY, "store")
    configure({"directory": {"path": store}})
    path = os.path.join(DIRECTORY, "return.db")
    code = (
        "import sqlite3, sys\n"
        "loader = sqlite3.connect(':memory:')\n"
        "loader.enable_load_extension(True)\n"
        "loader.load_extension(sys.argv[1])\n"
        "c = sqlite3.connect('file:' + sys.argv[2] + '?vfs=verneuil', uri=True)\n"
        "print(c.execute('PRAGMA verneuil_flush_replication_data').fetchone()[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, EXTENSION, path], capture_output=True, text=True, timeout=60)
    assert done.stdout == "1\n", (done.stdout, done.stderr)
    assert replica("SELECT count(*) FROM t", path) == "100"


def child_that_closes_what_is_flushed_on_close():
    """Without a target a flush fails, and says so: by that one sees who flushes."""
    c = connect()
    c.execute("CREATE TABLE t(a)")
    assert c.execute("PRAGMA verneuil_flush_replication_data=1").fetchone()[0] == "0"
    said = []
    standard_error = os.dup(2)

    def close():
        os.dup2(writer, 2)
        c.close()

    for who in ("child", "parent"):
        reader, writer = os.pipe()
        if who == "child":
            assert wait(in_child(close)) == 0
        else:
            close()
            os.dup2(standard_error, 2)
        os.close(writer)
        said.append(b"".join(iter(lambda: os.read(reader, 65536), b"")))
    assert said[0] == b"" and b"not everything is stored" in said[1], said


if CASE not in ("exit_with_uploads_in_flight", "child_of_a_parent_that_was_killed_while_uploading"):
    without = CASE == "child_that_closes_what_is_flushed_on_close"
    configure(None if without else {"directory": {"path": os.path.join(DIRECTORY, "store")}})
    if CASE != "forks_while_threads_begin":
        load()
globals()[CASE]()
