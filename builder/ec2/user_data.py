"""What an EC2 machine runs first, as a bash script: its own end, then docker for GPUs, then a file that says so.

Pure. No secret is in it: whoever is on the machine can read it. `BUILDER_ROOT` puts its files below another folder,
and it finds every program by PATH, so that a test runs it as it is.
"""

from __future__ import annotations

import shlex

from builder.errors import UsageError

__all__ = ["FAILED_FILE", "MAX_MINUTES", "MIN_MINUTES", "READY_FILE", "render"]

READY_FILE = "/var/lib/builder/ready"
FAILED_FILE = "/var/lib/builder/failed"
"""One of them appears on the machine; the second holds the reason in one line."""
MIN_MINUTES, MAX_MINUTES = 10, 720
"""In the last five minutes before a shutdown nobody can log in."""

SCRIPT = r"""#!/bin/bash
# Prepares a machine to run a GPU container; written by the builder of whisper-runpod.
set -euo pipefail

minutes=@MINUTES@
deadline=@DEADLINE@
login=@LOGIN@
root="${BUILDER_ROOT:-}"
folder="$root/var/lib/builder"
step="starting"

failed() {
    code=$?
    trap - ERR EXIT
    if [ "$code" -ne 0 ]; then
        mkdir -p "$folder" && echo "$step (exit $code)" >"$folder/failed.part" \
            && mv "$folder/failed.part" "$folder/failed"
    fi
    exit "$code"
}
trap failed EXIT

# First of all its end: shutting down terminates this machine.
step="scheduling the end"
shutdown -h "+$minutes" || {
    # Without it, something still has to end the machine.
    (sleep $((minutes * 60)); poweroff -f || shutdown -h now) >/dev/null 2>&1 </dev/null &
}

# A scheduled shutdown is forgotten at a reboot; this is not.
step="making the timer of the end"
units="$root/etc/systemd/system"
mkdir -p "$folder" "$units"
cat >"$units/builder-end.service" <<END
[Unit]
Description=Ends this machine

[Service]
Type=oneshot
ExecStart=/bin/systemctl poweroff
END
cat >"$units/builder-end.timer" <<END
[Unit]
Description=Ends this machine when its time is up

[Timer]
OnCalendar=$deadline
OnBootSec=${minutes}min
Persistent=true

[Install]
WantedBy=timers.target
END
{ systemctl daemon-reload && systemctl enable --now builder-end.timer; } \
    || echo "no timer: only the scheduled shutdown ends this machine" >&2

step="looking for the NVIDIA driver: choose an image (--ami) that has it"
nvidia-smi >/dev/null

export DEBIAN_FRONTEND=noninteractive
if ! command -v docker >/dev/null; then
    step="installing docker"
    apt-get update -q
    apt-get install -q -y docker.io
fi
step="starting docker"
systemctl enable --now docker

if ! command -v nvidia-ctk >/dev/null; then
    step="installing nvidia-container-toolkit"
    list="$root/etc/apt/sources.list.d/nvidia-container-toolkit.list"
    keys="$root/usr/share/keyrings/nvidia-container-toolkit.gpg"
    mkdir -p "${list%/*}" "${keys%/*}"
    site=https://nvidia.github.io/libnvidia-container
    curl -fsSL --retry 3 "$site/gpgkey" | gpg --batch --yes --dearmor -o "$keys"
    curl -fsSL --retry 3 "$site/stable/deb/nvidia-container-toolkit.list" \
        | sed "s#deb https://#deb [signed-by=$keys] https://#g" >"$list"
    apt-get update -q
    apt-get install -q -y nvidia-container-toolkit
fi
if ! docker info --format '{{json .Runtimes}}' | grep -q nvidia; then
    step="making docker use nvidia-container-toolkit"
    nvidia-ctk runtime configure --runtime=docker
    systemctl restart docker
fi

step="letting $login use docker"
usermod -aG docker "$login"

step="saying that it is ready"
date -u +%Y-%m-%dT%H:%M:%SZ >"$folder/ready.part"
mv "$folder/ready.part" "$folder/ready"
"""


def render(minutes: int, deadline: str, ssh_user: str = "ubuntu") -> str:
    """The script for a machine that ends after `minutes`, at the latest at `deadline` (`2026-01-31T12:00:00Z`).

    Raises UsageError for minutes outside MIN_MINUTES to MAX_MINUTES.
    """
    if not MIN_MINUTES <= minutes <= MAX_MINUTES:
        raise UsageError(f"--max-minutes {minutes} is not allowed; legal: {MIN_MINUTES} to {MAX_MINUTES}")
    moment = deadline.replace("T", " ").replace("Z", " UTC")
    return (
        SCRIPT.replace("@MINUTES@", str(minutes))
        .replace("@DEADLINE@", shlex.quote(moment))
        .replace("@LOGIN@", shlex.quote(ssh_user))
    )
