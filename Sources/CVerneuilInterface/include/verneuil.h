/*
 * Verneuil: asynchronous replication of SQLite databases to S3-compatible
 * stores, as a SQLite VFS.
 *
 * The same functions are in the loadable extension (libverneuil_vfs.so) and in
 * the static library (libverneuil.a), which a program links beside SQLite:
 *
 *     cc program.c $(pkg-config --cflags --libs verneuil)
 *
 *     struct verneuil_options options = {0};
 *     options.json_options = "@/etc/verneuil.json";
 *     if (verneuil_configure(&options) != 0)
 *       return 1;
 *     sqlite3_open_v2("file:app.db?vfs=verneuil", &db,
 *                     SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, 0);
 *
 * All of them may be called from any thread, at any time; but the first
 * verneuil_configure opens a connection for a moment, so that it must not be
 * called from within SQLite.
 * Strings are UTF-8 and end with a zero byte. Arguments are only read during
 * the call: the caller keeps what it passes.
 *
 * Functions that return int answer 0 where they succeed, -1 or a SQLite result
 * code where not; what went wrong is on standard error, unless it says
 * otherwise.
 */
#ifndef VERNEUIL_H
#define VERNEUIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct sqlite3;
struct sqlite3_api_routines;

/*
 * Settings for the whole process. A zeroed struct asks for what the
 * environment variable VERNEUIL_CONFIG says.
 */
struct verneuil_options {
  /* Make "verneuil" the VFS of connections that name none. */
  bool make_default;
  /* Directory for temporary files; NULL: as json_options says, or where SQLite would put them. */
  const char *tempdir;
  /* Replicated databases are spooled below this directory; NULL: as json_options says. */
  const char *replication_spooling_dir;
  /* Its permission bits; 0: as json_options says, or 0700. */
  uint32_t replication_spooling_dir_permissions;
  /* A JSON object, or '@' and the path of a file that holds one, in place of
   * VERNEUIL_CONFIG. NULL: VERNEUIL_CONFIG. The fields above win over it. */
  const char *json_options;
};

/*
 * What is replicated of a database, or what a manifest says. Filled by the two
 * functions below; verneuil_replication_info_deinit frees what it points to.
 */
struct verneuil_replication_info {
  /* The manifest's object name; NULL where only the manifest's bytes were given. */
  char *blob_name;
  /* Fingerprint of the database's first 100 bytes. */
  uint64_t header_fprint[2];
  /* Fingerprint of the list of its chunks' fingerprints: equal for equal files. */
  uint64_t contents_fprint[2];
  /* When the file was last changed, by its own machine's clock: seconds since
   * 1970 and nanoseconds; 0 where that is not known. */
  uint64_t ctime;
  uint32_t ctime_ns;
  /* The manifest as it is stored. */
  size_t num_bytes;
  char *bytes;
};

/*
 * Sets the process's configuration and registers the VFSs. NULL is the same as
 * a zeroed struct. Loading the extension does this by itself, with
 * VERNEUIL_CONFIG. Replication is configured once: a later call
 *   - that asks for the same, or for nothing at all, succeeds and changes nothing;
 *   - that asks for anything else succeeds where replication was off until then
 *     (no replication_spooling_dir), and is taken in place of what was asked for
 *     before, by whatever is opened from then on;
 *   - answers SQLITE_MISUSE (21) otherwise.
 *
 * Where SQLite is not initialized yet, this initializes it: call
 * sqlite3_config before.
 *
 * -1: the configuration can't be used, or this machine's name not be read.
 * SQLITE_MISUSE (21): another configuration is in force; or, in the extension,
 * SQLite has not loaded it yet.
 * Others: what SQLite answered to sqlite3_initialize or sqlite3_vfs_register.
 * Nothing has changed then.
 */
int verneuil_configure(const struct verneuil_options *options);

/*
 * Describes the latest snapshot of a database that is spooled for upload, or was
 * uploaded by this machine since it started.
 *
 * info: overwritten; zeroed where the function fails.
 * db: an open connection with the verneuil VFS.
 * dbname: "main", or the name under which the database was attached; NULL: "main".
 *
 * SQLITE_NOTFOUND (12): the database isn't replicated, or there is no snapshot of
 * it yet.
 * SQLITE_CORRUPT (11): what was uploaded last can't be read.
 * SQLITE_MISUSE (21): info or db is NULL, or nothing is configured.
 * SQLITE_NOMEM (7): there is no memory.
 * -1: settings in the database's file name can't be used.
 */
int verneuil_replication_info_for_db(struct verneuil_replication_info *info,
                                     struct sqlite3 *db, const char *dbname);

/*
 * Describes a stored manifest, compressed or not, from its bytes alone.
 *
 * info: overwritten; zeroed where the function fails.
 *
 * SQLITE_CORRUPT (11): the bytes are no manifest.
 * SQLITE_MISUSE (21): info is NULL.
 * SQLITE_NOMEM (7): there is no memory.
 */
int verneuil_replication_info_for_manifest(struct verneuil_replication_info *info,
                                           const char *bytes, size_t num_bytes);

/* Frees what the struct points to, and zeroes it. NULL and zeroed structs are fine. */
void verneuil_replication_info_deinit(struct verneuil_replication_info *info);

/*
 * The name of the object that holds a database's manifest.
 *
 * hostname: of the machine that replicates it; NULL or "": this one.
 * path: of the database file there. A relative path, or one with symbolic
 *   links, is resolved here where the file exists here.
 *
 * NULL where there is no memory or the path is empty. The caller frees it with
 * verneuil_manifest_name_destroy.
 */
char *verneuil_manifest_name_for_hostname_path(const char *hostname, const char *path);

/* Frees a name. NULL is fine. */
void verneuil_manifest_name_destroy(char *name);

/*
 * The extension's entry point, as sqlite3_load_extension calls it. Programs that
 * link the static library call verneuil_configure in its place: what this
 * answers would fail each connection, where sqlite3_auto_extension calls it.
 * db may be NULL.
 *
 * SQLITE_OK_LOAD_PERMANENTLY (256), also when it is called again, whatever
 * VERNEUIL_CONFIG says by then.
 * SQLITE_ERROR (1): VERNEUIL_CONFIG can't be used, this machine's name not be
 * read, or SQLite refuses a VFS, or another SQLite has loaded the extension;
 * *error_message says why and is to be freed by sqlite3_free.
 */
int sqlite3_verneuilvfs_init(struct sqlite3 *db, char **error_message,
                             const struct sqlite3_api_routines *api);

#ifdef __cplusplus
}
#endif
#endif
