"""What a launch would make and cost, before anything is made: type, image, price, network, limits.

Reads from AWS (STS, SSM, EC2's Describe operations); changes nothing.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from builder.deploy.create import unique_name
from builder.ec2.caller_address import allowed_network
from builder.ec2.prices import Price, address_per_h, disk_per_h, on_demand_per_h, spot_price
from builder.ec2.user_data import MAX_MINUTES, MIN_MINUTES
from builder.errors import AuthError, BudgetError, BuilderError, NotFoundError, UsageError

if TYPE_CHECKING:
    from builder.aws.session import Aws
    from builder.runtime import Runtime

__all__ = ["Image", "LaunchPlan", "LaunchWishes", "make_plan"]

PARAMETER = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id"
"""Where AWS publishes the id of its newest Deep Learning image."""
IMAGE_NAME = "Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu 22.04)*"
DEFAULT_DISK_GB = 100
MIN_DISK_GB, MAX_DISK_GB = 20, 1000
MAX_PREFIX_CHARS = 30
_PREFIX = re.compile(r"[A-Za-z][A-Za-z0-9-]*")
_USERS = (("ubuntu", "ubuntu"), ("debian", "admin"), ("amzn", "ec2-user"), ("al2023", "ec2-user"))


@dataclass(frozen=True)
class LaunchWishes:
    """The options of `ec2 launch`; None: as the settings say. Money in $/h, disks in GB."""

    instance_type: str | None = None
    ami: str | None = None
    region: str | None = None
    max_minutes: int | None = None
    allow_cidr: str | None = None
    allow_everyone: bool = False
    spot: bool = False
    max_price: float | None = None
    disk_gb: int = DEFAULT_DISK_GB
    name: str = "whisper"
    has_outside_timer: bool = True
    yes: bool = False
    dry_run: bool = False


@dataclass(frozen=True)
class Image:
    """A machine image: id, name, its root device, the least disk it fits on (0: not known), who logs in."""

    id: str
    name: str
    root_device: str
    min_disk_gb: int
    ssh_user: str


@dataclass(frozen=True)
class LaunchPlan:
    """All that is decided before the first change."""

    name: str
    region: str
    instance_type: str
    image: Image
    minutes: int
    network: str
    ports: tuple[int, ...]
    disk_gb: int
    is_spot: bool
    max_price: float | None
    price: Price
    account: str

    @property
    def extras_per_h(self) -> float:
        """Disk and public address, $/h."""
        return disk_per_h(self.disk_gb) + address_per_h()

    @property
    def per_h(self) -> float | None:
        """All of it, $/h; None if the machine's price is not known."""
        return None if self.price.per_h is None else round(self.price.per_h + self.extras_per_h, 4)

    @property
    def worst_case(self) -> float | None:
        """The most it can cost until it ends by itself, $."""
        return None if self.per_h is None else self.per_h * self.minutes / 60

    def document(self) -> dict[str, Any]:
        """As --json shows it."""
        return {
            "name": self.name,
            "account": self.account,
            "region": self.region,
            "instance_type": self.instance_type,
            "image": {"id": self.image.id, "name": self.image.name},
            "disk_gb": self.disk_gb,
            "is_spot": self.is_spot,
            "open_to": self.network,
            "ports": list(self.ports),
            "max_minutes": self.minutes,
            "price": {
                "machine_per_h": self.price.per_h,
                "extras_per_h": self.extras_per_h,
                "source": self.price.source,
            },
            "price_per_h": self.per_h,
            "worst_case": self.worst_case,
            "ends": self.how_it_ends,
        }

    @property
    def how_it_ends(self) -> str:
        """In words."""
        kind = "a one-time spot machine" if self.is_spot else "the machine"
        return f"{kind} shuts down after {self.minutes} min, which terminates it"


def make_plan(run: Runtime, aws: Aws, wishes: LaunchWishes) -> LaunchPlan:
    """Everything for one launch. Raises UsageError for options, BudgetError for the price, and what AWS raises."""
    minutes = run.settings.ec2_max_minutes if wishes.max_minutes is None else wishes.max_minutes
    if not MIN_MINUTES <= minutes <= MAX_MINUTES:
        raise UsageError(f"--max-minutes {minutes} is not allowed; legal: {MIN_MINUTES} to {MAX_MINUTES}")
    _check_prefix(wishes.name)
    identity = aws.call("GetCallerIdentity", service="sts")
    instance_type = wishes.instance_type or run.settings.ec2_type
    _check_type(aws, instance_type)
    image = _image(run, aws, wishes.ami or run.settings.ec2_ami)
    _check_disk(wishes.disk_gb, image)
    price = spot_price(run, aws, instance_type) if wishes.spot else on_demand_per_h(instance_type, aws.region)
    _check_price(price, wishes.max_price, instance_type)
    network = allowed_network(wishes.allow_cidr, allow_everyone=wishes.allow_everyone)
    if ":" in network:
        run.console.warn(
            f"only {network} may reach the machine, and in AWS's default network it has an IPv4 address alone: "
            "if that is so here, name your IPv4 address by --allow-cidr"
        )
    ports = dict.fromkeys((22, run.settings.ws_port, run.settings.health_port))
    return LaunchPlan(
        name=unique_name(f"{wishes.name}-{aws.region}", run.clock.unix_s()),
        region=aws.region,
        instance_type=instance_type,
        image=image,
        minutes=minutes,
        network=network,
        ports=tuple(ports),
        disk_gb=wishes.disk_gb,
        is_spot=wishes.spot,
        max_price=wishes.max_price,
        price=price,
        account=str(identity.get("Account", "")),
    )


def _check_prefix(prefix: str) -> None:
    if len(prefix) > MAX_PREFIX_CHARS or not _PREFIX.fullmatch(prefix) or prefix.startswith("sg-"):
        raise UsageError(
            f"--name {prefix[:60]!r} is not allowed; legal: at most {MAX_PREFIX_CHARS} letters, digits and -, a letter "
            "first, not sg-"
        )


def _check_type(aws: Aws, instance_type: str) -> None:
    """Raises UsageError for a type that AWS does not have, or that cannot run the image."""
    try:
        found = aws.call("DescribeInstanceTypes", InstanceTypes=[instance_type]).get("InstanceTypes", [])
    except (NotFoundError, UsageError):
        found = []
    if not found:
        raise UsageError(
            f"--type {instance_type[:60]!r}: {aws.region} has no such type", hint="for example: --type g4dn.xlarge"
        )
    gpus = found[0].get("GpuInfo", {}).get("Gpus", [])
    machine = found[0].get("ProcessorInfo", {}).get("SupportedArchitectures", ["x86_64"])
    if not any(str(gpu.get("Manufacturer", "")).upper() == "NVIDIA" for gpu in gpus):
        raise UsageError(f"--type {instance_type}: it has no NVIDIA GPU", hint="for example: --type g4dn.xlarge")
    if "x86_64" not in machine:
        raise UsageError(
            f"--type {instance_type}: the image is for x86_64, and this is {', '.join(machine)}",
            hint="for example: --type g4dn.xlarge",
        )


def _image(run: Runtime, aws: Aws, given: str | None) -> Image:
    """The image to start. Raises NotFoundError if there is none."""
    image_id = given or _published(run, aws)
    if image_id is not None:
        try:
            found = aws.call("DescribeImages", ImageIds=[image_id]).get("Images", [])
        except (NotFoundError, UsageError):
            found = []
        if given and not found:
            raise NotFoundError(
                f"--ami {image_id[:60]!r}: {aws.region} has no such image", hint="leave it out to use AWS's newest"
            )
        if found:
            return _image_of(found[0])
    filters = [{"Name": "name", "Values": [IMAGE_NAME]}, {"Name": "state", "Values": ["available"]}]
    images = list(aws.pages("DescribeImages", "Images", Owners=["amazon"], Filters=filters))
    if not images:
        raise NotFoundError(
            f"{aws.region} has no image named {IMAGE_NAME!r}", hint="name one with an NVIDIA driver: --ami ami-..."
        )
    return _image_of(max(images, key=lambda each: str(each.get("CreationDate", ""))))


def _published(run: Runtime, aws: Aws) -> str | None:
    """The id of the newest image as AWS publishes it; None if it does not, or this user may not ask."""
    try:
        answer = aws.call("GetParameter", service="ssm", Name=PARAMETER)
    except BuilderError as error:
        if isinstance(error, AuthError) and error.code == AuthError.code:
            raise
        run.console.note(f"looking for the image by its name: {error}")
        return None
    return str(answer.get("Parameter", {}).get("Value") or "") or None


def _image_of(raw: dict[str, Any]) -> Image:
    name = str(raw.get("Name") or "")
    root = str(raw.get("RootDeviceName") or "/dev/sda1")
    sizes = [
        int(each.get("Ebs", {}).get("VolumeSize") or 0)
        for each in raw.get("BlockDeviceMappings", [])
        if each.get("DeviceName") == root
    ]
    user = next((user for part, user in _USERS if part in name.lower()), "ubuntu")
    return Image(str(raw["ImageId"]), name, root, max(sizes, default=0), user)


def _check_disk(disk_gb: int, image: Image) -> None:
    low = max(MIN_DISK_GB, image.min_disk_gb)
    if not low <= disk_gb <= MAX_DISK_GB:
        raise UsageError(f"--disk {disk_gb} is not allowed; legal: {low} to {MAX_DISK_GB} GB for image {image.id}")


def _check_price(price: Price, max_price: float | None, instance_type: str) -> None:
    if max_price is None:
        return
    if not math.isfinite(max_price):
        raise UsageError(f"--max-price {max_price} is not allowed; legal: 0.01 to 100")
    if price.per_h is None:
        raise BudgetError(
            f"{price.source}, and --max-price is ${max_price:g}/h", hint="leave --max-price out, or name another --type"
        )
    if price.per_h > max_price:
        raise BudgetError(
            f"{instance_type} costs ${price.per_h:.3f}/h ({price.source}); --max-price is ${max_price:g}/h",
            hint="raise --max-price, name a cheaper --type, or add --spot",
        )
