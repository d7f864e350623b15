// What must not be under way when the process forks (vrn_fork.c).
#ifndef VRN_FORK_H
#define VRN_FORK_H

/// The calling thread is one of ours from now on, and at work. May wait for a fork to be over.
void vrn_gate_join(void);
/// It ends.
void vrn_gate_quit(void);

/// Around what waits (for a lock, a disk, a server): the process may fork meanwhile, and `vrn_gate_enter` waits until it has.
/// No Swift in between. On threads that have not joined these do nothing.
void vrn_gate_leave(void);
void vrn_gate_enter(void);

/// A place at which a thread of ours may stand while the process forks, in loops that wait for nothing: before every lock
/// and what reads and writes files.
extern int vrn_forking;
void vrn_gate_pass(void);
static inline void vrn_gate_poll(void) {
  if (__builtin_expect(__atomic_load_n(&vrn_forking, __ATOMIC_RELAXED) != 0, 0))
    vrn_gate_pass();
}

/// `call` is made by the thread that forks, before it waits for ours: it has
/// threads that wait in code of others pass through the gate.
void vrn_gate_set_caller(void (*call)(void));

/// Has fork(2) mind the gate; any number of times. 0, or an errno.
int vrn_fork_prepare(void);

/// Whether SQLite has to seed its random numbers afresh, once in each process: a child of fork(2) would draw its parent's.
extern int vrn_reseed;
static inline int vrn_take_reseed(void) {
  return __builtin_expect(__atomic_load_n(&vrn_reseed, __ATOMIC_RELAXED) != 0, 0) &&
         __atomic_exchange_n(&vrn_reseed, 0, __ATOMIC_RELAXED) != 0;
}

// The part of open databases: vrn_file.c.
void vrn_file_before_fork(void);
void vrn_file_after_fork_in_parent(void);
void vrn_file_after_fork_in_child(void);

#endif
