"""Command line that builds, deploys, watches and stops: `python -m builder VERB`.

Imports nothing of the engine or the servers; talks to RunPod over HTTP and to Docker by its client.
"""
