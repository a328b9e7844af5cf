"""`transcribe` from its command line to its result: plan, price guard, confirm, work, report."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.errors import BuilderError, InterruptError, JobFailedError
from builder.transcribe.inputs import find_sources, secrets_of
from builder.transcribe.jobs import Job, progress_text
from builder.transcribe.ledger import Ledgers
from builder.transcribe.look import check_endpoint, guess_of, jobs_of, look, question
from builder.transcribe.parts import Item, Told
from builder.transcribe.plan import Estimate, Wishes, check_budget, file_room_bytes, job_options, policy, pool_gpus
from builder.transcribe.queue import JobQueue
from builder.transcribe.report import cost_of, document_of
from builder.transcribe.sounds import Sounds
from builder.transcribe.write import check_folders, check_targets, target_bases, write_all

if TYPE_CHECKING:
    from builder.api.models_serverless import Endpoint
    from builder.console import Task
    from builder.runtime import Runtime
    from builder.transcribe.upload import Store

__all__ = ["Transcribed", "transcribe"]

RESUME = "run the same command again: finished recordings are not asked again, running jobs are picked up"


@dataclass(frozen=True)
class Transcribed:
    """What came of it: the document for --json, and what is to be raised after it was shown."""

    document: dict[str, Any]
    problem: BuilderError | None = None


def transcribe(run: Runtime, given: list[str], wishes: Wishes, store: Store | None = None) -> Transcribed:
    """Transcribe files, folders and URLs through an endpoint; see `builder.transcribe.queue` for how.

    Raises UsageError, NotFoundError, BudgetError and what RunPod's API raises; recordings that fail are in the result.
    """
    from builder.endpoints.chosen import chosen_endpoint_id

    wishes.check()
    options = job_options(wishes)
    for text in given:
        if "://" in text[:16]:
            for secret in secrets_of(text):
                run.redactor.add(secret)
    sources = find_sources(given, run.folder, recursive=wishes.recursive, warn=run.console.warn)
    endpoint = run.api.get_endpoint(chosen_endpoint_id(run, wishes.endpoint))
    check_endpoint(endpoint)
    ledgers = Ledgers(run.state.folder / "transcribe", run.console.warn)
    out = None if wishes.out is None else (run.folder / Path(wishes.out).expanduser()).resolve()
    bases = target_bases(sources, out)
    with ledgers.locked():
        check_folders(bases)
        if not wishes.force:
            check_targets(bases, [each.mark for each in sources], wishes.formats, ledgers.written())
        jobs = jobs_of(sources, bases, endpoint.id, options, ledgers, again=wishes.again)
        if not wishes.dry_run:
            # Those of this run were just used, and are young.
            ledgers.drop_old(run.clock.unix_s())
        work = _Work(run, wishes, endpoint, ledgers, jobs, options, store)
        return work.carry_out()


@dataclass
class _Work:
    """One run of the verb."""

    run: Runtime
    wishes: Wishes
    endpoint: Endpoint
    ledgers: Ledgers
    jobs: list[Job]
    options: dict[str, Any]
    store: Store | None
    gpus: dict[str, str | None] = field(default_factory=dict)
    prices: dict[str, float] = field(default_factory=dict)
    task: Task | None = None

    def carry_out(self) -> Transcribed:
        """Everything, under the lock."""
        from builder.api.jobs import MAX_RUN_BYTES
        from builder.transcribe.upload import has_store

        self.by_item = {id(job.item): job for job in self.jobs}
        room_bytes = file_room_bytes(self.options, MAX_RUN_BYTES)
        self.sounds = Sounds(
            self.run,
            self.ledgers,
            self.options,
            room_bytes=room_bytes,
            timeout_s=self.wishes.timeout_s,
            store=self.store,
        )
        store = self.store is not None or has_store(self.run.settings)
        look(self.run, self.ledgers, self.jobs, room_bytes, has_store=store, keep=not self.wishes.dry_run)
        catalog = self.run.api.gpu_types(product="SERVERLESS")
        guess = guess_of(self.jobs, self.wishes, self.endpoint, catalog)
        count = int((self.endpoint.gpu or {}).get("count") or 1)
        self.prices = {each.id: (each.price.serverless or 0.0) * count for each in pool_gpus(self.endpoint, catalog)}
        if self.wishes.dry_run:
            return Transcribed({"plan": self._plan(guess)})
        check_budget(guess, self.wishes.max_cost)
        if any(job.is_to_be_sent for job in self.jobs):
            self.run.console.confirm(question(self.jobs, self.endpoint, guess), yes=self.wishes.yes)
        before = {id(each) for job in self.jobs for each in job.times}
        lost, problem = self._work()
        return self._report(guess, before, lost, problem)

    # Before

    def _plan(self, guess: Estimate) -> dict[str, Any]:
        files = [job.plan(self.wishes.formats) for job in self.jobs]
        return {"endpoint_id": self.endpoint.id, "jobs_at_a_time": self._most, "files": files} | {
            "estimate": guess.document()
        }

    @property
    def _most(self) -> int:
        return self.wishes.jobs or max(1, self.endpoint.max_workers * self.wishes.per_worker)

    # Meanwhile

    def _work(self) -> tuple[int, BuilderError | None]:
        """Returns lost submissions, and what stopped the work before its end."""
        told = Told(
            prepare=lambda item: self.sounds.prepare(item.ledger, self._job_of(item).source),
            body=lambda item, part: self.sounds.body(item.ledger, self._job_of(item).source, part),
            finish=self._finish,
            gpu_of=self._gpu_of,
            settled=self._settled,
            stalled=self._stalled,
            note=self.run.console.note,
            warn=self.run.console.warn,
        )
        clock, endpoint_id = self.run.clock, self.endpoint.id
        ttl_s = policy(self.wishes.timeout_s, None)["ttl"] / 1000
        queue = JobQueue(self.run.jobs, clock, self.ledgers, endpoint_id, told, most=self._most, ttl_s=ttl_s)
        problem: BuilderError | None = None
        with self.run.console.task("transcribing") as task:
            self.task = task
            self._settled()
            try:
                queue.work([job.item for job in self.jobs if job.item.error is None])
            except KeyboardInterrupt:
                problem = self._interrupted(queue)
            except BuilderError as error:
                if queue.n_running:
                    self.run.console.warn(f"{_run_on(queue)}; {RESUME}")
                problem = error
        return queue.lost, problem

    def _interrupted(self, queue: JobQueue) -> BuilderError:
        if self.wishes.cancel_on_interrupt and queue.n_running:
            n_running, n_cancelled = queue.n_running, queue.cancel_all()
            return InterruptError(f"interrupted; {n_cancelled} of {n_running} jobs were cancelled", hint=RESUME)
        return InterruptError(f"interrupted; {_run_on(queue)}" if queue.n_running else "interrupted", hint=RESUME)

    def _job_of(self, item: Item) -> Job:
        return self.by_item[id(item)]

    def _finish(self, item: Item) -> None:
        """All answers of an item -> its transcripts."""
        from builder.transcribe.merge import Answer, merge

        job = self._job_of(item)
        ledger = job.ledger
        answers = []
        for part in ledger.parts:
            output = self.ledgers.result(ledger, part)
            if output is None:
                raise JobFailedError(f"the result of piece {part.index + 1} is gone", hint=RESUME)
            answers.append(Answer(part.start_s, part.end_s, output))
        transcript = merge(answers, self.wishes.task)
        if ledger.duration_s is None and transcript.duration_s is not None:
            ledger.duration_s = transcript.duration_s
            self.ledgers.save(ledger)
        for warning in transcript.warnings:
            self.run.console.note(f"{ledger.shown}: {warning}")
        written = write_all(
            job.base,
            job.source.mark,
            self.wishes.formats,
            transcript,
            self.ledgers.written(),
            self.ledgers.add_written,
            force=self.wishes.force,
        )
        job.outputs = tuple(written)
        self.sounds.forget(ledger)

    def _gpu_of(self, worker_id: str | None) -> str | None:
        """The GPU of a worker, asked for once; not knowing it is no reason to stop."""
        if worker_id is None:
            return None
        if worker_id not in self.gpus:
            try:
                workers = self.run.api.endpoint_workers(self.endpoint.id).workers
                self.gpus |= {each.id: each.gpu_type_id for each in workers}
            except BuilderError as error:
                self.run.console.note(f"which GPU worker {worker_id} has is not known: {error}")
            self.gpus.setdefault(worker_id, None)
        return self.gpus[worker_id]

    def _stalled(self, n_jobs: int) -> None:
        """Why nothing moves."""
        try:
            counts = self.run.jobs.health(self.endpoint.id).workers
        except BuilderError:
            return
        workers = ", ".join(f"{n} {name}" for name, n in sorted(counts.items()) if n) or "none yet"
        self.run.console.note(f"{n_jobs} jobs wait, none runs; workers: {workers}")

    def _settled(self) -> None:
        """How far it is, on one line."""
        if self.task is not None:
            self.task.update(progress_text(self.jobs))

    # After

    def _report(self, guess: Estimate, before: set[int], lost: int, problem: BuilderError | None) -> Transcribed:
        new = [[each for each in job.times if id(each) not in before] for job in self.jobs]
        rows = [job.row(times, self.prices) for job, times in zip(self.jobs, new, strict=True)]
        n_failed = sum(row.status == "failed" for row in rows)
        if problem is None and n_failed:
            first = next(row for row in rows if row.status == "failed")
            problem = JobFailedError(
                f"{n_failed} of {len(rows)} recordings failed; the first: {first.shown}: {first.error}",
                hint="the others are written; run the same command again to try these once more"
                if n_failed < len(rows)
                else "once that is mended, run the same command again",
            )
        total = cost_of([each for times in new for each in times], self.prices)
        return Transcribed(document_of(rows, self.endpoint.id, guess, total, lost), problem)


def _run_on(queue: JobQueue) -> str:
    n_jobs = queue.n_running
    return "a job runs on, and is paid for" if n_jobs == 1 else f"{n_jobs} jobs run on, and are paid for"
