// What fork(2) does to threads of ours: it copies none of them, but all that
// they were in the middle of. Locks of our own are made afresh in the child
// (ProcessLocal). Those of Swift's runtime can't be: the metadata of a generic
// type that was being made, a static that was being initialised, a cache that
// was being looked up stay so for ever, and the first commit in the child that
// needs one of them hangs in the middle of the application's call.
//
// So fork waits until no thread of ours runs Swift: each stands at a gate where
// it waits anyway (for a lock, a disk, a server) or looks whether it should, and passes only while nobody
// forks. That takes as long as the longest piece of work between two waits,
// parts of a millisecond on an idle machine; never longer than a second, since
// an application whose fork hangs is worse off than one whose child does.
//
// What is left is Swift's own: once the runtime has waited for a first use in a thread, it keeps that
// thread's id, and the copy of the thread in a child goes on with the parent's.
// If another thread of the child then comes to a first use that this one is at,
// each waits for the other for ever (a futex with an owner). So what a commit
// and our threads both use first is made before there are threads: FingerprintKey.makeAll.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include "vrn_fork.h"
#include "vrn_held.h"
#include "vrn_system.h"

static const long longest_wait = 1000000000; // nanoseconds

static pthread_once_t once = PTHREAD_ONCE_INIT;
static int handlers_error;

// Held by the thread that forks until it has.
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t left, opened;
// Threads of ours at work, and threads that want to fork.
static int inside;
int vrn_forking;
int vrn_reseed = 1;
static void (*caller)(void);

// Of the calling thread.
enum { STRANGER, INSIDE, OUTSIDE };
static _Thread_local int place;

static void make_conditions(void) {
  pthread_condattr_t attributes;
  pthread_condattr_init(&attributes);
#ifdef __linux__
  pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
#endif
  pthread_cond_init(&left, &attributes);
  pthread_cond_init(&opened, &attributes);
  pthread_condattr_destroy(&attributes);
}

static struct timespec deadline(void) {
  struct timespec t;
#ifdef __linux__
  clock_gettime(CLOCK_MONOTONIC, &t);
#else
  clock_gettime(CLOCK_REALTIME, &t);
#endif
  t.tv_nsec += longest_wait;
  t.tv_sec += t.tv_nsec / 1000000000;
  t.tv_nsec %= 1000000000;
  return t;
}

// Written under the mutex, read without it by vrn_gate_poll.
static void set_forking(int n) { __atomic_store_n(&vrn_forking, n, __ATOMIC_RELAXED); }

static void before_fork(void) {
  struct timespec end = deadline();
  // A thread of ours that forks (a log handler may) doesn't wait for itself.
  int own = place == INSIDE;
  pthread_mutex_lock(&mutex);
  set_forking(vrn_forking + 1);
  if (caller != 0 && inside > own) {
    pthread_mutex_unlock(&mutex);
    caller();
    pthread_mutex_lock(&mutex);
  }
  while (inside > own && pthread_cond_timedwait(&left, &mutex, &end) == 0) {
  }
  vrn_file_before_fork();
  vrn_held_before_fork();
}

static void after_fork_in_parent(void) {
  vrn_held_after_fork_in_parent();
  vrn_file_after_fork_in_parent();
  set_forking(vrn_forking - 1);
  if (vrn_forking == 0)
    pthread_cond_broadcast(&opened);
  pthread_mutex_unlock(&mutex);
}

static void after_fork_in_child(void) {
  // First: what opens files below would pass the gate, for which the mutex is held.
  set_forking(0);
  vrn_held_after_fork_in_child();
  vrn_file_after_fork_in_child();
  inside = place == INSIDE;
  __atomic_store_n(&vrn_reseed, 1, __ATOMIC_RELAXED);
  // Threads that only the parent has wait for these.
  make_conditions();
  pthread_mutex_unlock(&mutex);
}

static void install(void) {
  make_conditions();
  handlers_error = pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

int vrn_fork_prepare(void) {
  pthread_once(&once, install);
  return handlers_error;
}

void vrn_gate_set_caller(void (*call)(void)) {
  pthread_mutex_lock(&mutex);
  caller = call;
  pthread_mutex_unlock(&mutex);
}

static void go_in(void) {
  pthread_mutex_lock(&mutex);
  while (vrn_forking > 0)
    pthread_cond_wait(&opened, &mutex);
  inside++;
  pthread_mutex_unlock(&mutex);
  place = INSIDE;
}

static void go_out(int to) {
  pthread_mutex_lock(&mutex);
  inside--;
  if (vrn_forking > 0)
    pthread_cond_broadcast(&left);
  pthread_mutex_unlock(&mutex);
  place = to;
}

void vrn_gate_join(void) {
  if (place == STRANGER && vrn_fork_prepare() == 0)
    go_in();
}

void vrn_gate_quit(void) {
  if (place == INSIDE)
    go_out(STRANGER);
}

void vrn_gate_leave(void) {
  if (place == INSIDE)
    go_out(OUTSIDE);
}

void vrn_gate_enter(void) {
  int e;
  if (place != OUTSIDE)
    return;
  e = errno;
  go_in();
  errno = e;
}

void vrn_gate_pass(void) {
  vrn_gate_leave();
  vrn_gate_enter();
}
