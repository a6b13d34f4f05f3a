"""Processes: a lost one loses nothing, errors are outcomes, state stays."""

import os
import platform
import signal

import pytest

from harness.workers import Job, Worker, WorkerLost, run_jobs


def square(number):
    if number < 0:
        raise ValueError(f"{number} is negative")
    return number**2


def once_killed(marker):
    """Kills its own process the first time."""
    if not os.path.exists(marker):
        open(marker, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return "done in the second try"


def always_killed():
    os.kill(os.getpid(), signal.SIGKILL)


def test_jobs_here_and_in_processes_give_the_same_and_a_lost_process_loses_nothing(tmp_path):
    jobs = [Job(name=f"{n}", function=square, arguments=(n,)) for n in (3, -1, 4)]
    here = {outcome.job.name: outcome for outcome in run_jobs(jobs)}
    assert (here["3"].value, here["4"].value) == (9, 16)
    assert "-1 is negative" in str(here["-1"].error)
    jobs.append(Job(name="once", function=once_killed, arguments=(str(tmp_path / "marker"),)))
    jobs.append(Job(name="always", function=always_killed))
    there = {outcome.job.name: outcome for outcome in run_jobs(jobs, workers=2, threads=1)}
    assert (there["3"].value, there["4"].value) == (9, 16)
    assert isinstance(there["-1"].error, ValueError)
    assert there["once"].value == "done in the second try"
    assert isinstance(there["always"].error, WorkerLost)
    assert "signal 9" in str(there["always"].error)


def test_a_worker_keeps_its_state_and_ends_when_closed(tmp_path):
    with Worker(threads=1) as worker:
        assert worker.call(os.getpid) == worker.pid != os.getpid()
        worker.call(os.chdir, str(tmp_path))
        assert worker.call(os.getcwd) == str(tmp_path) != os.getcwd()
        import torch

        assert worker.call(torch.get_num_threads) == 1
        with pytest.raises(ValueError, match="negative"):
            worker.call(square, -2)
        pid = worker.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def pages_taken(megabytes, times):
    """Pages that the system had to give for tensors that come and go, after the first."""
    import resource

    import torch

    torch.ones(megabytes << 18)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.ones(megabytes << 18)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="acts on glibc's malloc")
def test_a_worker_uses_the_memory_of_large_tensors_again():
    with Worker(threads=1) as worker:
        worker.call(pages_taken, 100, 3)
        assert worker.call(pages_taken, 100, 3) < 1000  # 76,800 pages of 4 kB otherwise


def test_impossible_numbers_and_clusters_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        list(run_jobs([], workers=0))


@pytest.mark.slow
def test_jobs_on_a_dask_cluster_survive_a_lost_worker(tmp_path):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, local_directory=str(tmp_path)
    ) as cluster:
        jobs = [Job(name=f"{n}", function=square, arguments=(n,)) for n in (3, -1)]
        jobs.append(Job(name="once", function=once_killed, arguments=(str(tmp_path / "marker"),)))
        found = {outcome.job.name: outcome for outcome in run_jobs(jobs, cluster=cluster.scheduler_address)}
    assert found["3"].value == 9
    assert isinstance(found["-1"].error, ValueError)
    assert found["once"].value == "done in the second try"
