/// What `--json` prints, by command: a test compares it with what comes.
enum JSONShapes {
    static let markdown = """
        ## JSON

        Members are added, never renamed or removed, within a major version. Sizes are bytes, times are seconds since 1970.

        | command | object |
        |---|---|
        | `restore --out F --json` | `length`; of these bytes `fetched`, `bundled` (from the manifest), `from_base`, `resumed`, `zero` |
        | `manifest --json` | `name`, `length`, `ctime` (a string with nine digits after the point), `generated_by`, `header_fingerprint`, `contents_fingerprint`, `base_chunk` (or null), `bundled_chunks` (indices), `chunks` (names) |
        | `manifest-name --json` | `host`, `path`, `manifest_name` |
        | `verify --json` | `outcome` (`good`, `bad`, `unknown`), `databases`: a list of `name`, `manifest`, `store`, `outcome`, `length` (or null), `ctime`, `chunks`, `finding_count`, `findings`; `failures`: a list of `store`, `finding`. A finding is `outcome`, `object`, `expected`, `found` |
        | `status --json` | `spooling_directory`, `lag_seconds`, `problems`, `databases`: a list of `path`, `bytes` (or null), `lag_seconds`, `transactions`, `unspooled_since` (a time, or null), `staged` (`chunks`, `bytes`), `spool` (`bytes`, `bound`), `problems`, `targets`: a list of `identifier`, `name`, `lag_seconds`, `pending` and `uploaded` (`chunks`, `bytes`), `progress` (`done`, `total`; or null), `last_success` (a time, or null), `last_error` (`time`, `reason`; or null), `failures`, `unguarded`, `problems`. Times are as in RFC 3339 |
        | `doctor --json` | `outcome` (`ok`, `problem`, `unknown`), `checks`: a list of `subject`, `check`, `outcome`, `found`, `advice` (or null) |

        """
}
