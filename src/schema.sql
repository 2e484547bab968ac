-- The store of prefixquota, version 1: the first step of its schema.
--
-- To be looked at with Debian's plain sqlite3 command, as root:
--
--   sqlite3 /var/lib/prefixquota/prefixquota.db 'SELECT * FROM prefix_count WHERE full'
--
-- Rows may be deleted by hand: every count is made from the rows that are there.

-- One row for each address that failed lately.
CREATE TABLE failure (
    -- Network order; IPv4 as ::ffff:a.b.c.d. The order of the keys is the order of the prefixes.
    address     BLOB    NOT NULL PRIMARY KEY CHECK (length(address) = 16),
    -- The same as text; unknown:SERVICE for the clients of a service that have no address.
    source      TEXT    NOT NULL,
    -- Failures, decayed to the time `at`.
    level       REAL    NOT NULL CHECK (level BETWEEN 0 AND 1e9),
    -- The last charged attempt and the first one, Unix milliseconds. A charge is only taken back
    -- from the row that it was added to, which `since` tells.
    at          INTEGER NOT NULL,
    since       INTEGER NOT NULL DEFAULT 0,
    -- Attempts that may still turn out right: of the `settle` that began at open_since, and of the
    -- one before.
    open_since  INTEGER NOT NULL DEFAULT 0,
    open        INTEGER NOT NULL DEFAULT 0 CHECK (open >= 0),
    open_before INTEGER NOT NULL DEFAULT 0 CHECK (open_before >= 0),
    -- The prefix lengths that mean anything for this address, as far as the curve goes.
    widest      INTEGER NOT NULL DEFAULT 0,
    narrowest   INTEGER NOT NULL DEFAULT 128
) STRICT, WITHOUT ROWID;

-- The curve in force: what a prefix of each length may have. Written from the settings.
CREATE TABLE quota (
    family INTEGER NOT NULL,
    length INTEGER NOT NULL,
    quota  INTEGER NOT NULL,
    PRIMARY KEY (family, length)
) STRICT, WITHOUT ROWID;

-- policy        the settings that `quota` and half_life_ms were written from
-- half_life_ms  after this time half of every level is left
-- rows          how many rows `failure` has
-- sweep_from    where the search for faded rows goes on
CREATE TABLE meta (
    key   TEXT NOT NULL PRIMARY KEY,
    value ANY
) STRICT, WITHOUT ROWID;

INSERT INTO meta VALUES
    ('policy', ''), ('half_life_ms', 3600000), ('rows', 0), ('sweep_from', zeroblob(16));

-- For rows that are deleted by hand as well; new ones are counted where they are made.
CREATE TRIGGER failure_removed AFTER DELETE ON failure BEGIN
    UPDATE meta SET value = value - 1 WHERE key = 'rows';
END;

-- The count of every prefix that covers a failing address, now.
--
-- prefix 2001:db8::/32 · length 32 · failures 2.5 · quota 626 · full 0 or 1 (no room for one more)
--
-- Every login parses this text, so it is kept short.
CREATE VIEW prefix_count (prefix, length, failures, quota, full) AS
WITH
-- Addresses as 32 hexadecimal digits, with what is left of their failures.
live AS (
    SELECT lower(hex(address)) AS digits, widest, narrowest,
           address BETWEEN x'00000000000000000000FFFF00000000'
                       AND x'00000000000000000000FFFFFFFFFFFF' AS is_v4,
           level * pow(0.5, max(0.0, (julianday('now') - 2440587.5) * 86400000.0 - at)
                            / (SELECT value FROM meta WHERE key = 'half_life_ms')) AS failures
    FROM failure
),
-- Summed for each length: whole digits are kept, then some bits of the next.
counted AS (
    SELECT family, length, quota, sum(failures) AS failures,
           substr(substr(digits, 1, bits / 4)
                  || substr('0123456789abcdef', 1
                            + ((instr('0123456789abcdef', substr(digits, bits / 4 + 1, 1)) - 1)
                               & (240 >> bits % 4)), 1)
                  || '00000000000000000000000000000000', 1, 32) AS network
    FROM live JOIN (SELECT *, length + 48 * (6 - family) AS bits FROM quota)
      ON family = 6 - 2 * is_v4 AND length BETWEEN widest AND narrowest
    GROUP BY family, length, network
)
-- The inner SELECTs end with LIMIT 1 so that SQLite computes them once for each prefix, and not
-- again wherever their columns are named.
SELECT CASE family
           WHEN 4 THEN (
               SELECT group_concat(16 * instr('123456789abcdef', substr(network, column1, 1))
                                   + instr('123456789abcdef', substr(network, column1 + 1, 1)), '.')
               FROM (VALUES (25), (27), (29), (31))
           )
           ELSE (
               SELECT CASE WHEN zeros IS NULL THEN trim(groups, ':')
                      ELSE ltrim(substr(groups, 1, instr(groups, zeros) - 1), ':') || '::'
                           || rtrim(substr(groups, instr(groups, zeros) + length(zeros)), ':')
                      END
               FROM (SELECT groups, (
                         -- The longest run of zeros, the first of equals (RFC 5952).
                         SELECT substr(':0:0:0:0:0:0:0:0:', column1)
                         FROM (VALUES (1), (3), (5), (7), (9), (11), (13))
                         WHERE instr(groups, substr(':0:0:0:0:0:0:0:0:', column1)) LIMIT 1
                     ) AS zeros
                     -- As :2001:db8:0:0:0:0:0:0: with colons that make runs of zeros easy to find.
                     FROM (SELECT ':' || group_concat(
                               coalesce(nullif(ltrim(substr(network, column1, 4), '0'), ''), '0'), ':'
                           ) || ':' AS groups
                           FROM (VALUES (1), (5), (9), (13), (17), (21), (25), (29)) LIMIT 1) LIMIT 1)
           )
       END || '/' || length,
       length,
       round(failures, 3),
       quota,
       failures + 1.0 > quota + 1e-6
FROM counted;
