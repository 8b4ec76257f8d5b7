"""A database as an earlier release left it: its tables, and rows as it wrote them."""

import json
from typing import Any

from alembic import command
from sqlalchemy import Engine, text

from db import items
from db.schema import _config
from tests.db.rows import recipe
from tests.search.factories import fingerprints, make_spec, scored


def make_old(engine: Engine, revision: str = "0001") -> None:
    """Two studies at that revision: one finished, one that was killed while it ran."""
    spec = make_spec()
    content: dict[str, Any] = spec.to_json()
    content["search"].pop("pool", None)
    setup = {"fingerprints": fingerprints(spec), "layer_count": 4}
    study = {"spec": json.dumps(content), "frozen_digest": spec.frozen_digest(), "setup": json.dumps(setup)}
    with engine.begin() as connection:
        command.upgrade(_config(connection), revision)

        def insert(table: str, **row: object) -> None:
            names = ", ".join(row)
            values = ", ".join(f":{name}" for name in row)
            connection.execute(text(f"insert into {table} ({names}) values ({values})"), row)

        insert("merge_study", id=1, name="done", state="finished", verdict='{"winner": 1}', created_at=1.5,
               finished_at=2.5, **study)  # fmt: skip
        insert("merge_study", id=2, name="killed", state="running", created_at=3.5, **study)
        for study_id in (1, 2):
            for part, ids in (("search", "[0, 1, 2, 3, 4, 5, 6, 7]"), ("holdout", "[8, 9]")):
                insert("document_set", study_id=study_id, task="t", part=part, ids=ids)
        body = json.dumps(recipe().model_dump(mode="json", by_alias=True))
        rows: list[dict[str, object]] = [
            {"state": "done", "outcome": "scored", "attempts": 1, "tokens": 10, "build_seconds": 0.1,
             "score_seconds": 0.2, "device": "cpu", "finished_at": 2.0},
            {"state": "done", "outcome": "failed", "attempts": 3, "why": "no memory", "finished_at": 2.0},
            {"state": "leased", "attempts": 1, "owner": "w", "token": "t", "expires_at": 4.0},
            {"state": "queued", "attempts": 0},
        ]  # fmt: skip
        for number, row in enumerate(rows):
            insert("evaluation", id=number + 1, study_id=1 + number // 2, recipe_digest=f"d{number}", part="search",
                   recipe=body, created_at=1.6, **row)  # fmt: skip
        (score,) = scored(0.5).scores
        insert("score", evaluation_id=1, task="t", metric="acc", value=0.5, higher_is_better=True,
               items=items.encode(score.items))  # fmt: skip
        trial = {"origin": "tpe", "params": '{"x": 0.25}', "created_at": 1.7}
        insert("merge_trial", id=1, study_id=1, number=0, evaluation_id=2, state="failed", why="no memory",
               told_order=1, told_at=2.1, **trial)  # fmt: skip
        insert("merge_trial", id=2, study_id=1, number=1, evaluation_id=1, state="complete", value=0.5,
               told_order=2, told_at=2.2, **trial)  # fmt: skip
        insert("merge_trial", id=3, study_id=2, number=0, evaluation_id=3, state="open", **trial)
        insert("merge_trial", id=4, study_id=2, number=1, evaluation_id=4, state="open", **trial)
        insert("model_fingerprint", key="k", fingerprint="f")
        if revision > "0001":
            connection.execute(text("update merge_study set phase = 'searching', leader = 'c', lead_token = 't', "
                                    "lead_expires_at = 4.0 where id = 2"))  # fmt: skip
            insert("job", id=1, kind="judge", study_id=1, content="{}", state="done", result="{}", attempts=1,
                   created_at=2.4, finished_at=2.5)  # fmt: skip
        if engine.dialect.name == "postgresql":  # whose numbers do not follow what is written by hand
            for table in ("merge_study", "evaluation", "merge_trial", *(("job",) if revision > "0001" else ())):
                connection.execute(text(f"select setval('{table}_id_seq', (select max(id) from {table}))"))


def dump(engine: Engine, table: str, columns: list[str]) -> list[tuple[Any, ...]]:
    """A table's rows."""
    with engine.connect() as connection:
        found = connection.execute(text(f"select {', '.join(columns)} from {table} order by 1, 2"))
        return [tuple(bytes(v) if isinstance(v, memoryview) else v for v in row) for row in found]
