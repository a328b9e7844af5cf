"""EC2 machines to try an image on before it is paid for at RunPod: launch, watch, end."""
