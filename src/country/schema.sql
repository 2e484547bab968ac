-- The country database of prefixquota, version 1. `prefixquota country import` makes it, and each
-- import replaces the whole file; nothing ever writes to one that is in its place.
--
-- To be looked at with Debian's plain sqlite3 command, as root:
--
--   sqlite3 /var/lib/prefixquota/country.db 'SELECT hex(first), hex(last), country FROM range'

-- The addresses from first to last are in one country. Ranges never overlap; what lies in none is
-- unknown.
CREATE TABLE range (
    -- 16 bytes in network order; IPv4 as ::ffff:a.b.c.d.
    first   BLOB NOT NULL PRIMARY KEY,
    last    BLOB NOT NULL,
    -- Two letters (ISO 3166-1).
    country TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- database_type  what the imported file calls itself
-- built          when its publisher made it (UTC)
-- ranges         how many rows `range` has
-- countries      how many countries they are in
CREATE TABLE meta (
    key   TEXT NOT NULL PRIMARY KEY,
    value ANY
) STRICT, WITHOUT ROWID;
