-- The store of prefixquota: the first step of its schema. A step is never changed.
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
