"""Traps that a role without rights, or a table's owner, can lay; the server's log tells of each.

The roles that back up and restore must spring none of them: what runs in their sessions can take
on all their rights, whatever role it is called as.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tests.services import PostgreSQLServer

# A line in the log, written whatever the role and the transaction may change.
SPRUNG = """
CREATE FUNCTION public.sprung(trap text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog AS $$
BEGIN
    RAISE LOG 'sprung {mark} % by %', trap, session_user;
    RETURN true;
END $$;
CREATE FUNCTION public.sprung_number(trap text, number int) RETURNS int LANGUAGE plpgsql IMMUTABLE
    AS $$BEGIN PERFORM public.sprung(trap); RETURN number; END $$;
CREATE FUNCTION public.sprung_trigger() RETURNS trigger LANGUAGE plpgsql
    AS $$BEGIN
        PERFORM public.sprung(TG_TABLE_NAME || '_' || TG_NAME);
        RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
    END $$;
"""
SECRET = "CREATE TABLE public.{name} (id int PRIMARY KEY, word text)"


def tables() -> Iterator[str]:
    """Yield what makes tables whose every use runs functions of the role that lays the traps."""
    yield "CREATE TYPE public.mood AS ENUM ('good')"
    yield (
        "CREATE FUNCTION public.said(public.mood) RETURNS text LANGUAGE plpgsql IMMUTABLE AS"
        " $$BEGIN PERFORM public.sprung('cast'); RETURN 'good'; END $$"
    )
    yield "CREATE CAST (public.mood AS text) WITH FUNCTION public.said(public.mood) AS IMPLICIT"
    yield (
        "CREATE DOMAIN public.checked AS int CHECK (public.sprung_number('domain', VALUE) = VALUE)"
    )
    yield (
        "CREATE TABLE public.bait (id serial PRIMARY KEY, word text, feeling public.mood,"
        " safe public.checked,"
        " made int DEFAULT public.sprung_number('default', 1),"
        " stored int GENERATED ALWAYS AS (public.sprung_number('generated', 1)) STORED,"
        " CONSTRAINT certain CHECK (public.sprung('check')),"
        " CONSTRAINT of_word CHECK (public.sprung('check_of_' OPERATOR(pg_catalog.||) word)))"
    )
    yield "INSERT INTO public.bait (word, feeling, safe) VALUES ('one', 'good', 1)"
    # The planner works the constant ones out for each query of the table.
    yield "CREATE INDEX constant ON public.bait ((public.sprung('index')))"
    yield "CREATE INDEX partial ON public.bait (id) WHERE public.sprung('predicate')"
    yield "CREATE INDEX of_id ON public.bait (public.sprung_number('index_of_id', id))"
    yield "CREATE STATISTICS public.many ON id, (public.sprung('statistics')) FROM public.bait"
    yield (
        "CREATE TABLE public.parts (id int, word text)"
        " PARTITION BY RANGE (public.sprung_number('partition', id))"
    )
    yield (
        "CREATE TABLE public.part PARTITION OF public.parts"
        " FOR VALUES FROM (MINVALUE) TO (MAXVALUE)"
    )
    yield "INSERT INTO public.parts VALUES (1, 'one')"
    yield "CREATE TABLE public.guarded (id int)"
    yield "INSERT INTO public.guarded VALUES (1)"
    yield "CREATE POLICY mine ON public.guarded USING (public.sprung('policy'))"
    yield "ALTER TABLE public.guarded ENABLE ROW LEVEL SECURITY"
    yield "ALTER TABLE public.guarded FORCE ROW LEVEL SECURITY"
    yield "CREATE VIEW public.seen AS SELECT id FROM public.bait WHERE public.sprung('view')"
    yield "CREATE MATERIALIZED VIEW public.kept AS SELECT public.sprung('materialized') AS word"
    yield "CREATE RULE more AS ON INSERT TO public.guarded DO ALSO SELECT public.sprung('rule')"
    yield from triggers("bait")


def triggers(table: str) -> Iterator[str]:
    """Yield what makes triggers on a table; one fires even in a session that replicates."""
    for name in ("ordinary", "always"):
        yield (
            f"CREATE TRIGGER {name} BEFORE INSERT OR UPDATE OR DELETE ON public.{table}"
            " FOR EACH ROW EXECUTE FUNCTION public.sprung_trigger()"
        )
    yield f"ALTER TABLE public.{table} ENABLE ALWAYS TRIGGER always"
    yield (
        f"CREATE CONSTRAINT TRIGGER late AFTER INSERT ON public.{table} DEFERRABLE"
        " INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.sprung_trigger()"
    )


def sprung(server: PostgreSQLServer, mark: str) -> set[tuple[str, str]]:
    """Return (trap, the role whose session it was) for each trap that ran since `mark` was laid."""
    ((folder,),) = server.execute("SHOW data_directory")
    log = (Path(folder).parent / "log").read_text(errors="replace")
    return set(re.findall(rf"sprung {mark} (\S+) by (\S+)", log))
