"""Settings on disk: the wizard, `.env`, the shell project's `.env`, and the doctor."""
