// Lines on standard error that neither kill nor stop the process (vrn_log.c).
#ifndef VRN_LOG_H
#define VRN_LOG_H
#include <limits.h>
#include <stddef.h>

/// What a pipe takes in one piece.
enum { VRN_LOG_LINE = PIPE_BUF };

/// How many lines were dropped since the last call, which the next line is to tell.
unsigned vrn_log_take_dropped(void);

/// Writes a line of at most VRN_LOG_LINE bytes, or drops it.
/// - Parameter reported: dropped lines that this one tells of: with it, they are dropped once more.
void vrn_log_write(const void *line, size_t n, unsigned reported);

#endif
