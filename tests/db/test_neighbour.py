"""Trials written in bulk into Optuna's tables are read by Optuna as they were meant."""

from contextlib import closing
from datetime import datetime

import optuna
import pytest
from optuna.trial import TrialState

from db.neighbour import Neighbour, TrialCopy
from search.mirror.place import mirror_url, open_mirror, prepare_mirror

WHEN = datetime(2025, 1, 2, 3, 4, 5)
UNIFORM = optuna.distributions.distribution_to_json(optuna.distributions.FloatDistribution(0.0, 1.0))


@pytest.mark.parametrize("empty_url", ["postgresql"], indirect=True)  # whose types are the stricter ones
def test_optuna_reads_values_steps_and_constraints(empty_url: str) -> None:
    url = mirror_url(empty_url)
    prepare_mirror(url)
    storage = open_mirror(url)
    study = optuna.create_study(storage=storage, study_name="s", directions=["maximize", "maximize"])
    trials = [
        TrialCopy(0, "COMPLETE", (0.5, 0.25), WHEN, WHEN, (("x", 0.75, UNIFORM),), {"origin": '"tpe"'}),
        TrialCopy(1, "PRUNED", (), WHEN, WHEN, (), {}, {"constraints": "[-0.5, 0.1]"}, {40: 0.5, 80: 0.25}),
        TrialCopy(2, "FAIL", (), WHEN, WHEN, (), {}),
    ]
    with closing(Neighbour(url)) as tables:
        assert tables.append(study._study_id, trials) and tables.count(study._study_id) == 3
        assert not tables.append(study._study_id, trials), "they would not follow the last one"
    complete, pruned, failed = study.get_trials()
    assert (complete.state, complete.values, complete.params) == (TrialState.COMPLETE, [0.5, 0.25], {"x": 0.75})
    assert complete.user_attrs == {"origin": "tpe"} and complete.intermediate_values == {}
    assert (pruned.state, pruned.intermediate_values) == (TrialState.PRUNED, {40: 0.5, 80: 0.25})
    assert pruned.system_attrs == {"constraints": [-0.5, 0.1]}
    assert (failed.state, failed.values) == (TrialState.FAIL, None)
    storage.engine.dispose()
