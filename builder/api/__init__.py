"""RunPod's APIs over HTTP: clients, retries, errors, and what their document says."""
