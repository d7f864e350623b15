// Locks that are this process's alone (vrn_held.c).
#ifndef VRN_HELD_H
#define VRN_HELD_H

/// A descriptor whose lock no forked child takes part in.
typedef struct vrn_held vrn_held;

/// Before the lock is taken. NULL: no memory, or no handlers for fork(2).
vrn_held *vrn_held_list(int fd);
/// Before the descriptor is closed, in the process that listed it or in a child of it.
void vrn_held_unlist(vrn_held *held);

// For vrn_fork.c.
void vrn_held_before_fork(void);
void vrn_held_after_fork_in_parent(void);
void vrn_held_after_fork_in_child(void);

#endif
