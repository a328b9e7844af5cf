"""A fake RunPod on loopback: the queue between clients and workers, and workers as processes."""

from tests.fakes.runpod.faults import Faults
from tests.fakes.runpod.jobs import Job, JobStore, PlaneRules
from tests.fakes.runpod.process import LocalWorker, worker_environ
from tests.fakes.runpod.queue_plane import QueuePlane

__all__ = ["Faults", "Job", "JobStore", "LocalWorker", "PlaneRules", "QueuePlane", "worker_environ"]
