"""The container image: docker, references, build and push."""
