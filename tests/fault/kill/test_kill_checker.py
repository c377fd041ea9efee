"""The judge is judged: a history without fault passes, and each way of breaking a promise is named by its rule."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from tests.fault.kill.checker import History, check

RUN = "run-1"
PARAMS = {"fails": 1, "nap_ms": 100, "work_ms": 0}
PLAN = {"stages": [["first"], ["left", "right"], ["flaky"]], "nap_before_stage": 2, "faults": {"isolate": 1}}

Break = Callable[[History], None]


def an_effect(step: str, at: float, *, attempt: int = 1, fails: bool = False, **seen: str) -> dict[str, Any]:
    value = f"{step}{attempt}@{at}"
    return {
        "instance": RUN, "step": step, "attempt": attempt, "value": value, "fails": fails, "seen": seen, "at": at,
        "isolate": 7,
    }  # fmt: skip


def a_step(name: str, output: str) -> dict[str, Any]:
    return {"type": "step", "name": f"{name}-1", "success": True, "output": output}


def a_sound_history() -> History:
    """One run; its isolate was killed while ``left`` ran, and ``flaky`` failed once as it was told."""
    values = {"first": "first1@1.0", "left": "left1@2.2", "right": "right1@2.0", "flaky": "flaky2@3.1"}
    ledger = [
        an_effect("first", 1.0),
        an_effect("left", 2.0, first=values["first"]),
        an_effect("right", 2.0),
        an_effect("left", 2.2, first=values["first"]),
        an_effect("flaky", 3.0, fails=True),
        an_effect("flaky", 3.1, attempt=2, left=values["left"]),
    ]
    final = {
        "id": RUN, "params": dict(PARAMS), "status": "complete", "error": None,
        "output": {**values, "event": {"for": RUN}},
        "steps": [a_step(name, value) for name, value in values.items()],
    }  # fmt: skip
    clients = [
        {"op": "create", "id": RUN, "phase": "invoke", "at": 0.1, "params": PARAMS},
        {"op": "create", "id": RUN, "phase": "ok", "at": 0.2, "status": 200},
        {"op": "event", "id": RUN, "phase": "invoke", "at": 0.3, "params": {"for": RUN}},
        {"op": "event", "id": RUN, "phase": "ok", "at": 0.4, "status": 200},
        {"op": "describe", "id": RUN, "phase": "read", "at": 9.0, "found": copy.deepcopy(final)},
    ]
    faults = [{"kind": "isolate", "from": 2.1, "to": 2.15, "load": 1, "isolate": 7}]
    return History(copy.deepcopy(PLAN), clients, ledger, faults, [final])


def test_a_sound_history_passes() -> None:
    assert check(a_sound_history()) == []


def test_so_does_one_in_which_the_node_made_the_id() -> None:
    history = a_sound_history()
    history.clients[0].update(phase="ask", id="word")
    history.final[0]["params"]["ask"] = "word"
    assert check(history) == []


def lost(history: History) -> None:
    history.final.clear()


def unfinished(history: History) -> None:
    history.final[0].update(status="waiting", output=None)


def forgotten_for_a_while(history: History) -> None:
    history.clients.append({"op": "describe", "id": RUN, "phase": "fail", "at": 5.0, "status": 404})


def end_moved(history: History) -> None:
    history.clients[-1]["found"]["output"] = {"else": 1}


def result_from_nowhere(history: History) -> None:
    history.final[0]["steps"][0]["output"] = "invented"


def output_not_of_its_steps(history: History) -> None:
    history.final[0]["output"]["first"] = "invented"


def result_changed_for_a_reader(history: History) -> None:
    history.clients[-1]["found"]["steps"][1]["output"] = "left1@2.0"


def result_changed_for_the_program(history: History) -> None:
    history.ledger[-1]["seen"]["left"] = "left1@2.0"


def finished_step_ran_again(history: History) -> None:
    history.ledger.append(an_effect("first", 2.05))


def stage_began_too_early(history: History) -> None:
    history.ledger.append(an_effect("flaky", 1.9, fails=True))


def stage_skipped(history: History) -> None:
    del history.ledger[2]


def repeat_without_reason(history: History) -> None:
    history.faults[0].update({"from": 2.3, "to": 2.4})


def another_isolate_died(history: History) -> None:
    history.faults[0]["isolate"] = 8


def attempts_go_back(history: History) -> None:
    history.ledger[-1]["attempt"] = 0


def retry_not_counted(history: History) -> None:
    history.ledger[-1]["attempt"] = 1


def nobody_asked(history: History) -> None:
    del history.clients[0:2]


def one_create_made_two(history: History) -> None:
    history.clients[0].update(phase="ask", id="word")
    history.final[0]["params"]["ask"] = "word"
    history.final.append({**history.final[0], "id": "run-2"})


def an_instance_that_does_not_exist_acted(history: History) -> None:
    history.ledger.append({**an_effect("first", 0.5), "instance": "run-2"})


def woke_early(history: History) -> None:
    history.final[0]["params"]["nap_ms"] = 900


def event_of_another(history: History) -> None:
    history.final[0]["output"]["event"] = {"for": "run-2"}
    history.clients[-1]["found"]["output"]["event"] = {"for": "run-2"}


def isolate_outlived_its_node(history: History) -> None:
    history.faults.append({"kind": "node", "from": 2.5, "to": 2.9, "load": 1})


def calls_failed(history: History) -> None:
    history.clients += [{"op": "event", "id": RUN, "phase": "invoke", "at": 0.3, "params": {"for": RUN}}] * 8


def kill_hit_nothing(history: History) -> None:
    history.faults[0]["load"] = 0


def too_few_kills(history: History) -> None:
    history.plan["faults"]["node"] = 1


BREAKS: dict[str, list[Break]] = {
    "I1": [lost, unfinished, forgotten_for_a_while],
    "I2": [lost, end_moved],
    "I3": [
        result_from_nowhere, output_not_of_its_steps, result_changed_for_a_reader, result_changed_for_the_program,
    ],
    "I4": [finished_step_ran_again, stage_began_too_early, stage_skipped],
    "I5": [repeat_without_reason, another_isolate_died, attempts_go_back, retry_not_counted],
    "I6": [nobody_asked, one_create_made_two, an_instance_that_does_not_exist_acted],
    "I10": [woke_early],
    "I11": [event_of_another],
    "isolate": [isolate_outlived_its_node],
    "I16": [calls_failed, kill_hit_nothing, too_few_kills],
}  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "broken"),
    [(rule, each) for rule, breaks in BREAKS.items() for each in breaks],
    ids=lambda x: getattr(x, "__name__", x),
)
def test_each_broken_promise_is_named(rule: str, broken: Break) -> None:
    history = a_sound_history()
    broken(history)
    again = History(history.plan, history.clients, history.ledger, history.faults, history.final)

    assert rule in {violation.split()[0] for violation in check(again)}
