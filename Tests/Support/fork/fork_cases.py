"""What fork(2) does to connections through the `linux` VFS, with real callers: os.fork and multiprocessing.

    /usr/bin/python3 fork_cases.py CASE EXTENSION DIRECTORY

Exit status 0 where the case holds. Other processes look at the database through SQLite's own unix VFS (`--outside`)."""

import ctypes
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time

CASE, EXTENSION, DIRECTORY = sys.argv[1:4]
PATH = os.path.join(DIRECTORY, "a.db")


def connect(path=PATH, timeout=0.0):
    c = sqlite3.connect(f"file:{path}?vfs=linux", uri=True, isolation_level=None, timeout=timeout)
    return c


def outside(sql, path=PATH):
    """Runs SQL in a fresh process through the unix VFS: its first value, or the error's text."""
    code = (
        "import sqlite3, sys\n"
        "c = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=0)\n"
        "try:\n"
        "    value = None\n"
        "    for statement in sys.argv[2].split(';'):\n"
        "        row = c.execute(statement).fetchone()\n"
        "        value = row[0] if row else value\n"
        "    print(value)\n"
        "except sqlite3.Error as e:\n"
        "    print(e)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, path, sql], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def in_child(body):
    """Forks; the child runs `body` and ends without finalizing anything. Its exit status."""
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
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def descriptors():
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue
        if target.startswith(DIRECTORY):
            found.append(target)
    return sorted(found)


def write_lock_is_held():
    return outside("BEGIN IMMEDIATE") == "database is locked"


def children_that_only_exit():
    c = connect()
    c.execute("CREATE TABLE t(a)")
    c.execute("BEGIN IMMEDIATE")
    c.execute("INSERT INTO t VALUES(1)")
    before = descriptors()
    for _ in range(5):
        assert in_child(lambda: None) == 0
    assert write_lock_is_held()
    assert descriptors() == before
    c.execute("INSERT INTO t VALUES(2)")
    c.execute("COMMIT")
    assert outside("SELECT count(*) FROM t; PRAGMA integrity_check") == "ok"
    assert outside("SELECT count(*) FROM t") == "2"


def child_that_ends_the_interpreter():
    """sys.exit in a child finalizes the interpreter, which closes the connections it inherited."""
    c = connect()
    c.execute("CREATE TABLE t(a)")
    c.execute("INSERT INTO t VALUES(1),(2)")
    cursor = c.execute("SELECT a FROM t")
    assert cursor.fetchone() == (1,)  # a read transaction, open
    pid = os.fork()
    if pid == 0:
        cursor = None
        c.close()
        sys.exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    # The parent's SHARED lock keeps a writer from committing.
    assert outside("BEGIN IMMEDIATE; INSERT INTO t VALUES(3); COMMIT") == "database is locked"
    assert cursor.fetchall() == [(2,)]
    assert outside("INSERT INTO t VALUES(3); SELECT count(*) FROM t") == "3"


def child_that_ends_the_interpreter_in_exclusive_mode():
    c = connect()
    c.execute("PRAGMA locking_mode=EXCLUSIVE")
    c.execute("CREATE TABLE t(a)")
    pid = os.fork()
    if pid == 0:
        c.close()
        sys.exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert outside("SELECT count(*) FROM t") == "database is locked"
    c.execute("INSERT INTO t VALUES(1)")
    c.close()
    assert outside("SELECT count(*) FROM t") == "1"


def child_that_uses_its_inherited_connection():
    """SQLite forbids it. Here as with the unix VFS, the child has no lock, and takes its own."""
    c = connect()
    c.execute("CREATE TABLE t(a)")
    c.execute("INSERT INTO t VALUES(1)")

    def body():
        assert c.execute("SELECT a FROM t").fetchall() == [(1,)]
        c.execute("BEGIN IMMEDIATE")
        assert write_lock_is_held()
        c.execute("ROLLBACK")

    assert in_child(body) == 0
    c.execute("BEGIN IMMEDIATE")
    assert write_lock_is_held()
    c.execute("COMMIT")


def parent_that_is_killed():
    """The locks of a killed process are gone, whatever children it leaves."""
    c = connect()
    c.execute("CREATE TABLE t(a)")
    c.execute("INSERT INTO t VALUES(1)")
    c.execute("PRAGMA journal_mode=DELETE")
    c.close()
    reader, writer = os.pipe()
    parent = os.fork()
    if parent == 0:
        c = connect()
        c.execute("PRAGMA cache_size=1")
        c.execute("BEGIN IMMEDIATE")
        c.execute("INSERT INTO t SELECT zeroblob(100000)")
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        os.write(writer, str(child).encode())
        time.sleep(60)
        os._exit(0)
    child = int(os.read(reader, 20))
    try:
        assert write_lock_is_held()
        os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
        os.kill(child, 0)  # it lives
        # Whoever comes next rolls back and goes on.
        assert outside("INSERT INTO t VALUES(2); SELECT count(*) FROM t") == "2"
        assert outside("PRAGMA integrity_check") == "ok"
    finally:
        os.kill(child, signal.SIGKILL)


def child_with_connections_of_its_own():
    c = connect()
    c.execute("CREATE TABLE t(a)")
    c.execute("BEGIN IMMEDIATE")
    c.execute("INSERT INTO t VALUES(1)")

    def body():
        own = connect()
        assert own.execute("SELECT count(*) FROM t").fetchone() == (0,)
        try:
            own.execute("BEGIN IMMEDIATE")
            raise AssertionError("the parent's lock is not seen")
        except sqlite3.OperationalError as e:
            assert str(e) == "database is locked"
        own.close()
        other = connect(os.path.join(DIRECTORY, "other.db"))
        other.execute("CREATE TABLE o(a)")
        other.execute("INSERT INTO o VALUES(1)")
        other.close()

    assert in_child(body) == 0
    assert write_lock_is_held()
    c.execute("COMMIT")
    assert outside("SELECT count(*) FROM t") == "1"
    assert outside("SELECT count(*) FROM o", os.path.join(DIRECTORY, "other.db")) == "1"


def child_that_executes_another_program():
    c = connect()
    c.execute("CREATE TABLE t(a)")
    c.execute("BEGIN IMMEDIATE")
    c.execute("INSERT INTO t VALUES(1)")
    temporary = sqlite3.connect("file:?vfs=linux", uri=True)
    temporary.execute("PRAGMA cache_size=1")
    temporary.execute("CREATE TABLE t AS SELECT zeroblob(100000)")
    inherited = subprocess.run(
        ["ls", "-l", "/proc/self/fd"], close_fds=False, capture_output=True, text=True, check=True
    ).stdout
    assert DIRECTORY not in inherited, inherited
    pid = os.fork()
    if pid == 0:
        os.execvp("true", ["true"])
    assert os.waitpid(pid, 0)[1] == 0
    assert write_lock_is_held()
    c.execute("COMMIT")
    assert outside("SELECT count(*) FROM t") == "1"


def worker(i):
    c = connect(timeout=60)
    c.execute("INSERT INTO t VALUES(?)", (i,))
    c.close()
    return i


def multiprocessing_pool():
    c = connect()
    c.execute("CREATE TABLE t(a)")
    with multiprocessing.get_context("fork").Pool(4) as pool:
        assert sorted(pool.map(worker, range(40))) == list(range(40))
    c.execute("INSERT INTO t VALUES(40)")
    assert outside("SELECT count(DISTINCT a) FROM t") == "41"
    assert outside("PRAGMA integrity_check") == "ok"


def threads_at_work_while_another_forks():
    """fork(2) copies one thread; what the others held must not stay held in the child."""
    stop = threading.Event()
    errors = []

    def work(n):
        path = os.path.join(DIRECTORY, f"{n}.db")
        try:
            setup = connect(path)
            setup.execute("CREATE TABLE t(a)")
            setup.close()
            while not stop.is_set():
                c = connect(path)
                c.execute("INSERT INTO t VALUES(1)")
                c.close()
        except Exception as e:
            errors.append(e)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    for t in threads:
        t.start()

    # (A child that used SQLite might find one of SQLite's own mutexes taken, whatever the VFS.)
    for _ in range(200):
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        deadline = time.monotonic() + 60
        while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0:
            assert time.monotonic() < deadline, "a child hangs"
            time.sleep(0.001)
        assert ended[1] == 0, ended
    stop.set()
    for t in threads:
        t.join()
    assert errors == [], errors
    for n in range(3):
        assert outside("PRAGMA integrity_check", os.path.join(DIRECTORY, f"{n}.db")) == "ok"


def child_without_proc():
    """Where a child can't get a description of its own, its inherited connection fails; the parent's lock stays."""
    c = connect()
    c.execute("CREATE TABLE t(a)")
    empty = os.path.join(DIRECTORY, "empty")
    os.mkdir(empty)
    reader, writer = os.pipe()
    reader2, writer2 = os.pipe()
    middle = os.fork()
    if middle == 0:
        own = connect()
        own.execute("PRAGMA locking_mode=EXCLUSIVE")
        own.execute("PRAGMA journal_mode=MEMORY")
        own.execute("INSERT INTO t VALUES(1)")
        os.chroot(empty)
        pid = os.fork()
        if pid == 0:
            try:
                own.execute("INSERT INTO t VALUES(2)")
                os._exit(1)
            except sqlite3.OperationalError:
                own.close()
                os._exit(0)
        status = os.waitpid(pid, 0)[1]
        os.write(writer, b"0" if status == 0 else b"1")
        os.read(reader2, 1)
        own.execute("INSERT INTO t VALUES(3)")
        os._exit(0)
    assert os.read(reader, 1) == b"0"
    assert outside("SELECT count(*) FROM t") == "database is locked"
    os.write(writer2, b"x")
    assert os.waitpid(middle, 0)[1] == 0
    assert outside("SELECT sum(a) FROM t") == "4"


def children_that_draw_random_numbers():
    """SQLite goes on with the generator that it has, and a child has its parent's: a VFS has it begin afresh (sqlite3_randomness)."""
    connect().execute("CREATE TABLE t(a)")
    sqlite3.connect(":memory:").execute("SELECT randomblob(16)")  # it is seeded
    # What isn't there can't be opened, and counts all the same.
    names = [f"file:{PATH}?vfs=linux", f"file:{PATH}?vfs=verneuil", "file:verneuil:///nowhere?vfs=verneuil_snapshot"]
    drawn = []
    for name in names * 2:
        reader, writer = os.pipe()

        def body():
            try:
                sqlite3.connect(name, uri=True).execute("SELECT 1 FROM sqlite_schema").fetchall()
            except sqlite3.Error:
                pass
            os.write(writer, sqlite3.connect(":memory:").execute("SELECT randomblob(16)").fetchone()[0])

        assert in_child(body) == 0
        drawn.append(os.read(reader, 16))
    assert len(set(drawn)) == len(names) * 2, drawn


loader = sqlite3.connect(":memory:")
loader.enable_load_extension(True)
loader.load_extension(EXTENSION)
loader.close()
globals()[CASE]()
