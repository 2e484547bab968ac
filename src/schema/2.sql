-- The second step: known places, rules at run time, wrong passwords that come again.

-- The count with a half-life of 24 hours, for strict = yes.
ALTER TABLE failure ADD COLUMN slow REAL NOT NULL DEFAULT 0 CHECK (slow BETWEEN 0 AND 1e9);

-- What a prefix of each length may have: for all (`first` is empty), and between `first` and `last`
-- (as 32 digits); of several the narrowest decides. The rows for all also say how the network of an
-- address is made of its digits: how many are kept, what the next becomes, what follows.
-- Written from the settings.
DROP TABLE quota;
CREATE TABLE quota (
    family            INTEGER NOT NULL,
    length            INTEGER NOT NULL,
    first             TEXT    NOT NULL,
    last              TEXT    NOT NULL,
    quota             INTEGER NOT NULL,
    keep              INTEGER,
    map               TEXT,
    pad               TEXT,
    half_life_ms      INTEGER,
    slow_half_life_ms INTEGER,
    PRIMARY KEY (family, length, first, last)
) STRICT, WITHOUT ROWID;
UPDATE meta SET value = '' WHERE key = 'policy';

-- Where the parts of an address begin in its digits: four octets, or eight groups.
CREATE TABLE part (family INTEGER NOT NULL, start INTEGER NOT NULL) STRICT;
INSERT INTO part VALUES (4, 25), (4, 27), (4, 29), (4, 31),
    (6, 1), (6, 5), (6, 9), (6, 13), (6, 17), (6, 21), (6, 25), (6, 29);

-- The runs of zeros that :: may stand for, and none.
CREATE TABLE zeros (zeros TEXT NOT NULL PRIMARY KEY) STRICT, WITHOUT ROWID;
INSERT INTO zeros VALUES (''), (':0:0:'), (':0:0:0:'), (':0:0:0:0:'), (':0:0:0:0:0:'),
    (':0:0:0:0:0:0:'), (':0:0:0:0:0:0:0:'), (':0:0:0:0:0:0:0:0:');

-- As `failure`, for the failures of users whose provider is known, from new places there.
CREATE TABLE familiar (
    address     BLOB    NOT NULL PRIMARY KEY CHECK (length(address) = 16),
    source      TEXT    NOT NULL,
    level       REAL    NOT NULL CHECK (level BETWEEN 0 AND 1e9),
    slow        REAL    NOT NULL DEFAULT 0 CHECK (slow BETWEEN 0 AND 1e9),
    at          INTEGER NOT NULL,
    since       INTEGER NOT NULL DEFAULT 0,
    open_since  INTEGER NOT NULL DEFAULT 0,
    open        INTEGER NOT NULL DEFAULT 0 CHECK (open >= 0),
    open_before INTEGER NOT NULL DEFAULT 0 CHECK (open_before >= 0)
) STRICT, WITHOUT ROWID;

-- From where users have logged in: a prefix each, with when that was last (Unix milliseconds) and
-- the failures of this user there. `elsewhere` has those of strangers (stranger_quota). A name that
-- is no UTF-8 is kept as a BLOB.
CREATE TABLE known (
    user        ANY     NOT NULL,
    place       TEXT    NOT NULL,
    seen        INTEGER NOT NULL,
    level       REAL    NOT NULL DEFAULT 0 CHECK (level BETWEEN 0 AND 1e9),
    at          INTEGER NOT NULL DEFAULT 0,
    since       INTEGER NOT NULL DEFAULT 0,
    open_since  INTEGER NOT NULL DEFAULT 0,
    open        INTEGER NOT NULL DEFAULT 0 CHECK (open >= 0),
    open_before INTEGER NOT NULL DEFAULT 0 CHECK (open_before >= 0),
    PRIMARY KEY (user, place)
) STRICT, WITHOUT ROWID;
CREATE INDEX known_seen ON known (seen);

-- Rules and grants that the command made. `bits` and `first` are the prefix as it is looked up,
-- `until` is in Unix milliseconds, `tries` counts what a grant let in and was wrong.
CREATE TABLE rule (
    bits   INTEGER NOT NULL CHECK (bits BETWEEN 0 AND 128),
    first  BLOB    NOT NULL CHECK (length(first) = 16),
    action TEXT    NOT NULL CHECK (action IN ('exempt', 'deny', 'count', 'grant')),
    user   ANY     NOT NULL DEFAULT '',
    prefix TEXT    NOT NULL,
    until  INTEGER,
    uses   INTEGER,
    tries  INTEGER NOT NULL DEFAULT 0,
    note   TEXT    NOT NULL DEFAULT '',
    PRIMARY KEY (bits, first, action, user)
) STRICT, WITHOUT ROWID;

-- Wrong passwords of late, as 16 bits of a keyed hash each, in one of 65536 slots. The key is
-- repeat_key in `meta`.
CREATE TABLE wrong (
    slot INTEGER PRIMARY KEY,
    tags BLOB NOT NULL
) STRICT;
