"""Serverless endpoints: deployed, watched, tried and operated."""
