"""The serverless worker: `python -m handler`, a superset of runpod-workers/worker-faster_whisper."""
