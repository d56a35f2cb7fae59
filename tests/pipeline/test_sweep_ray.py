"""Jobs on Ray, where it is installed: a local cluster of real workers."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from trt_qat.pipeline import sweep_ray
from trt_qat.pipeline.sweep_ray import LOST, Answer, on_ray

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def shell(script: str) -> list[str]:
    return ["sh", "-c", script]


def test_each_job_answers_and_has_its_log(tmp_path: Path) -> None:
    found: dict[str, Answer] = {}
    jobs = [("fine", shell("echo told; echo logged >&2")), ("bad", shell("exit 2"))]
    on_ray(jobs, tmp_path, None, found.__setitem__)
    assert found == {"fine": (0, "told\n", "logged\n"), "bad": (2, "", "")}
    assert (tmp_path / "fine.log").read_text() == "logged\n"


def test_no_more_run_at_a_time_than_asked(tmp_path: Path) -> None:
    alone = shell(f"mkdir {tmp_path}/lock && sleep 0.3 && rmdir {tmp_path}/lock")
    codes: list[int] = []
    on_ray(
        [(str(at), alone) for at in range(3)],
        tmp_path,
        1,
        lambda _, answer: codes.append(answer[0]),
    )
    assert codes == [0, 0, 0]


def test_a_job_whose_worker_dies_is_run_again(tmp_path: Path) -> None:
    once = f"[ -e {tmp_path}/seen ] || {{ touch {tmp_path}/seen; kill -9 $PPID; }}; echo done"
    found: dict[str, Answer] = {}
    on_ray([("job", shell(once))], tmp_path, None, found.__setitem__)
    assert found["job"][:2] == (0, "done\n")


def test_a_job_whose_workers_all_die_is_told_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_ray, "RETRIES", 0)
    found: dict[str, Answer] = {}
    on_ray([("job", shell("kill -9 $PPID"))], tmp_path, None, found.__setitem__)
    code, told, log = found["job"]
    assert (code, told, log.count("\n")) == (LOST, "", 1)
    assert log.startswith("Ray: ")
    assert "died" in log


def test_an_interrupted_sweep_lets_its_jobs_end_by_themselves(tmp_path: Path) -> None:
    script = f"trap 'touch {tmp_path}/saved; exit 3' TERM; touch {tmp_path}/began; sleep 60 & wait"

    def interrupt() -> None:
        while not (tmp_path / "began").exists():
            stop.wait(0.05)
        signal.raise_signal(signal.SIGINT)

    stop = threading.Event()
    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        on_ray([("job", shell(script))], tmp_path, None, lambda *_: None)
    assert (tmp_path / "saved").exists()
