"""The tables of the store and their migrations, in SQL that PostgreSQL takes too but for the triggers' wording.

pairs holds what a run asked, judgments what judges said, seen what a run had read: at (run, stage, step) every judgment
up to number `last_judgment`. Rows are never changed nor removed; the triggers see to it.
"""

NO_CHANGE = "is append-only: write a new row"
GUARDS = [
    f"CREATE TRIGGER {table}_{verb} BEFORE {verb} ON {table} BEGIN SELECT RAISE(ABORT, '{table} {NO_CHANGE}'); END"
    for table in ("pairs", "judgments", "seen")
    for verb in ("UPDATE", "DELETE")
]
# INSERT OR REPLACE deletes without asking a trigger for DELETE
GUARDS += [
    f"CREATE TRIGGER {table}_replace BEFORE INSERT ON {table} WHEN EXISTS (SELECT 1 FROM {table} WHERE {same}) "
    f"BEGIN SELECT RAISE(ABORT, '{table} {NO_CHANGE}'); END"
    for table, same in (
        (
            "pairs",
            "id = NEW.id OR (run = NEW.run AND stage = NEW.stage AND step = NEW.step AND place = NEW.place)",
        ),
        ("judgments", "id = NEW.id"),
        ("seen", "run = NEW.run AND stage = NEW.stage AND step = NEW.step"),
    )
]

MIGRATIONS = (
    (
        """CREATE TABLE pairs (
            id INTEGER PRIMARY KEY,
            run TEXT NOT NULL,
            stage TEXT NOT NULL,
            step INTEGER NOT NULL,
            place INTEGER NOT NULL,
            prompt TEXT NOT NULL,
            left_text TEXT NOT NULL,
            right_text TEXT NOT NULL,
            left_finished INTEGER NOT NULL CHECK (left_finished IN (0, 1)),
            right_finished INTEGER NOT NULL CHECK (right_finished IN (0, 1)),
            policy_side TEXT NOT NULL CHECK (policy_side IN ('left', 'right')),
            left_score DOUBLE PRECISION,
            right_score DOUBLE PRECISION,
            created TEXT NOT NULL,
            UNIQUE (run, stage, step, place)
        )""",
        """CREATE TABLE judgments (
            id INTEGER PRIMARY KEY,
            pair INTEGER NOT NULL REFERENCES pairs (id),
            judge TEXT NOT NULL,
            choice TEXT NOT NULL CHECK (choice IN ('left', 'right', 'tie', 'skip', 'both_bad')),
            seconds DOUBLE PRECISION CHECK (seconds >= 0),
            created TEXT NOT NULL
        )""",
        "CREATE INDEX judgments_of_pair ON judgments (pair, judge, id)",
        """CREATE TABLE seen (
            run TEXT NOT NULL,
            stage TEXT NOT NULL,
            step INTEGER NOT NULL,
            last_judgment INTEGER NOT NULL,
            created TEXT NOT NULL,
            PRIMARY KEY (run, stage, step)
        )""",
        *GUARDS,
    ),
)
