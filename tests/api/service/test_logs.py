"""A line of the service's log names what it is about, in both forms, and JSON stays JSON."""

import json
import logging

import pytest

from api.service.logs import _Json, _Text


def record(**ids: object) -> logging.LogRecord:
    made = logging.getLogger("api.test").makeRecord(
        "api.test", logging.WARNING, "f.py", 1, "it said %s", ('"hm"\n',), None, extra=ids
    )
    return made


def test_text_ends_with_the_ids() -> None:
    assert _Text().format(record(study="s", evaluation=3)).endswith('it said "hm"\n [study=s evaluation=3]')
    assert _Text().format(record()).endswith('it said "hm"\n')


def test_json_is_one_line_with_the_ids() -> None:
    line = _Json().format(record(study="s", trial=None, worker="w"))
    content = json.loads(line)
    assert "\n" not in line and content["message"] == 'it said "hm"\n' and content["level"] == "warning"
    assert (content["study"], content["worker"]) == ("s", "w") and "trial" not in content


def test_json_holds_an_exception(caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise ValueError("no")
    except ValueError:
        logging.getLogger("api.test").exception("it broke")
    assert "ValueError: no" in json.loads(_Json().format(caplog.records[-1]))["exception"]
