-- The view that people read; made anew by every step.
--
-- To be looked at with Debian's plain sqlite3 command, as root:
--
--   sqlite3 /var/lib/prefixquota/prefixquota.db 'SELECT * FROM prefix_count WHERE full'
--
-- Every login parses this text, so it is kept short.
DROP VIEW IF EXISTS prefix_count;

-- The count of every prefix that covers a failing address, now.
--
-- prefix 2001:db8::/32 · length 32 · failures 2.5 · quota 626 · full 0 or 1 (no room for one more)
--
CREATE VIEW prefix_count (prefix, length, failures, quota, full) AS
WITH
-- Addresses as 32 hexadecimal digits, with what is left of their failures.
live AS (
    SELECT *, level * pow(0.5, age / (SELECT value FROM meta WHERE key = 'half_life_ms'))
                  AS failures,
           slow * pow(0.5, age / (SELECT value FROM meta WHERE key = 'slow_half_life_ms'))
                  AS slow_failures
    FROM (SELECT lower(hex(address)) AS digits, widest, narrowest, level, slow,
                 address BETWEEN x'00000000000000000000FFFF00000000'
                             AND x'00000000000000000000FFFFFFFFFFFF' AS is_v4,
                 max(0.0, (julianday('now') - 2440587.5) * 86400000.0 - at) AS age
          FROM failure)
),
-- Summed for each length: whole digits are kept, then some bits of the next.
counted AS (
    SELECT family, length, sum(failures) AS failures, sum(slow_failures) AS slow_failures,
           substr(substr(digits, 1, bits / 4)
                  || substr('0123456789abcdef', 1
                            + ((instr('0123456789abcdef', substr(digits, bits / 4 + 1, 1)) - 1)
                               & (240 >> bits % 4)), 1)
                  || '00000000000000000000000000000000', 1, 32) AS network
    FROM live JOIN (SELECT DISTINCT family, length, length + 48 * (6 - family) AS bits FROM quota)
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
       failures + 1.0 > quota + 1e-6 OR coalesce(slow_failures + 1.0 > 4 * quota + 1e-6, 0)
FROM (SELECT *, (SELECT quota FROM quota
                 WHERE family = c.family AND length = c.length
                   AND c.network BETWEEN first AND last
                 ORDER BY first DESC, last LIMIT 1) AS quota
      FROM counted c);
