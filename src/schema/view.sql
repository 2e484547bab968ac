-- The view that people read; made anew by every step.
--
-- To be looked at with Debian's plain sqlite3 command, as root:
--
--   sqlite3 /var/lib/prefixquota/prefixquota.db 'SELECT * FROM prefix_count WHERE full'
--
-- Every login parses its text (60 us for this one), so it is short, and what can be prepared is in
-- the tables `quota`, `part` and `zeros`.
DROP VIEW IF EXISTS prefix_count;

-- The count of every prefix that covers a failing address, now.
--
-- prefix 2001:db8::/32 · length 32 · failures 2.5 · quota 626 · full 0 or 1 (no room for one more)
--
-- `counted` sums the addresses, as 32 hexadecimal digits, for each length: whole digits are kept,
-- then some bits of the next. The digits of a network are then written as people do: for IPv6 with
-- the longest run of zeros left out, the first of equals (RFC 5952).
CREATE VIEW prefix_count (prefix, length, failures, quota, full) AS
WITH counted AS (
    SELECT family, length, sum(level * pow(0.5, age / half_life_ms)) AS failures,
           sum(slow * pow(0.5, age / slow_half_life_ms)) AS slow,
           substr(digits, 1, keep) || substr(map, instr('0123456789abcdef',
                                                        substr(digits, keep + 1, 1)), 1) || pad
               AS network
    FROM (SELECT *, lower(hex(address)) AS digits,
                 max(0.0, strftime('%s') * 1000.0 - at) AS age FROM failure)
    JOIN quota ON first = '' AND length BETWEEN widest AND narrowest
                  AND (family = 4) = (narrowest = 32)
    GROUP BY family, length, network
)
SELECT (SELECT ltrim(substr(text, 1, instr(text, zeros) - 1), ':') || substr('::', 1, length(zeros))
               || trim(substr(text, instr(text, zeros) + length(zeros)), ':')
        FROM (SELECT ':' || group_concat(iif(family = 4,
                         16 * instr('123456789abcdef', substr(network, start, 1))
                         + instr('123456789abcdef', substr(network, start + 1, 1)),
                         coalesce(nullif(ltrim(substr(network, start, 4), '0'), ''), '0')),
                     substr('.:', family / 3, 1)) || ':' AS text
              FROM part WHERE part.family = c.family)
        JOIN zeros ON instr(text, zeros) ORDER BY length(zeros) DESC LIMIT 1)
       || '/' || length,
       length, round(failures, 3), quota,
       failures + 1.0 > quota + 1e-6 OR coalesce(slow + 1.0 > 4 * quota + 1e-6, 0)
FROM (SELECT *, (SELECT quota FROM quota WHERE family = c.family AND length = c.length
                 AND network BETWEEN first AND last ORDER BY first DESC, last LIMIT 1) AS quota
      FROM counted c) c;
