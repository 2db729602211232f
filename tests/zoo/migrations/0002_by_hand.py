"""What Django does not make itself: the unmanaged table, and SQLite's own kinds of object."""

from __future__ import annotations

from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps

SQLITE = (
    "CREATE VIEW big_orders AS SELECT id, total FROM zoo_orderline WHERE total > 100",
    "CREATE TABLE audit (event TEXT, amount REAL)",
    "CREATE TRIGGER audit_ledger AFTER INSERT ON legacy_ledger BEGIN"
    " INSERT INTO audit VALUES ('ledger ' || NEW.\"Key\", 0.1); END",
    "CREATE TABLE keyless (a ANY, b TEXT COLLATE NOCASE, c AS (length(b)) VIRTUAL)",
    "CREATE TABLE compact (k TEXT PRIMARY KEY, v INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE INDEX keyless_expression ON keyless (length(a), b DESC) WHERE b IS NOT NULL",
    "PRAGMA user_version = 4711",
)


def create(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    schema_editor.execute(
        'CREATE TABLE legacy_ledger ("Key" integer PRIMARY KEY, "Entry" varchar(80) NOT NULL)'
    )
    if schema_editor.connection.vendor == "sqlite":
        for statement in SQLITE:
            schema_editor.execute(statement)


class Migration(migrations.Migration):
    dependencies = [("zoo", "0001_initial")]

    operations = [migrations.RunPython(create)]
