"""`transcribe`: recordings through a serverless endpoint, each a transcript beside it."""
