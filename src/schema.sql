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
    address   BLOB    NOT NULL PRIMARY KEY CHECK (length(address) = 16),
    -- The same as text; unknown:SERVICE for the clients of a service that have no address.
    source    TEXT    NOT NULL,
    -- Failures, decayed to the time `at`.
    level     REAL    NOT NULL,
    -- The last charged attempt, Unix milliseconds.
    at        INTEGER NOT NULL,
    -- Attempts of the last moments that were not refunded and may still be.
    open      INTEGER NOT NULL DEFAULT 0,
    -- The prefix lengths that mean anything for this address, as far as the curve goes.
    widest    INTEGER NOT NULL DEFAULT 0,
    narrowest INTEGER NOT NULL DEFAULT 128
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

CREATE TRIGGER failure_added AFTER INSERT ON failure BEGIN
    UPDATE meta SET value = value + 1 WHERE key = 'rows';
END;

CREATE TRIGGER failure_removed AFTER DELETE ON failure BEGIN
    UPDATE meta SET value = value - 1 WHERE key = 'rows';
END;

-- The count of every prefix that covers a failing address, now.
--
-- prefix 2001:db8::/32 · length 32 · failures 2.5 · quota 626 · full 0 or 1 (no room for one more)
CREATE VIEW prefix_count (prefix, length, failures, quota, full) AS
WITH
clock (now) AS (SELECT (julianday('now') - 2440587.5) * 86400000.0),
half (life) AS (SELECT value FROM meta WHERE key = 'half_life_ms'),
-- Addresses as 32 hexadecimal digits, with what is left of their failures.
live AS (
    SELECT hex(address) AS digits,
           address BETWEEN x'00000000000000000000FFFF00000000'
                       AND x'00000000000000000000FFFFFFFFFFFF' AS is_v4,
           widest, narrowest,
           level * pow(0.5, max(0.0, now - at) / life) AS failures
    FROM failure, clock, half
),
-- The same once for each length; `whole` digits are kept, and `part` bits of the next.
spread AS (
    SELECT q.family, q.length, q.quota, live.failures, live.digits,
           (q.length + 96 * is_v4) / 4 AS whole,
           (q.length + 96 * is_v4) % 4 AS part
    FROM live JOIN quota AS q
      ON q.family = 6 - 2 * is_v4 AND q.length BETWEEN live.widest AND live.narrowest
),
network AS (
    SELECT family, length, quota, failures,
           substr(substr(digits, 1, whole)
                  || substr('0123456789abcdef', 1
                            + ((instr('0123456789ABCDEF', substr(digits, whole + 1, 1)) - 1)
                               & (240 >> part)), 1)
                  || '00000000000000000000000000000000', 1, 32) AS digits
    FROM spread
),
counted AS (
    SELECT family, length, quota, lower(digits) AS digits, sum(failures) AS failures
    FROM network GROUP BY family, length, digits
)
-- The innermost SELECTs end with LIMIT 1 so that SQLite computes them once for each prefix, and
-- not again wherever their columns are named.
SELECT CASE family
           WHEN 4 THEN
                (16 * instr('123456789abcdef', substr(digits, 25, 1)) + instr('123456789abcdef', substr(digits, 26, 1))) || '.'
             || (16 * instr('123456789abcdef', substr(digits, 27, 1)) + instr('123456789abcdef', substr(digits, 28, 1))) || '.'
             || (16 * instr('123456789abcdef', substr(digits, 29, 1)) + instr('123456789abcdef', substr(digits, 30, 1))) || '.'
             || (16 * instr('123456789abcdef', substr(digits, 31, 1)) + instr('123456789abcdef', substr(digits, 32, 1)))
           ELSE (
               SELECT CASE WHEN zeros IS NULL THEN trim(groups, ':')
                      ELSE ltrim(substr(groups, 1, instr(groups, zeros) - 1), ':') || '::'
                           || rtrim(substr(groups, instr(groups, zeros) + length(zeros)), ':')
                      END
               -- The longest run of zeros, the first of equals (RFC 5952).
               FROM (SELECT groups, CASE
                         WHEN NOT instr(groups, ':0:0:')          THEN NULL
                         WHEN instr(groups, ':0:0:0:0:0:0:0:0:')  THEN ':0:0:0:0:0:0:0:0:'
                         WHEN instr(groups, ':0:0:0:0:0:0:0:')    THEN ':0:0:0:0:0:0:0:'
                         WHEN instr(groups, ':0:0:0:0:0:0:')      THEN ':0:0:0:0:0:0:'
                         WHEN instr(groups, ':0:0:0:0:0:')        THEN ':0:0:0:0:0:'
                         WHEN instr(groups, ':0:0:0:0:')          THEN ':0:0:0:0:'
                         WHEN instr(groups, ':0:0:0:')            THEN ':0:0:0:'
                         ELSE ':0:0:'
                     END AS zeros
                     -- As :2001:db8:0:0:0:0:0:0: with colons that make runs of zeros easy to find.
                     FROM (SELECT
                            ':' || coalesce(nullif(ltrim(substr(digits,  1, 4), '0'), ''), '0')
                         || ':' || coalesce(nullif(ltrim(substr(digits,  5, 4), '0'), ''), '0')
                         || ':' || coalesce(nullif(ltrim(substr(digits,  9, 4), '0'), ''), '0')
                         || ':' || coalesce(nullif(ltrim(substr(digits, 13, 4), '0'), ''), '0')
                         || ':' || coalesce(nullif(ltrim(substr(digits, 17, 4), '0'), ''), '0')
                         || ':' || coalesce(nullif(ltrim(substr(digits, 21, 4), '0'), ''), '0')
                         || ':' || coalesce(nullif(ltrim(substr(digits, 25, 4), '0'), ''), '0')
                         || ':' || coalesce(nullif(ltrim(substr(digits, 29, 4), '0'), ''), '0')
                         || ':' AS groups LIMIT 1) LIMIT 1)
           )
       END || '/' || length,
       length,
       round(failures, 3),
       quota,
       failures + 1.0 > quota + 1e-6
FROM counted;
