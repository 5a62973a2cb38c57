"""The decision server over HTTP: a real server on loopback, a real policy and a plain client."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agents.policy.allocation_policy import AllocationPolicy
from benchmarks.serving.app import AppLimits, create_app
from benchmarks.serving.audit import AuditLog
from benchmarks.serving.decider import FALLBACK_REASONS
from benchmarks.serving.guards import GuardLimits
from benchmarks.serving.minute_rows import day_of
from benchmarks.serving.modes import Mode, in_share
from marca_env.logs.log_files import read_system_log
from tests.helpers.decision_server import (
    GOOD,
    PRICES,
    STATIC,
    SlowPolicy,
    call,
    decide,
    running,
    service_of,
)

TOKEN = "0123456789abcdef"


@pytest.fixture(scope="module")
def server(policy: AllocationPolicy) -> Iterator[str]:
    """Return the address of a server with the usual options."""
    with running(create_app(service_of(policy), limits=AppLimits(most_requests=50, most_bytes=20_000))) as url:
        yield url


def samples(url: str) -> dict[tuple[str, ...], float]:
    """Return the metrics: name and values of the labels → value."""
    status, page = call(f"{url}/metrics")
    assert status == 200
    families = text_string_to_metric_families(page)
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


def test_every_request_is_answered_in_its_order(server, policy):
    answer = decide(server, GOOD, {"uv": 1}, GOOD | {"g": 1})
    expected = policy.decide([list(GOOD.values()), list((GOOD | {"g": 1}).values())], PRICES).tolist()
    assert [d["action"] for d in answer["decisions"]] == [expected[0], list(STATIC.action), expected[1]]
    assert [d["status"] for d in answer["decisions"]] == ["ok", "missing-feature", "ok"]
    assert [d["applied"] for d in answer["decisions"]] == ["policy", "static", "policy"]
    assert answer["decisions"][0]["options"]["truncation"] in (8, 20, 60, 140, 300)
    assert (answer["prices_version"], answer["prices_state"], answer["mode"]) == (1, "fresh", "enforce 100%")
    assert decide(server)["decisions"] == []


@pytest.mark.parametrize(
    ("body", "status", "part"),
    [
        (b"{", 422, "not valid JSON"),
        (b"[]", 422, 'no list "requests"'),
        (b'{"requests": {}}', 422, 'no list "requests"'),
        (b"\xff\xfe", 422, "not valid JSON"),
        (b"[" * 5_000, 422, "nested too deeply"),
        ({"requests": [{}] * 51}, 422, "send at most 50"),
        (b" " * 20_001, 413, "at most 20000"),
    ],
)
def test_a_call_that_cannot_be_read_is_refused_in_one_line(server, body, status, part):
    code, answer = call(f"{server}/decide", "POST", body)
    assert code == status
    assert part in answer["error"]
    assert "\n" not in answer["error"]


def test_other_content_types_are_refused(server):
    """A web page may post text anywhere without being asked."""
    for path in ("decide", "telemetry"):
        assert call(f"{server}/{path}", "POST", b"{}", {"content-type": "text/plain"})[0] == 415


def test_the_openapi_page_describes_every_endpoint(server):
    status, page = call(f"{server}/openapi.json")
    assert status == 200
    expected = {"/decide", "/prices", "/mode", "/telemetry", "/healthz", "/readyz", "/metrics"}
    assert set(page["paths"]) == expected
    assert "requests" in str(page["paths"]["/decide"]["post"]["requestBody"])
    assert call(f"{server}/docs")[0] == 200
    assert call(f"{server}/healthz") == (200, {"status": "ok"})


def test_without_prices_the_static_action_answers_until_some_are_put(policy):
    service = service_of(policy)
    service.board.load_state_dict({"format": 1, "clusters": list(service.board.clusters), "version": 0})
    with running(create_app(service)) as url:
        assert decide(url, GOOD)["decisions"][0]["status"] == "no-prices"
        assert call(f"{url}/readyz")[1]["problems"] == ["no prices were published"]
        status, prices = call(f"{url}/prices", "PUT", {"prices": PRICES, "source": "me"})
        assert (status, prices["version"], prices["source"]) == (200, 1, "me")
        assert decide(url, GOOD)["decisions"][0]["status"] == "ok"
        status, error = call(f"{url}/prices", "PUT", {"prices": {"retrieval": -1, "ranking": 1}})
        assert (status, "not negative" in error["error"]) == (422, True)
        assert call(f"{url}/prices")[1]["prices"] == PRICES


def test_stale_prices_fall_back_and_say_so(policy):
    service = service_of(policy)
    service.board.publish(PRICES, "old", at=time.time() - 10_000)
    with running(create_app(service)) as url:
        answer = decide(url, GOOD)
        assert answer["prices_state"] == "stale"
        assert answer["decisions"][0]["status"] == "stale-prices"
        service.board.publish(PRICES, "older", at=time.time() - 600)
        assert (decide(url, GOOD)["prices_state"], decide(url, GOOD)["decisions"][0]["status"]) == ("last-good", "ok")


def test_shadow_shows_the_policy_and_applies_the_static_action(policy):
    with running(create_app(service_of(policy, mode=Mode("shadow")))) as url:
        decision = decide(url, GOOD)["decisions"][0]
        assert (decision["action"], decision["applied"]) == (list(STATIC.action), "static")
        assert decision["policy_action"] == policy.decide([list(GOOD.values())], PRICES)[0].tolist()


def test_the_mode_changes_at_once_and_enforces_the_same_share_on_every_server(policy):
    requests = [GOOD | {"request_id": k} for k in range(400)]
    with running(create_app(service_of(policy))) as url, running(create_app(service_of(policy))) as other:
        for address in (url, other):
            assert call(f"{address}/mode", "PUT", {"mode": "enforce", "percent": 20})[0] == 200
        sides = [[d["applied"] for d in decide(address, *requests)["decisions"]] for address in (url, other)]
        assert sides[0] == sides[1]
        assert 40 < Counter(sides[0])["policy"] < 120
        call(f"{url}/mode", "PUT", {"mode": "static"})
        assert {d["applied"] for d in decide(url, *requests)["decisions"]} == {"static"}
        assert call(f"{url}/mode", "PUT", {"mode": "off"})[0] == 422
        assert call(f"{url}/mode")[1] == {"mode": "static", "guards": {}}


def test_five_percent_over_http_are_those_of_the_hash(policy):
    keys = [f"session-{k}" for k in range(4_000)]
    with running(create_app(service_of(policy, mode=Mode("enforce", 5.0)))) as url:
        applied = []
        for start in range(0, len(keys), 1_000):
            part = [GOOD | {"request_id": key} for key in keys[start : start + 1_000]]
            applied += [decision["applied"] == "policy" for decision in decide(url, *part)["decisions"]]
    assert applied == in_share(keys, 0.05).tolist()
    assert abs(sum(applied) / len(applied) - 0.05) < 0.015


def test_a_token_is_needed_where_there_is_one(policy):
    with running(create_app(service_of(policy), token=TOKEN)) as url:
        for headers in ({}, {"authorization": "Bearer x"}, {"authorization": TOKEN}):
            assert call(f"{url}/mode", "PUT", {"mode": "static"}, headers)[0] == 401
            assert call(f"{url}/metrics", headers=headers)[0] == 401
        assert call(f"{url}/mode", headers={"authorization": f"Bearer {TOKEN}"})[0] == 200
        assert call(f"{url}/healthz")[0] == call(f"{url}/readyz")[0] == 200


def test_names_of_other_hosts_are_refused_where_the_names_are_known(policy):
    with running(create_app(service_of(policy), hosts=["127.0.0.1"])) as url:
        assert call(f"{url}/healthz")[0] == 200
        assert call(f"{url}/healthz", headers={"host": "evil.example"})[0] == 400


def test_guard_rails_fall_back_by_themselves_and_end_with_a_new_mode(policy, tmp_path):
    service = service_of(policy, limits=GuardLimits(load=1.2, patience=2), state=tmp_path)
    over = {"minute": 5, "qps": 10, "load": {"retrieval": 0.2, "ranking": 5.0}}
    with running(create_app(service)) as url:
        call(f"{url}/telemetry", "POST", over)
        assert decide(url, GOOD)["decisions"][0]["status"] == "ok"
        call(f"{url}/telemetry", "POST", over | {"minute": 6})
        answer = decide(url, GOOD)
        assert (answer["guards"], answer["decisions"][0]["status"]) == (["load"], "guard-load")
        assert samples(url)["marca_guard_active", "load"] == 1
        assert service_of(policy, limits=GuardLimits(load=1.2), state=tmp_path).guards.active  # after a restart
        call(f"{url}/mode", "PUT", {"mode": "enforce"})
        assert decide(url, GOOD)["decisions"][0]["status"] == "ok"


def test_prices_and_mode_survive_a_restart_and_reach_other_processes(policy, tmp_path):
    first, second = service_of(policy, state=tmp_path), service_of(policy, state=tmp_path)
    first.set_prices({"retrieval": 1.0, "ranking": 2.0})
    second.set_prices({"retrieval": 3.0, "ranking": 2.0})
    first.set_mode({"mode": "enforce", "percent": 5})
    for service in (first, second):
        service.synchronise()
        assert service.board.current().version == 3
        assert service.board.current().prices == (3.0, 2.0)
        assert service.mode == Mode("enforce", 5.0)
    again = service_of(policy, state=tmp_path, mode=Mode("shadow"))
    assert (again.mode, again.board.current().version) == (Mode("enforce", 5.0), 3)


def test_metrics_count_what_was_answered(policy):
    with running(create_app(service_of(policy))) as url:
        values = samples(url)  # Prometheus sees no growth in a counter that begins at 1
        assert {values["marca_fallbacks_total", reason] for reason in FALLBACK_REASONS} == {0.0}
        assert {values["marca_policy_swaps_total", result] for result in ("loaded", "refused")} == {0.0}
        answer = decide(url, GOOD, GOOD, {"uv": 1}, 7)
        call(f"{url}/telemetry", "POST", {"minute": 5, "qps": 10, "load": {"retrieval": 0.45, "ranking": 5.5}})
        call(f"{url}/telemetry", "POST", {"minute": 6, "state": "missing"})
        assert call(f"{url}/telemetry", "POST", {"minute": 7, "qqps": 1})[0] == 422
        values = samples(url)
    assert values["marca_requests_total", "ok"] == 2
    assert values["marca_fallbacks_total", "missing-feature"] == values["marca_fallbacks_total", "wrong-type"] == 1
    assert values["marca_applied_total", "policy"] == 2
    truncation = str(answer["decisions"][0]["options"]["truncation"])
    assert values["marca_decisions_total", "truncation", truncation] >= 2
    assert values["marca_decide_seconds_count",] == 1
    assert (values["marca_price", "retrieval"], values["marca_price_version",]) == (5.0, 1)
    assert values["marca_utilisation", "retrieval"] == pytest.approx(0.5)
    assert values["marca_over_utilisation", "ranking"] == pytest.approx(1.0)
    assert values["marca_telemetry_readings_total", "missing"] == 1
    assert values["marca_telemetry_refused_total",] == 1
    assert values["marca_expected_core_seconds_total", "ranking"] > 0
    assert values["marca_remembered_share",] > 0


def test_the_audit_log_can_be_read_as_a_system_log(policy, tmp_path: Path):
    service = service_of(policy, audit=AuditLog(tmp_path, sample=1.0))
    with running(create_app(service)) as url:
        decide(url, GOOD, 7)
        for minute in (5, 6):
            body = {"minute": minute, "qps": 10, "load": {"retrieval": 0.45, "ranking": 5.5}, "revenue": 0.5}
            call(f"{url}/telemetry", "POST", body)
        call(f"{url}/telemetry", "POST", {"minute": 7, "state": "missing"})
    names = ("minutes", "requests", "events")
    (minutes,), (requests,), (events,) = (list(tmp_path.glob(f"{name}-*")) for name in names)
    log = read_system_log(minutes)
    assert log[["minute", "qps", "load_ranking", "price_retrieval", "revenue"]].to_numpy().tolist() == [
        [minute, 10.0, 5.5, 5.0, 300.0] for minute in (5, 6)
    ]
    assert len(requests.read_text().splitlines()) == 2
    assert '"minute": 7' in events.read_text()


def test_the_minutes_of_all_processes_are_one_log(tmp_path: Path):
    """Telemetry comes to any process; a log for each would have gaps."""
    first, second, other = (AuditLog(tmp_path) for _ in range(3))
    for minute, log in enumerate([first, second, second, first]):
        log.minute({"day": 3, "minute": minute})
    other.minute({"day": 3, "minute": 4, "new": None})
    text = [path.read_text().split() for path in sorted(tmp_path.glob("minutes-*.csv"), key=lambda p: len(p.name))]
    assert text == [["day,minute", "3,0", "3,1", "3,2", "3,3"], ["day,minute,new", "3,4,"]]


@pytest.mark.parametrize(
    ("minute", "now", "day"),
    [
        (0, 60.0, 0),
        (1439, 86_390.0, 0),
        (1439, 86_405.0, 0),
        (0, 86_465.0, 1),
        (1, 86_370.0, 1),
        (120, 86_400 - 3_600, 1),
    ],
)
def test_the_last_minute_of_a_day_belongs_to_it(minute, now, day):
    assert day_of(minute, now) == day


def slow(policy: AllocationPolicy) -> AllocationPolicy:
    return SlowPolicy(policy.team, policy.scenario, policy.cost_model)


def test_a_decision_that_takes_too_long_gives_the_static_action(policy):
    service = service_of(slow(policy), seconds=0.05)
    with running(create_app(service)) as url:
        start = time.perf_counter()
        decision = decide(url, GOOD, {"uv": 1})["decisions"]
        assert time.perf_counter() - start < 0.25
        assert [(d["status"], d["action"]) for d in decision] == [("time-out", list(STATIC.action))] * 2
        assert samples(url)["marca_fallbacks_total", "time-out"] == 2


def test_more_requests_than_may_wait_get_the_static_action(policy):
    with running(create_app(service_of(policy), limits=AppLimits(most_waiting=2))) as url:
        assert {d["status"] for d in decide(url, GOOD, GOOD, GOOD)["decisions"]} == {"busy"}
        assert {d["status"] for d in decide(url, GOOD, GOOD)["decisions"]} == {"ok"}


def test_calls_that_run_are_answered_when_the_server_stops(policy):
    answers: list[dict] = []
    with running(create_app(service_of(slow(policy), seconds=5.0))) as url:
        client = threading.Thread(target=lambda: answers.append(decide(url, GOOD)))
        client.start()
        time.sleep(0.1)  # the server stops while this call is decided
    client.join()
    assert [d["status"] for d in answers[0]["decisions"]] == ["ok"]


def test_calls_that_wait_are_decided_together_and_each_gets_its_own(policy):
    actions = {g: policy.decide([list((GOOD | {"g": g}).values())], PRICES)[0].tolist() for g in range(4)}
    answers: dict[int, list] = {}
    with running(create_app(service_of(slow(policy), seconds=5.0))) as url:
        clients = [
            threading.Thread(target=lambda k=k: answers.update({k: decide(url, GOOD | {"g": k % 4})["decisions"]}))
            for k in range(12)
        ]
        start = time.perf_counter()
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        assert time.perf_counter() - start < 12 * SlowPolicy.seconds / 2
    assert all(answers[k][0]["action"] == actions[k % 4] for k in range(12))


def test_a_policy_that_loads_delays_no_change_of_the_mode(policy, tmp_path):
    """The watch over the policy folder may work for a minute; other processes' changes must arrive meanwhile."""
    loading, release = threading.Event(), threading.Event()

    def slow_watch() -> None:
        loading.set()
        release.wait(20)

    service, other = service_of(policy, state=tmp_path), service_of(policy, state=tmp_path)
    with running(create_app(service, background=[slow_watch])) as url:
        assert loading.wait(10)
        other.set_mode({"mode": "static"})
        start = time.perf_counter()
        while decide(url, GOOD)["mode"] != "static" and time.perf_counter() - start < 5:
            time.sleep(0.02)
        assert time.perf_counter() - start < 1.0
        release.set()
