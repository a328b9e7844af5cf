"""Jobs of serverless endpoints: submit, wait, stream."""
